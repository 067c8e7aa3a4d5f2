"""The gateway with a sampling profiler: ``sampled.py CONFIG`` serves as ``umbel serve -c CONFIG`` does, with a timer.

``start`` and ``stop`` are lines of its standard input; the samples in between are one line of JSON. A real-time timer
takes a sample every two milliseconds (a CPU-time timer has only the kernel's resolution). A sample is weighted by the
main thread's CPU time since the last one, so that an idle gateway has no weight. Python runs the handler after the
current instruction, so that a system call counts for the line that makes it. The time of the garbage collector is taken
out of the samples and reported separately.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from stages import GC, OTHER, stage_of  # noqa: E402  # a sibling, found only now

EVERY_S = 0.002


class Sampler:
    """The sampling profiler: the CPU time of each stage."""

    def __init__(self) -> None:
        self._stages: dict[tuple[CodeType, int], str | None] = {}
        self._running = self._stopping = False
        self._wakeup = -1
        self._collecting = 0.0
        self._begin()

    def _begin(self) -> None:
        self.weights: defaultdict[str, float] = defaultdict(float)
        self.functions: defaultdict[tuple[str, CodeType], float] = defaultdict(float)
        self.samples = 0
        self._collected = 0.0
        self._stopped = threading.Event()

    def install(self) -> None:
        signal.signal(signal.SIGALRM, self._tick)

    def start(self) -> None:
        self._begin()
        signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)

    def stop(self) -> dict[str, object]:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._stopping = True
        os.kill(os.getpid(), signal.SIGALRM)
        self._stopped.wait()
        functions = sorted(
            (weight, stage, f"{Path(code.co_filename).parent.name}/{Path(code.co_filename).name}:{code.co_qualname}")
            for (stage, code), weight in self.functions.items()
        )
        return {"stages": self.weights, "samples": self.samples, "functions": functions[::-1]}

    def _collect(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self._collected += time.thread_time() - self._collecting
            self._collecting = 0.0

    def _tick(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        if not self._running:
            # trio asks to be woken by every signal; ours are none of its business, and would be a load of their own.
            self._wakeup = signal.set_wakeup_fd(-1)
            gc.callbacks.append(self._collect)
            self._running = True
        elif self._stopping:
            signal.set_wakeup_fd(self._wakeup)
            gc.callbacks.remove(self._collect)
            self._running = self._stopping = False
            self._stopped.set()
        else:
            collected, self._collected = self._collected, 0.0
            if self._collecting:  # A finalizer is at work; it is the collector that has called it.
                collected += now - max(self._last, self._collecting)
            self.weights[GC] += collected
            self._weigh(frame, max(0.0, now - self._last - collected))
        self._last = time.thread_time()
        if self._collecting:
            self._collecting = self._last

    def _weigh(self, frame: FrameType | None, weight: float) -> None:
        self.samples += 1
        stages = self._stages
        innermost = frame
        while frame is not None:
            code, at = frame.f_code, frame.f_lasti
            try:
                stage = stages[code, at]
            except KeyError:
                stage = stages[code, at] = stage_of(code.co_filename, code.co_qualname, frame.f_lineno or 0)
            if stage is not None:
                break
            frame = frame.f_back
        else:
            stage = OTHER
        self.weights[stage] += weight
        at_fault = frame or innermost
        if at_fault is not None:
            self.functions[stage, at_fault.f_code] += weight


def _obey(sampler: Sampler, answers: int) -> None:
    for line in sys.stdin:
        if line == "start\n":
            sampler.start()
        elif line == "stop\n":
            os.write(answers, json.dumps(sampler.stop()).encode() + b"\n")


def main() -> None:
    sampler = Sampler()
    sampler.install()
    threading.Thread(target=_obey, args=(sampler, sys.stdout.fileno()), daemon=True).start()
    from umbel.cli import main as command

    sys.argv = ["umbel", "serve", "-c", sys.argv[1], "-b", "127.0.0.1:0"]
    command()


if __name__ == "__main__":
    main()
