"""Load of a configuration: from the name of a file to a ``Config``, or to all mistakes in the files at once.

Theory
------
**Problem.** A configuration is checked by several stages: reading, variables, the schema, certificates, and checks of
routes that need a complete ``Config``. Each stage needs the output of the stage before it. If loading stopped at the
first stage that fails, an operator would correct one mistake per run. So no stage stops at a mistake. It reports the
mistake, replaces the wrong part by something that the next stage accepts, and marks the replaced part, so that the next
stages do not report the same mistake again.

=====================  ===========================================  ==========================================
stage                  a mistake                                    replaced by, and marked as
=====================  ===========================================  ==========================================
``file_loader``        a file cannot be read; no file for a glob    nothing; ``FileLoader.complete`` is False
``variables``          a variable is not set, or a file cannot be   ``REPORTED`` in the place of the value
                       read
``give_types``,        (report nothing)                             (no replacement)
``make_plain``
``merge``              a section of a wrong type, a second          left out
                       upstream of the same name
``schema_violations``  a key is unknown, missing or wrong           see ``recover``
``hidden_violations``  a constraint between keys is broken in a     (no replacement)
                       table that has a wrong key too
``recover``            (reports nothing)                            placeholders, in ``Config.is_placeholder``
``certificates``       TLS cannot use a file                        (no replacement)
``checks``             a route cannot be compiled, for example      (no replacement)
=====================  ===========================================  ==========================================

**The report.** All stages add their problems to one ``ErrorReport``. It drops duplicates, hides values of variables,
and sorts by file and line. A problem is added with an ``Origin``, the file and the key path at which a value was
written. ``MergedTree.origin`` finds it for a path in the merged tree. Recovery may remove routes, and so change the
indexes of the routes after them; ``_recovered_config`` returns the original index of each route for this reason.

**One mistake, one problem.** A consequence of a mistake is not reported:

- A value that is ``REPORTED`` gives no schema violation.
- A wrong key in ``[defaults.*]`` is reported once, there, and not for each upstream or route that inherits it.
- A problem that a check finds at a placeholder is dropped.
- If any file is missing, an upstream or a section ``[auth.NAME]`` that no file defines gets a placeholder: the missing
  file may define it.

**Invariant.** A ``Config`` with placeholders exists only within ``_build`` and the checks. ``load_for_display`` raises
``ConfigError`` if the report holds any problem, so such a configuration is never returned and never served.

The functions block on files. They start nothing and keep no file open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...core.errors import ConfigError, ConfigProblem
from ..schema.constraints import NO_CONSTRAINTS
from ..schema.section_tree import keys_of
from ..schema.sections import DEFAULT_TABLES, PUBLIC, Config, KeyPath, Logs, Tls
from .certificates import certificate_errors
from .errors.did_you_mean import nearest
from .errors.error_recovery import PLACEHOLDERS, hidden_violations, recover
from .errors.error_report import ErrorReport
from .errors.validation_errors import SchemaViolation, schema_violations
from .file_loader import FileLoader
from .file_reader import GIVEN_NAME, KEEPS_CHANGING, READS_MAX, SourceFile, UnreadableError, given, settled
from .merge import MergedTree, Origin, merge
from .variable_types import give_types, make_plain
from .variables import Variables


class LoadedConfig(NamedTuple):
    """A configuration with its warnings, and a function that hides the values of its variables in printed text."""

    config: Config
    hide: Callable[[str], str]
    """Return a text with the values of variables replaced by ``${NAME}``; values under 4 characters stay."""
    warnings: tuple[ConfigProblem, ...] = ()
    """Keys that are valid and probably do not do what was meant, in the order of the files and their lines."""


Check = Callable[[Config], Iterable[tuple[KeyPath, str]]]
"""A check that the schema cannot express: it yields the path of a key and the reason why the key is wrong."""


def load(
    path: str | os.PathLike[str], *, checks: Sequence[Check] = (), environ: Mapping[str, str] | None = None
) -> Config:
    """Read and validate the configuration at ``path`` and the files that it includes.

    Variables are replaced, defaults are merged, and paths are absolute in the result. While a file is being written,
    the configuration is read again, at most ``READS_MAX`` times. Blocks.

    Args:
        checks: run after the schema; if the configuration has mistakes, on one with placeholders for them.
        environ: the environment variables; None: those of the process.

    Raises:
        ConfigError: the configuration cannot be used. It carries all problems, in the order of the files and their
            lines. No message shows a URL or the value of a variable.
    """
    return load_for_display(path, checks=checks, environ=environ).config


def load_given(
    source: str | Mapping[str, Any], *, checks: Sequence[Check] = (), environ: Mapping[str, str] | None = None
) -> Config:
    """Validate a configuration that is no file: TOML as text, or its data. Blocks on the files that it names.

    Relative paths are relative to the current directory. Arguments and errors are those of ``load``; the problems name
    a file ``configuration``, and those of data no line.
    """
    report = ErrorReport(Variables(os.environ if environ is None else environ))
    loader = FileLoader(report)
    report.add_file(GIVEN_NAME)
    try:
        loader.add(given(source))
    except UnreadableError as error:
        report.add_unreadable(GIVEN_NAME, error)
        raise ConfigError(report.problems()) from error
    config, _ = _build(loader, report, checks)
    if report.found:
        raise ConfigError(report.problems())
    return config


def load_for_display(
    path: str | os.PathLike[str],
    *,
    checks: Sequence[Check] = (),
    warnings: Sequence[Check] = (),
    beside: Mapping[str, SourceFile] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedConfig:
    """Do as ``load``, and also return warnings and a function that hides the values of variables.

    Args:
        checks: as in ``load``, like ``path`` and ``environ``.
        warnings: run on a configuration without mistakes; what they yield becomes ``LoadedConfig.warnings``.
        beside: other files that a warning may be about, by name. The path of such a warning begins with that name.

    Raises:
        ConfigError: as in ``load``.
    """
    for _ in range(READS_MAX):
        report = ErrorReport(Variables(os.environ if environ is None else environ))
        loader = FileLoader(report)
        loader.read(Path(path), os.fspath(path))
        if settled([*loader.stamps, *report.variables.stamps]):
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


_DEFINING = (None, "include", "upstreams", "auth", "limits")
"""What an unknown section may have been meant to be, if it may define names that others refer to."""


def _build(
    loader: FileLoader, report: ErrorReport, checks: Sequence[Check]
) -> tuple[Config, Callable[[KeyPath], Origin]]:
    """Validate the files, add every problem to ``report``, and return a configuration and the origin of its keys.

    If ``report`` holds problems afterwards, the configuration has placeholders and must not be served.
    """

    def report_misplaced(origin: Origin, reason: str) -> None:
        if len(origin.path) == 1 and nearest(str(origin.path[0]), keys_of(Config)) in _DEFINING:
            loader.complete = False  # An unknown section may be a misspelt one that defines names.
        report.add(origin, reason)

    merged = merge(loader.files, report_misplaced)
    logs = merged.data.get("logs", {})
    if isinstance(logs, dict):
        merged.data["logs"] = {"dir": str(merged.root.directory / Logs().dir), **logs}
    give_types(Config, merged.data)
    for name, table in merged.defaults.items():
        give_types(DEFAULT_TABLES[name], table)
    make_plain(merged.data)
    make_plain(merged.defaults)
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
        """Return the origin of a key of the configuration. Recovery may have changed the indexes of routes."""
        if len(path) > 1 and path[0] == "routes" and isinstance(path[1], int):
            path = ("routes", kept[path[1]], *path[2:])
        return merged.origin(path)

    config._locate = lambda path: str(origin_of(path))
    config._hide = report.variables.hide
    for path, reason in certificate_errors(_tls_tables(merged, found)):
        report.add(merged.origin(path), reason)
    for check in checks:
        for path, reason in check(config):
            if not config.is_placeholder(path):
                report.add(origin_of(path), reason, quotes=True)
    return config, origin_of


def _report_defaults(merged: MergedTree, report: ErrorReport) -> None:
    """Report each wrong key of ``[defaults.*]`` once, whether or not a table inherits it.

    A missing key is no mistake there, and neither is a broken constraint: each upstream or route adds keys.
    """
    for name, table in merged.defaults.items():
        at: KeyPath = ("defaults", name)
        for each in schema_violations(DEFAULT_TABLES[name], table, at):
            if each.kind in ("unknown", "value"):
                report.add(Origin(merged.root, at + each.path), each.reason, quotes=each.quotes)


def _tls_tables(merged: MergedTree, found: Iterable[SchemaViolation]) -> Iterator[tuple[KeyPath, Tls]]:
    """Yield the path and the section of each valid TLS table, also of an upstream with mistakes in other keys."""
    broken = {each.path[:3] for each in found}
    for name, table in merged.data["upstreams"].items():
        path = ("upstreams", name, "tls")
        if isinstance(table, dict) and isinstance(tls := table.get("tls"), dict) and path not in broken:
            yield path, Tls.model_validate(tls)


# Replaces a section [auth.NAME] that may be in a file that could not be read.
_AUTH_PLACEHOLDER: Mapping[str, Any] = {"kind": "mtls", "allow": PLACEHOLDERS["allow"]}
# Replaces a section [limits.NAME] that may be in a file that could not be read.
_LIMIT_PLACEHOLDER: Mapping[str, Any] = {name: PLACEHOLDERS[name] for name in ("key", "rate", "burst")}
# Replaces an upstream that may be in a file that could not be read.
_UPSTREAM_PLACEHOLDER: Mapping[str, Any] = {"urls": PLACEHOLDERS["urls"]}


def _recovered_config(merged: MergedTree, *, complete: bool) -> tuple[Config, list[int]]:
    """Make a ``Config`` of the recovered tree; return it with the index of each of its routes in the merged tree.

    Unless the files are ``complete``, an upstream, or a section ``[auth.NAME]`` or ``[limits.NAME]``, that is not
    defined gets a placeholder, since a missing file may define it.
    """
    data, replaced = recover(merged.data)
    wrong = {
        each.path[:2] for each in schema_violations(Config, data, constraints=False)
    }  # The upstreams, routes and sections that no placeholder could make valid: they are left out.
    kept = [index for index in range(len(data["routes"])) if ("routes", index) not in wrong]
    routes = [data["routes"][index] for index in kept]
    upstreams = {name: table for name, table in data["upstreams"].items() if ("upstreams", name) not in wrong}
    sections = {name: table for name, table in data["auth"].items() if ("auth", name) not in wrong}
    limits = {name: table for name, table in data["limits"].items() if ("limits", name) not in wrong}
    missing: set[tuple[str, str]] = set()
    if not complete:
        missing = {("auth", name) for name in _named(routes, "auth") - sections.keys() - {*PUBLIC}}
        missing |= {("limits", name) for name in _named([*routes, data.get("server", {})], "limits") - limits.keys()}
        sections |= {name: _AUTH_PLACEHOLDER for key, name in missing if key == "auth"}
        limits |= {name: _LIMIT_PLACEHOLDER for key, name in missing if key == "limits"}
        calls = [call for route in routes for call in route.get("calls", {}).values()]
        asked = {call["upstream"] for call in calls if "upstream" in call}
        upstreams = dict.fromkeys(asked, _UPSTREAM_PLACEHOLDER) | upstreams
    broken = {path[0] for path in wrong}
    rest = {key: value for key, value in data.items() if key not in broken | {"upstreams", "routes", "auth", "limits"}}
    valid = {**rest, "upstreams": upstreams, "routes": routes, "auth": sections, "limits": limits}
    # Constraints between keys were checked before recovery, in the values of the files. Placeholders may break them.
    config = Config.model_validate(valid, by_alias=True, by_name=False, context=NO_CONSTRAINTS)
    places: dict[str | int, int] = {old: new for new, old in enumerate(kept)}
    config._placeholders = frozenset(
        ("routes", places.get(path[1], -1), *path[2:]) if path[0] == "routes" and len(path) > 1 else path
        for path in (*replaced, *missing)
    )
    return config, kept


def _named(tables: Iterable[Mapping[str, Any]], key: str) -> set[str]:
    """The names in a key of tables that holds one name or a list of names."""
    values = [table.get(key, ()) for table in tables]
    return {name for each in values for name in ([each] if isinstance(each, str) else each)}
