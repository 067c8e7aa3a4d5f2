"""Processes of Python programs for tests, forked from a process that has imported Umbel already.

The start of an interpreter and its imports cost about a second of CPU time, and the tests start hundreds of processes.
``install`` replaces ``subprocess.Popen``: a command ``python -m MODULE ...`` with a module of ``MODULES`` is forked
from a fork server, which each process of the tests starts when it first needs it. Any other command, and one whose
environment has ``BY_EXEC``, is executed as usual.

Theory
======

The fork server is a process with one thread that imports Umbel and then waits for requests on an abstract Unix socket.
It forks a child per request. The child gets the arguments, the environment, the working directory and the descriptors
of the request, and no other descriptor; then it leaves the loop of the server and runs the module as the interpreter
would, so that the interpreter ends in the usual way. ``subprocess.Popen`` is replaced in the child too: the workers of
a forked master are forked by the same server, so no process has the state of another program.

What differs from an executed process: the parent is the fork server, and modules are imported already and frozen for
the garbage collector. Tests of these, and of the start itself, set ``BY_EXEC``. The parent reaps a process when its
starter asks for the exit status, which the starter does only after the process has ended, as its pidfd tells. The
server ends with its test process.
"""

from __future__ import annotations

import array
import atexit
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from fcntl import F_DUPFD, fcntl
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

MODULES = ("umbel", "umbel.supervisor.worker.worker", "hypercorn")
BY_EXEC = "TESTS_START_BY_EXEC"
"""The environment variable of commands that are executed."""

_PROJECT = Path(__file__).parents[3]
_REQUEST_MAX, _DESCRIPTORS_MAX = 1024 * 1024, 64
_FIXED_AT_START = ("PYTHON", "LC_", "LANG", "COVERAGE")
"""Beginnings of the names of variables that an interpreter reads when it starts."""
_address: str | None = None
"""The address of the fork server, in the server and its children."""


_starting = Lock()


class ForkingPopen(subprocess.Popen[Any]):
    """``subprocess.Popen`` that forks the commands that a fork server can start."""

    _pidfd = -1

    def _execute_child(self, *values: Any) -> None:
        args, executable, preexec_fn, _, pass_fds, cwd, env, _, _, shell, *rest = values
        pipes = rest[:6]
        changes_nothing_else = rest[7:] == [None, None, None, -1, False, -1]
        environment = dict(os.environ if env is None else env)
        if executable or preexec_fn or shell or not changes_nothing_else or not _is_forkable(args, environment):
            super()._execute_child(*values)  # type: ignore[misc]
            return
        # The ends of the child; -1 stands for the descriptor of this process.
        std = [given if given >= 0 else own for own, given in enumerate((pipes[0], pipes[3], pipes[5]))]
        request = {
            "args": list(args[2:]),
            "cwd": str(Path(cwd or ".").resolve()),
            "env": environment,
            "fds": [0, 1, 2, *pass_fds],
        }
        try:
            self.pid = _ask(request, [*std, *pass_fds])
            self._pidfd = os.pidfd_open(self.pid)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]

    def _internal_poll(self, *values: Any, **more: Any) -> int | None:
        if self._pidfd < 0:
            return super()._internal_poll(*values, **more)  # type: ignore[misc, no-any-return]
        if self.returncode is None and self._waitpid_lock.acquire(False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG)
                if pid and self.returncode is None:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._pidfd < 0:
            return super()._try_wait(wait_flags)  # type: ignore[misc, no-any-return]
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(0 if wait_flags & os.WNOHANG else None):
            return 0, 0
        status = _ask({"ended": self.pid}, [])
        os.close(self._pidfd)
        # The lock is held, and the return code is set before it is released, so that nobody asks again.
        return self.pid, status


def install() -> None:
    """Replace ``subprocess.Popen`` in this process."""
    subprocess.Popen = ForkingPopen  # type: ignore[misc]


def _is_forkable(args: Any, environment: Mapping[str, str]) -> bool:
    if isinstance(args, str | bytes | os.PathLike) or len(args) < 3 or BY_EXEC in environment:
        return False
    return [*args[:2]] == [sys.executable, "-m"] and args[2] in MODULES and _fixed(environment) == _fixed(os.environ)


def _fixed(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_FIXED_AT_START) and name != "PYTHONUNBUFFERED"
    }


