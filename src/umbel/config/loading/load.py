"""From a file name to a ``Config``, or to every mistake in it at once.

Blocks, starts nothing and keeps no file open. What needs a plan is judged by the ``checks`` that are handed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...core.errors import ConfigError, ConfigProblem
from ..schema.constraints import NO_CONSTRAINTS
from ..schema.section import Section
from ..schema.section_tree import keys_of
from ..schema.sections import Config, KeyPath, Logs, Route, Tls, Upstream
from .did_you_mean import nearest
from .error_recovery import mended
from .error_report import Problems
from .file_loader import Reading
from .file_reader import KEEPS_CHANGING, READS_MAX, Source, settled
from .hidden_errors import broken_rules
from .merge import Merged, Origin, merge
from .named_files import unusable
from .validation_errors import Finding, findings
from .variables import Variables


class Loaded(NamedTuple):
    """A configuration, what is odd about it, and what keeps the values of its variables out of whatever is printed."""

    config: Config
    hide: Callable[[str], str]
    """A text with the values that came from the environment written as ``${NAME}``."""
    warnings: tuple[ConfigProblem, ...] = ()
    """What can be used as it is and is rarely meant, in the order of the files and their lines."""


Check = Callable[[Config], Iterable[tuple[KeyPath, str]]]
"""A judgement that the schema cannot make: yields the path of a key and what is wrong with it."""

_DEFAULTS: Mapping[str, type[Section]] = {"upstream": Upstream, "route": Route}


def load(
    path: str | os.PathLike[str], *, checks: Sequence[Check] = (), environ: Mapping[str, str] | None = None
) -> Config:
    """Read the configuration at ``path``: files included, variables replaced, defaults merged, everything validated.

    A configuration of which a file is being written is read again until it stands still.

    Paths in it come out absolute. ``environ`` is the process's environment unless given. ``checks`` run also where
    something did not validate, then with stand-ins in its place; what they say of these is not told.

    Raises:
        ConfigError: it cannot be used; carries every problem, in the order of the files and their lines. No message
            shows a URL or the value of a variable.
    """
    return load_with_secrets(path, checks=checks, environ=environ).config


def load_with_secrets(
    path: str | os.PathLike[str],
    *,
    checks: Sequence[Check] = (),
    warnings: Sequence[Check] = (),
    beside: Mapping[str, Source] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """The same, for a caller that prints parts of the configuration. ``warnings`` run where nothing is wrong.

    A warning may be about a key of a file ``beside``: its path begins with the name of that.

    Raises:
        ConfigError: as ``load``.
    """
    for _ in range(READS_MAX):
        problems = Problems(Variables(os.environ if environ is None else environ))
        reading = Reading(problems)
        reading.read(Path(path), os.fspath(path))
        if settled(reading.stamps):
            break
    else:
        raise ConfigError([ConfigProblem(os.fspath(path), None, "", KEEPS_CHANGING)])
    if not reading.files:
        raise ConfigError(problems.sorted())
    config, origin_of = _build(reading, problems, checks)
    if problems.found:
        raise ConfigError(problems.sorted())
    told, others = Problems(problems.variables), beside or {}
    for source in (*(source for source, _ in reading.files), *others.values()):
        told.new_file(source.name)
    for check in warnings:
        for key, reason in check(config):
            other = others.get(str(key[0]))
            told.at(origin_of(key) if other is None else Origin(other, key[1:]), reason, quotes=True)
    return Loaded(config, problems.variables.hide, tuple(told.sorted()))


def _build(reading: Reading, problems: Problems, checks: Sequence[Check]) -> tuple[Config, Callable[[KeyPath], Origin]]:
    """The configuration, with stand-ins for what did not validate, and where its keys stand.

    Whatever is wrong is among the problems, what the checks find in the rest of it too.
    """

    def report(origin: Origin, reason: str) -> None:
        if len(origin.path) == 1 and nearest(str(origin.path[0]), keys_of(Config)) in (None, "include", "upstreams"):
            reading.whole = False  # a whole section is not understood, and it may have meant to name upstreams
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
    config, kept = _mended_config(merged, whole=reading.whole)

    def origin_of(path: KeyPath) -> Origin:
        """The path of a route that could be mended is not its path in the whole."""
        if len(path) > 1 and path[0] == "routes" and isinstance(path[1], int):
            path = ("routes", kept[path[1]], *path[2:])
        return merged.origin(path)

    config._locate = lambda path: str(origin_of(path))
    for path, reason in unusable(_tls_tables(merged, found)):
        problems.at(merged.origin(path), reason)
    for check in checks:
        for path, reason in check(config):
            if not config.is_guess(path):
                problems.at(origin_of(path), reason, quotes=True)
    return config, origin_of


def _report_defaults(merged: Merged, problems: Problems) -> None:
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


# Stands in for an upstream that may stand in a file that could not be read.
_STAND_IN: Mapping[str, Any] = {"urls": ["http://stand-in"]}


def _mended_config(merged: Merged, *, whole: bool) -> tuple[Config, list[int]]:
    """The mended tree as a ``Config``, and the places that its routes have in the whole.

    Unless the files were read as a ``whole``, an upstream that is not there may stand in what could not be read.
    """
    data, guessed = mended(merged.data)
    wrong = {each.path[:2] for each in findings(Config, data, rules=False)}  # What no stand-in could mend.
    kept = [index for index in range(len(data["routes"])) if ("routes", index) not in wrong]
    routes = [data["routes"][index] for index in kept]
    upstreams = {name: table for name, table in data["upstreams"].items() if ("upstreams", name) not in wrong}
    if not whole:
        asked = {call["upstream"] for route in routes for call in route["calls"].values()}
        upstreams = dict.fromkeys(asked, _STAND_IN) | upstreams
    broken = {path[0] for path in wrong}
    rest = {key: value for key, value in data.items() if key not in broken | {"upstreams", "routes"}}
    valid = {**rest, "upstreams": upstreams, "routes": routes}
    # The rules between keys have been looked at, in the tree as it is in the files.
    config = Config.model_validate(valid, by_alias=True, by_name=False, context=NO_CONSTRAINTS)
    places: dict[str | int, int] = {old: new for new, old in enumerate(kept)}
    config._guessed = frozenset(
        ("routes", places.get(path[1], -1), *path[2:]) if path[0] == "routes" and len(path) > 1 else path
        for path in guessed
    )
    return config, kept
