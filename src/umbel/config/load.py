"""From a file name to a ``Config``, or to every mistake in it at once.

Called by the command line and by ``Umbel.from_file``. The only place that reads configuration files; it starts nothing
and keeps no file open. What needs a plan is judged by the ``checks`` that the caller hands in.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, ConfigProblem
from .files import make_absolute, unusable
from .findings import Finding, findings
from .hidden import broken_rules
from .merge import Merged, Origin, merge
from .schema import Config, KeyPath, Logs, Route, Section, Tls, Upstream
from .sections import dotted
from .source import Source, UnreadableError, read
from .variables import Variables


class Loaded(NamedTuple):
    """A configuration, and what keeps the values of its variables out of whatever is printed of it."""

    config: Config
    hide: Callable[[str], str]
    """A text with the values that came from the environment written as ``${NAME}``."""


Check = Callable[[Config], Iterable[tuple[KeyPath, str]]]
"""A judgement that the schema cannot make: yields the path of a key and what is wrong with it."""

_DEFAULTS: Mapping[str, type[Section]] = {"upstream": Upstream, "route": Route}
_TEXT_MAX = 400


def load(
    path: str | os.PathLike[str], *, checks: Sequence[Check] = (), environ: Mapping[str, str] | None = None
) -> Config:
    """Read the configuration at ``path``: files included, variables replaced, defaults merged, everything validated.

    Paths in it come out absolute. ``environ`` is the process's environment unless given. ``checks`` run on whatever
    validated, also where something else did not.

    Raises:
        ConfigError: it cannot be used; carries every problem, in the order of the files and their lines. No message
            shows a URL or the value of a variable.
    """
    return load_with_secrets(path, checks=checks, environ=environ).config


def load_with_secrets(
    path: str | os.PathLike[str], *, checks: Sequence[Check] = (), environ: Mapping[str, str] | None = None
) -> Loaded:
    """The same, for a caller that prints parts of the configuration.

    Raises:
        ConfigError: as ``load``.
    """
    problems = _Problems(Variables(os.environ if environ is None else environ))
    reading = _Reading(problems)
    reading.read(Path(path), os.fspath(path))
    config = _build(reading, problems, checks) if reading.files else None
    if config is None or problems.found:
        raise ConfigError(problems.sorted())
    return Loaded(config, problems.variables.hide)


class _Problems:
    """What was found so far, each thing once."""

    def __init__(self, variables: Variables) -> None:
        self.variables = variables
        self.found: set[ConfigProblem] = set()
        self._order: dict[str, int] = {}

    def new_file(self, name: str) -> None:
        """Problems are told in the order of the files that they stand in."""
        self._order.setdefault(_one_line(name), len(self._order))

    def in_file(self, name: str, error: UnreadableError) -> None:
        """A file gives no data."""
        self.found.add(ConfigProblem(_one_line(name), error.line, "", _one_line(error.reason)))

    def at(self, origin: Origin, reason: str, *, quotes: bool = False) -> None:
        """Something is wrong with the value of ``origin``; ``quotes``: the sentence may hold a variable's value."""
        if quotes:
            reason = self.variables.hide(reason)
        name, key = _one_line(origin.source.name), _one_line(dotted(origin.path))
        self.found.add(ConfigProblem(name, origin.line, key, _one_line(reason)))

    def sorted(self) -> list[ConfigProblem]:
        """All of them, in the order of the files and their lines."""
        return sorted(
            self.found, key=lambda each: (self._order[each.file], each.line or 0, _natural(each.key), each.reason)
        )


class _Reading:
    """The main file and all that it includes, variables replaced and paths absolute."""

    def __init__(self, problems: _Problems) -> None:
        self.files: list[tuple[Source, dict[str, Any]]] = []
        self.whole = True
        """Whether nothing is unknown that another file would say."""
        self._problems = problems
        self._seen: set[str] = set()

    def read(self, path: Path, name: str) -> None:
        """Read one file, then those that it includes; each file is read once, whoever names it."""
        if (real := _real(path)) in self._seen:
            return
        self._seen.add(real)
        self._problems.new_file(name)
        try:
            source = read(path, name)
        except UnreadableError as error:
            self._problems.in_file(name, error)
            self.whole = False
            return
        data, wrong = self._problems.variables.replace(source.data)
        for at, reason in wrong:
            self._problems.at(Origin(source, at), reason)
        make_absolute(source, data)
        self.files.append((source, data))
        patterns = data.get("include")
        for index, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
            if isinstance(pattern, str):
                self._include(Origin(source, ("include", index)), pattern)
            else:
                self.whole = False

    def _include(self, origin: Origin, pattern: str) -> None:
        source = origin.source
        matches = _matches(source.directory, pattern)
        if not matches:
            self._problems.at(origin, "no file matches this")
            self.whole = False
        for match in matches:
            self.read(source.directory / match, os.path.normpath(Path(source.name).parent / match))


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL in the name; opening it will say so
        return str(path)