def _ask(request: Mapping[str, Any], descriptors: list[int]) -> int:
    """Send a request to the fork server and return its answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        with _starting:
            asking.connect(_address or _started_server())
        passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        asking.sendmsg([json.dumps(request).encode()], passed)
        return int(asking.recv(100))


@cache
def _started_server() -> str:
    """Start the fork server of this process and return its address. The server ends with this process."""
    address = f"\0umbel-tests-{os.getpid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(128)
    command = [sys.executable, "-m", __spec__.name, str(listener.fileno()), address[1:]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UMBEL_")}
    with listener:
        server = subprocess.Popen(
            command, cwd=_PROJECT, env=environment, stdin=subprocess.PIPE, pass_fds=[listener.fileno()]
        )
    atexit.register(_stop, server)
    return address


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server by the end of its stdin, which comes too if this process is killed."""
    server.communicate()


# The fork server.


def _serve(listener: socket.socket) -> dict[str, Any]:
    """Answer requests. Returns a request, with ``given`` (descriptors), in each forked child; exits with the parent."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(listener, select.POLLIN)
    while True:
        if any(descriptor == 0 for descriptor, _ in poll.poll()):
            os._exit(0)
        asking = listener.accept()[0]
        given: list[int] = []
        # A starter may be killed at any time, such as a master: then there is no request, or nobody for the answer.
        with asking, suppress(OSError):
            data, given, _, _ = socket.recv_fds(asking, _REQUEST_MAX, _DESCRIPTORS_MAX)
            if data:
                request = json.loads(data)
                if (answer := _answer(request)) is None:
                    # The objects must not close numbers that soon are other descriptors.
                    asking.detach()
                    listener.detach()
                    return {**request, "given": given}
                asking.sendall(b"%d" % answer)
        for descriptor in given:
            os.close(descriptor)


def _answer(request: dict[str, Any]) -> int | None:
    """Return the status of an ended process, or the pid of the new one; None in the new process."""
    if "ended" in request:
        return os.waitpid(request["ended"], 0)[1]
    return os.fork() or None


def _become(request: dict[str, Any]) -> None:
    """Take on the descriptors, the environment, the working directory and the arguments of the request."""
    targets = request["fds"]
    high = [fcntl(descriptor, F_DUPFD, max(targets) + 100) for descriptor in request["given"]]
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number not in high:
            with suppress(OSError):  # the descriptor of the directory itself
                os.close(number)
    for source, target in zip(high, targets, strict=True):
        os.dup2(source, target, inheritable=True)
        os.close(source)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0] = str(Path.cwd())
    sys.argv[:] = request["args"]
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = _text(0, sys.stdin, "rb", os.isatty(0), unbuffered)  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = _text(1, sys.stdout, "wb", os.isatty(1), unbuffered)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text(2, sys.stderr, "wb", True, unbuffered)  # type: ignore[misc]


def _text(descriptor: int, like: Any, mode: str, lines: bool, unbuffered: bool) -> io.TextIOWrapper:
    # The interpreter always buffers what it reads.
    binary: Any = open(descriptor, mode, 0 if unbuffered and mode == "wb" else -1, closefd=False)  # noqa: SIM115
    newline = "\n" if mode == "wb" else None
    return io.TextIOWrapper(
        binary, like.encoding, like.errors, newline, line_buffering=lines and not unbuffered, write_through=unbuffered
    )


def _import_all() -> None:
    """Import all modules of Umbel but those that act when they are imported or run as the main module."""
    umbel = importlib.import_module("umbel")
    for module in pkgutil.walk_packages(umbel.__path__, "umbel."):
        if not module.name.endswith("__main__") and module.name not in (*MODULES, "umbel.asgi"):
            importlib.import_module(module.name)
    importlib.import_module("hypercorn.run")


def main() -> None:
    """Run the fork server, and in its children the module of the request."""
    global _address
    _address = f"\0{sys.argv[2]}"
    _import_all()
    # So that a child neither looks through all imported modules nor frees them, for example when it ends.
    gc.collect()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(sys.argv[1])))
    _become(request)
    install()
    runpy.run_module(request["args"][0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    # Not this module itself, whose place the module of the request takes.
    importlib.import_module(__spec__.name).main()
