"""Figures for tests of traffic: what a process has counted."""

from __future__ import annotations

from typing import Any

from tests.unit.observe.test_figures import cells
from umbel.observe.figures import ProcessFigures
from umbel.observe.traffic.window import Change, FiguresWindow

SERVER, CLIENT = "http_server_request_duration_seconds", "http_client_request_duration_seconds"

__all__ = ["CLIENT", "SERVER", "cells", "changed_from", "figures_of", "since_start"]


def figures_of(process: str, **values: Any) -> ProcessFigures:
    return ProcessFigures(process=process, pid=1, values=values)


def since_start(*figures: ProcessFigures) -> Change:
    """The first sample: there is nothing to compare it with."""
    return FiguresWindow().change(0.0, figures)


def changed_from(before: ProcessFigures, *now: ProcessFigures) -> Change:
    """The change in the 4 seconds from ``before`` to ``now``."""
    window = FiguresWindow()
    window.change(0.0, [before])
    return window.change(4.0, now)