def _matches(directory: Path, pattern: str) -> list[str]:
    try:
        found = glob.glob(pattern, root_dir=directory, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute one
    except ValueError:  # a NUL in the pattern
        return []
    return sorted(match for match in found if not (directory / match).is_dir())


def _build(reading: _Reading, problems: _Problems, checks: Sequence[Check]) -> Config | None:
    """The configuration of what validated; everything else is among the problems."""

    def report(origin: Origin, reason: str) -> None:
        if len(origin.path) == 1:
            reading.whole = False  # a whole section is not understood, and nobody knows what it meant to say
        problems.at(origin, reason)

    merged = merge(reading.files, report)
    logs = merged.data.get("logs", {})
    if isinstance(logs, dict):
        merged.data["logs"] = {"dir": str(merged.root.directory / Logs().dir), **logs}
    found = findings(Config, merged.data)
    found += broken_rules(Config, merged.data, found)
    _report_defaults(merged, problems)
    for each in found:
        origin = merged.origin(each.path)
        told = origin.path[:1] == ("defaults",) and each.kind not in ("missing", "rule")
        if each.kind != "reported" and not told:
            problems.at(origin, each.reason, quotes=each.quotes)
    config, kept = _valid_part(merged, found, whole=reading.whole)

    def origin_of(path: KeyPath) -> Origin:
        """The path of a route in the valid part is not its path in the whole."""
        if len(path) > 1 and path[0] == "routes" and isinstance(path[1], int):
            path = ("routes", kept[path[1]], *path[2:])
        return merged.origin(path)

    config._locate = lambda path: str(origin_of(path))
    for path, reason in unusable(_tls_tables(merged, found)):
        problems.at(merged.origin(path), reason)
    for check in checks:
        for path, reason in check(config):
            problems.at(origin_of(path), reason, quotes=True)
    return config


def _report_defaults(merged: Merged, problems: _Problems) -> None:
    """A wrong default is told once, where it stands, whether or not anything inherits it.

    What is missing there may come from an upstream or a route, and so may the other half of a rule.
    """
    for name, table in merged.defaults.items():
        at: KeyPath = ("defaults", name)
        for each in findings(_DEFAULTS[name], table, at):
            if each.kind in ("unknown", "value"):
                problems.at(Origin(merged.root, at + each.path), each.reason, quotes=each.quotes)


def _tls_tables(merged: Merged, found: Iterable[Finding]) -> Iterator[tuple[KeyPath, Tls]]:
    """The TLS tables that are right in themselves, also of an upstream that is not."""
    broken = {each.path[:3] for each in found}
    for name, table in merged.data["upstreams"].items():
        path = ("upstreams", name, "tls")
        if isinstance(table, dict) and isinstance(tls := table.get("tls"), dict) and path not in broken:
            yield path, Tls.model_validate(tls)


def _valid_part(merged: Merged, found: Iterable[Finding], *, whole: bool) -> tuple[Config, list[int]]:
    """What validated as a ``Config``, and the places that its routes have in the whole.

    A route that asks an upstream which is wrong, or may stand in a file that could not be read, is left out too: it
    would be blamed for another's mistake.
    """
    broken = {each.path[:2] for each in found}
    upstreams = {name: table for name, table in merged.data["upstreams"].items() if ("upstreams", name) not in broken}

    def judgeable(route: dict[str, Any]) -> bool:
        asked = {call["upstream"] for call in route["calls"].values()}
        return asked <= upstreams.keys() or (whole and not asked & (merged.data["upstreams"].keys() - upstreams.keys()))

    kept = [
        index
        for index, route in enumerate(merged.data["routes"])
        if ("routes", index) not in broken and judgeable(route)
    ]
    broken_sections = {path[0] for path in broken}
    rest = {key: value for key, value in merged.data.items() if key not in broken_sections | {"upstreams", "routes"}}
    valid = {**rest, "upstreams": upstreams, "routes": [merged.data["routes"][index] for index in kept]}
    return Config.model_validate(valid, by_alias=True, by_name=False), kept


def _one_line(text: str) -> str:
    """What people see is one line, whatever stands in a file or in its name."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    half = _TEXT_MAX // 2
    return shown if len(shown) <= _TEXT_MAX else f"{shown[:half]} … {shown[-half:]}"


def _natural(key: str) -> list[str | int]:
    """For sorting: urls[2] comes before urls[10]. Texts and numbers take turns, so each meets its like."""
    parts = re.split(r"\[([0-9]+)\]", key)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
