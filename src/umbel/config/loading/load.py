"""Load of a configuration: from a file name to a ``Config``, or to every mistake in the files at once.

The stages, a module each: the files and their includes (``file_loader``), variables (``variables``), defaults and one
tree (``merge``), the schema (``validation_errors``), certificates (``certificates``), then the caller's checks, which
need a ``Config``. Where the tree is not valid, ``error_recovery`` lets the later stages run all the same.

Blocks on files, starts nothing and keeps no file open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...core.errors import ConfigError, ConfigProblem
from ..schema.constraints import NO_CONSTRAINTS
from ..schema.section_tree import keys_of
from ..schema.sections import DEFAULT_TABLES, Config, KeyPath, Logs, Tls
from .certificates import certificate_errors
from .did_you_mean import nearest
from .error_recovery import PLACEHOLDERS, hidden_violations, recover
from .error_report import ErrorReport
from .file_loader import FileLoader
from .file_reader import KEEPS_CHANGING, READS_MAX, SourceFile, settled
from .merge import MergedTree, Origin, merge
from .validation_errors import SchemaViolation, schema_violations
from .variables import Variables


class LoadedConfig(NamedTuple):
    """A configuration, its warnings, and a function that hides the values of its variables in printed text."""

    config: Config
    hide: Callable[[str], str]
    """Return a text with the values that came from the environment written as ``${NAME}``."""
    warnings: tuple[ConfigProblem, ...] = ()
    """What is valid and probably not meant, in the order of the files and their lines."""


Check = Callable[[Config], Iterable[tuple[KeyPath, str]]]
"""A check that the schema cannot express: yields the path of a key and what is wrong with it."""


def load(
    path: str | os.PathLike[str], *, checks: Sequence[Check] = (), environ: Mapping[str, str] | None = None
) -> Config:
    """Read the configuration at ``path``: files included, variables replaced, defaults merged, everything validated.

    A configuration is read again while one of its files is being written, at most ``READS_MAX`` times.

    Paths in it are absolute. ``environ`` is the process's environment unless given. ``checks`` run also where something
    is not valid, then with placeholders in its place; what they find wrong with a placeholder is not reported.

    Raises:
        ConfigError: it cannot be used; carries every problem, in the order of the files and their lines. No message
            shows a URL or the value of a variable.
    """
    return load_for_display(path, checks=checks, environ=environ).config


def load_for_display(
    path: str | os.PathLike[str],
    *,
    checks: Sequence[Check] = (),
    warnings: Sequence[Check] = (),
    beside: Mapping[str, SourceFile] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedConfig:
    """Load as ``load`` does, for a caller that prints parts of the configuration, with warnings.

    ``warnings`` run where nothing is wrong.

    A warning may be about a key of a file ``beside``: its path begins with the name of that.

    Raises:
        ConfigError: as ``load``.
    """
    for _ in range(READS_MAX):
        report = ErrorReport(Variables(os.environ if environ is None else environ))
        loader = FileLoader(report)
        loader.read(Path(path), os.fspath(path))
        if settled(loader.stamps):
            break
    else:
        raise ConfigError([ConfigProblem(os.fspath(path), None, "", KEEPS_CHANGING)])
    if not loader.files:
        raise ConfigError(report.problems())
    config, origin_of = _build(loader, report, checks)
    if report.found:
        raise ConfigError(report.problems())
    warned, others = ErrorReport(report.variables), beside or {}
    for source in (*(source for source, _ in loader.files), *others.values()):
        warned.add_file(source.name)
    for check in warnings:
        for key, reason in check(config):
            other = others.get(str(key[0]))
            warned.add(origin_of(key) if other is None else Origin(other, key[1:]), reason, quotes=True)
    return LoadedConfig(config, report.variables.hide, tuple(warned.problems()))


def _build(
    loader: FileLoader, report: ErrorReport, checks: Sequence[Check]
) -> tuple[Config, Callable[[KeyPath], Origin]]:
    """Return the configuration, with placeholders for what is not valid, and where its keys stand.

    Everything that is wrong is in the report, what the checks find in the rest too.
    """

    def report_misplaced(origin: Origin, reason: str) -> None:
        if len(origin.path) == 1 and nearest(str(origin.path[0]), keys_of(Config)) in (None, "include", "upstreams"):
            loader.complete = False  # an unknown section may be a misspelt one that defines upstreams
        report.add(origin, reason)

    merged = merge(loader.files, report_misplaced)
    logs = merged.data.get("logs", {})
    if isinstance(logs, dict):
        merged.data["logs"] = {"dir": str(merged.root.directory / Logs().dir), **logs}
    found = schema_violations(Config, merged.data)
    found += hidden_violations(Config, merged.data, found)
    _report_defaults(merged, report)
    for each in found:
        origin = merged.origin(each.path)
        reported = origin.path[:1] == ("defaults",) and each.kind not in ("missing", "constraint")
        if each.kind != "reported" and not reported:
            report.add(origin, each.reason, quotes=each.quotes)
    config, kept = _recovered_config(merged, complete=loader.complete)

    def origin_of(path: KeyPath) -> Origin:
        """Return where a key of the configuration was written; recovery may have removed routes before it."""
        if len(path) > 1 and path[0] == "routes" and isinstance(path[1], int):
            path = ("routes", kept[path[1]], *path[2:])
        return merged.origin(path)

    config._locate = lambda path: str(origin_of(path))
    for path, reason in certificate_errors(_tls_tables(merged, found)):
        report.add(merged.origin(path), reason)
    for check in checks:
        for path, reason in check(config):
            if not config.is_placeholder(path):
                report.add(origin_of(path), reason, quotes=True)
    return config, origin_of


def _report_defaults(merged: MergedTree, report: ErrorReport) -> None:
    """Report each wrong default once, where it stands, whether or not anything inherits it.

    What is missing there may come from an upstream or a route, and so may the other key of a constraint.
    """
    for name, table in merged.defaults.items():
        at: KeyPath = ("defaults", name)
        for each in schema_violations(DEFAULT_TABLES[name], table, at):
            if each.kind in ("unknown", "value"):
                report.add(Origin(merged.root, at + each.path), each.reason, quotes=each.quotes)


def _tls_tables(merged: MergedTree, found: Iterable[SchemaViolation]) -> Iterator[tuple[KeyPath, Tls]]:
    """Yield the TLS tables that are valid by themselves, also those of an upstream that is not."""
    broken = {each.path[:3] for each in found}
    for name, table in merged.data["upstreams"].items():
        path = ("upstreams", name, "tls")
        if isinstance(table, dict) and isinstance(tls := table.get("tls"), dict) and path not in broken:
            yield path, Tls.model_validate(tls)


# For an upstream that may stand in a file that could not be read.
_UPSTREAM_PLACEHOLDER: Mapping[str, Any] = {"urls": PLACEHOLDERS["urls"]}


def _recovered_config(merged: MergedTree, *, complete: bool) -> tuple[Config, list[int]]:
    """Return the recovered tree as a ``Config``, and the index that each of its routes has in the merged tree.

    Unless the files are ``complete``, an upstream that is not defined gets a placeholder: a missing file may define it.
    """
    data, replaced = recover(merged.data)
    wrong = {
        each.path[:2] for each in schema_violations(Config, data, constraints=False)
    }  # What no placeholder could replace.
    kept = [index for index in range(len(data["routes"])) if ("routes", index) not in wrong]
    routes = [data["routes"][index] for index in kept]
    upstreams = {name: table for name, table in data["upstreams"].items() if ("upstreams", name) not in wrong}
    if not complete:
        asked = {call["upstream"] for route in routes for call in route["calls"].values()}
        upstreams = dict.fromkeys(asked, _UPSTREAM_PLACEHOLDER) | upstreams
    broken = {path[0] for path in wrong}
    rest = {key: value for key, value in data.items() if key not in broken | {"upstreams", "routes"}}
    valid = {**rest, "upstreams": upstreams, "routes": routes}
    # The constraints between keys have been checked, in the tree as it is in the files.
    config = Config.model_validate(valid, by_alias=True, by_name=False, context=NO_CONSTRAINTS)
    places: dict[str | int, int] = {old: new for new, old in enumerate(kept)}
    config._placeholders = frozenset(
        ("routes", places.get(path[1], -1), *path[2:]) if path[0] == "routes" and len(path) > 1 else path
        for path in replaced
    )
    return config, kept
