"""The picture of the README: ``make picture`` requests the demo's route twice and draws the duration of each call.

The second time the service of the offers is slow: its call ends at its timeout, and the response has no offers. Writes
``docs/pictures/dashboard.svg``.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import httpx
import trio

from umbel import Umbel
from umbel.core.events import CallEnded, Event, RequestEnded
from umbel.core.model import Outcome
from umbel.demo.session import load_sample
from umbel.demo.upstreams import sample_upstreams
from umbel.server import hypercorn_config, serve

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "dashboard.svg"
TARGET = "/dashboard/42"
WIDTH, LEFT, RIGHT, ROW, TITLE = 760, 96, 24, 26, 34
INSIDE_MIN = 130
"""The width of a bar, in pixels, that has room for its text."""
COLOURS = {"value": "#2f7d5b", "failed": "#c0392b", "skipped": "#8a8f98"}
TEXT, FAINT, REQUEST = "#24292f", "#8a8f98", "#4a6fa5"


@dataclass(frozen=True, slots=True)
class Traced:
    """One request and its calls, in the order in which they began."""

    title: str
    request: RequestEnded
    calls: list[Outcome]

    @property
    def seconds(self) -> float:
        return self.request.ended_at - self.request.request.started_at


class Recording:
    """A recorder that keeps what ended."""

    def __init__(self) -> None:
        self.requests: list[RequestEnded] = []
        self.calls: list[Outcome] = []

    def record(self, event: Event) -> None:
        if isinstance(event, RequestEnded):
            self.requests.append(event)
        elif isinstance(event, CallEnded) and event.outcome.started_at is not None:
            self.calls.append(event.outcome)


async def trace(title: str, *slow: str) -> Traced:
    """Serve the demo on loopback, ask its route once to have the connections, and once for the picture."""
    recording = Recording()
    with tempfile.TemporaryDirectory() as logs:
        async with sample_upstreams(slow=slow, fail=()) as upstreams:
            app = Umbel(__name__, load_sample(upstreams, logs=Path(logs)), recorder=recording, static_folder=None)
            stop = trio.Event()
            async with trio.open_nursery() as nursery:
                run = partial(serve, app, hypercorn_config(bind=["127.0.0.1:0"]), shutdown_trigger=stop.wait)
                [base] = await nursery.start(run)
                async with httpx.AsyncClient(base_url=base) as client:
                    await client.get(TARGET)
                    recording.calls.clear()
                    reply = await client.get(TARGET)
                stop.set()
    reply.raise_for_status()
    calls = sorted(recording.calls, key=lambda each: each.started_at or 0.0)
    return Traced(title, recording.requests[1], calls)


def draw(traces: list[Traced]) -> str:
    """Return the traces below each other as an SVG; each has the whole width, so the scales of time differ."""
    parts: list[str] = []
    top = 0
    for each in traces:
        parts += _panel(each, top, (WIDTH - LEFT - RIGHT) / each.seconds)
        top += TITLE + ROW * (len(each.calls) + 1) + 14
    label = "When each call of a request began and ended: " + "; ".join(each.title for each in traces)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" role="img"'
        f' aria-label="{escape(label)}" font-family="system-ui, sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(traced: Traced, top: int, scale: float) -> list[str]:
    """Return the title, the bar of the request, and a bar for each call."""
    began = traced.request.request.started_at
    parts = [_text(12, top + 20, traced.title, TEXT, weight=600)]
    y = top + TITLE
    completed = "complete" if traced.request.completed else "partial"
    length = traced.seconds * scale
    parts += [
        _text(12, y + 14, "response", REQUEST),
        f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{ROW * (len(traced.calls) + 1) - 4}" rx="4"'
        f' fill="{REQUEST}" fill-opacity="0.10" stroke="{REQUEST}" stroke-opacity="0.5"/>',
        _text(LEFT + 8, y + 16, f"{completed} after {traced.seconds * 1000:.0f} ms", REQUEST),
    ]
    for call in traced.calls:
        y += ROW
        start = LEFT + ((call.started_at or began) - began) * scale
        width = (call.ended_at - (call.started_at or began)) * scale
        colour = COLOURS[call.state]
        reason = f" ({call.failure.kind})" if call.failure is not None else ""
        said = f"{(call.ended_at - (call.started_at or began)) * 1000:.0f} ms{reason}"
        parts.append(_text(12, y + 15, call.call, TEXT))
        parts.append(
            f'<rect x="{start:.1f}" y="{y + 4}" width="{width:.1f}" height="{ROW - 9}" rx="3" fill="{colour}"'
            f' fill-opacity="0.85"><title>{escape(call.call)}: {escape(said)}</title></rect>'
        )
        inside = width > INSIDE_MIN
        place = start + width - 6 if inside else start + width + 6
        parts.append(_text(place, y + 17, said, "#ffffff" if inside else FAINT, anchor="end" if inside else "start"))
    return parts


def _text(x: float, y: float, text: str, colour: str, *, weight: int = 400, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-weight="{weight}">{escape(text)}</text>'


async def _both() -> list[Traced]:
    return [await trace("GET /dashboard/42"), await trace("The same, while the offers are slow", "offers")]


def main() -> None:
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(trio.run(_both)), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(Path.cwd()) if PICTURE.is_relative_to(Path.cwd()) else PICTURE}")


if __name__ == "__main__":
    sys.exit(main())
