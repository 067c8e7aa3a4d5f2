"""The picture of the README: ``make picture`` takes a screenshot of the console of a running demo.

Runs ``umbel demo --traffic`` on a terminal of its own, waits for a request that a hedge has answered, and shows its
waterfall in Chromium. Writes ``docs/pictures/console.png``. Exit status: 0, or 1 if Chromium is missing or no such
request comes.
"""

from __future__ import annotations

import os
import pty
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from umbel.net.exception_groups import described

from .browser import BrowserError, Page, opened_page

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "console.png"
BYTES_MAX = 300_000
"""The bound on the picture."""
WIDTH, SCALE = 1100, 1.75
"""The width of the page in CSS pixels, and how many pixels of the picture one of them has."""
START_S_MAX = 30
REQUEST_S_MAX = 120
"""The time limits in seconds for the demo to start, and for such a request to come."""
_URL = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S+")


@asynccontextmanager
async def running_demo(directory: Path, *options: str) -> AsyncIterator[str]:
    """Run the demo with traffic on a terminal; yield the URL of its console. It is stopped after the block.

    Raises:
        trio.TooSlowError: it does not print the URL within ``START_S_MAX``.
    """
    own, its = pty.openpty()
    command = [sys.executable, "-m", "umbel", "demo", "--traffic", "--port", "0", *options]
    process = await trio.lowlevel.open_process(command, cwd=directory, stdin=its, stdout=its, stderr=its)
    os.close(its)
    try:
        async with trio.lowlevel.FdStream(own) as terminal, trio.open_nursery() as nursery:
            shown = ""
            with trio.fail_after(START_S_MAX):
                while (found := _URL.search(shown)) is None:
                    shown += (await terminal.receive_some()).decode(errors="replace")
            nursery.start_soon(_drain, terminal)
            yield found[0]
            nursery.cancel_scope.cancel(reason="the picture is taken")
    finally:
        process.terminate()
        with trio.move_on_after(10, shield=True):
            await process.wait()
        if process.returncode is None:
            process.kill()


async def _drain(terminal: trio.lowlevel.FdStream) -> None:
    """Read the lines of requests, so that the demo never waits for its terminal."""
    while await terminal.receive_some():
        pass


def hedged(timelines: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first timeline that makes a picture: a complete answer that waited for a hedge, whose first attempt lost."""
    for timeline in timelines:
        attempts = [each for call in timeline["calls"] for each in call["attempts"]]
        lost = [each for each in attempts if each["cause"] == "first" and each["reason"] == "lost-hedge"]
        won = [each for each in attempts if each["cause"] == "hedge" and each["outcome"] == "ok" and each["critical"]]
        if timeline["outcome"] == "complete" and len(timeline["calls"]) > 2 and lost and won:
            return timeline
    return None


_KEPT = """fetch('/slow').then((answer) => answer.json()).then(({requests}) => Promise.all(
  requests.filter((each) => each.duration_ms > 60).slice(0, 40).map(({id}) => fetch(`/slow/${id}`)
    .then((answer) => answer.json()).then(({timeline}) => timeline && {...timeline, id}).catch(() => null))))"""


async def _hedged_request(page: Page) -> str:
    """Wait for a request for the picture; return its id."""
    with trio.fail_after(REQUEST_S_MAX):
        while True:
            timelines = await page.value(_KEPT)
            if (found := hedged(each for each in timelines if each)) is not None:
                return str(found["id"])
            await trio.sleep(1)


async def take(directory: Path) -> bytes:
    """Take the picture. ``directory`` is for the files of the browser and the logs of the demo.

    Raises:
        BrowserError: Chromium is missing.
        trio.TooSlowError: the demo did not start, or no request for the picture came.
    """
    async with opened_page(directory / "profile") as page, running_demo(directory) as url:
        await page.resize(WIDTH, 900, scale=SCALE)
        await page.theme("light")
        await page.open(url)
        await page.until("document.querySelector('header nav a')")
        identifier = await _hedged_request(page)
        await page.value(f"location.hash = '#/requests/{identifier}'")
        await page.until("document.querySelector('.lanes') && document.querySelector('[data-state=live]')")
        bottom = await page.value("document.querySelector('.lanes').getBoundingClientRect().bottom")
        await page.value("document.activeElement.blur()")
        await page.resize(WIDTH, round(bottom) + 12, scale=SCALE)
        return await page.screenshot()


def main() -> int:
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            picture = trio.run(take, Path(directory))
        except* BrowserError as errors:
            failures.append(described(errors))
        except* trio.TooSlowError:
            failures.append("the demo did not start, or none of its requests was answered by a hedge; try again")
    if failures:
        print(f"umbel: no picture: {'; '.join(failures)}", file=sys.stderr)
        return 1
    PICTURE.write_bytes(picture)
    print(f"wrote {PICTURE.relative_to(PICTURE.parents[2])}, {len(picture) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
