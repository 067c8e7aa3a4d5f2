"""Merge of all files and of the defaults into one tree, with the origin of every value: the file and its key path.

It reports only mistakes that prevent the merge. The schema is checked afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..schema.section_tree import keys_of
from ..schema.sections import DEFAULT_TABLES, Config, KeyPath
from .errors.did_you_mean import sections_with_key, suggestion
from .file_reader import SourceFile

_MAIN_ONLY = ("include", "compress", "cors", "headers", "server", "supervisor", "admin", "logs", "traces")
_OF_CREDENTIALS = ("scopes", "scopes_any", "allow")
"""The keys of a route that are about the credential of a request, beside ``auth``."""
_SHARED = ("include", "upstreams", "routes", "auth", "limits")


@dataclass(frozen=True, slots=True)
class Origin:
    """The place at which a value was written: the file, and the key path in that file."""

    source: SourceFile
    path: KeyPath

    @property
    def line(self) -> int | None:
        """The line of the key, or of the nearest one above it."""
        return self.source.line(self.path)

    def __str__(self) -> str:
        """``file:line``."""
        line = self.line
        return self.source.name if line is None else f"{self.source.name}:{line}"


Report = Callable[[Origin, str], None]


@dataclass(slots=True)
class MergedTree:
    """One tree made of all files.

    Origins are recorded for upstreams, routes, [auth.NAME], [limits.NAME] and inherited keys. Any other value has the
    origin of its nearest ancestor with a recorded one, extended by the rest of its path.
    """

    root: SourceFile
    data: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    """The tables ``[defaults.upstream]`` and ``[defaults.route]`` by their last key; a wrong type is left out."""
    _origins: dict[KeyPath, Origin] = field(default_factory=dict)

    def origin(self, path: KeyPath) -> Origin:
        """Return the origin of the value at ``path`` of the merged tree."""
        for end in range(len(path), 0, -1):
            if known := self._origins.get(path[:end]):
                return Origin(known.source, known.path + path[end:])
        return Origin(self.root, path)

    def place(self, path: KeyPath, value: Any, origin: Origin, default: dict[str, Any], name: str) -> Any:
        """Record the origin of ``value`` at ``path``, and return the value merged with ``[defaults.<name>]``."""
        self._origins[path] = origin
        if isinstance(value, dict):
            return self._inherit(path, value, default, ("defaults", name))
        return value

    def _inherit(self, path: KeyPath, own: dict[str, Any], default: dict[str, Any], at: KeyPath) -> dict[str, Any]:
        """Merge a table with its defaults, key by key. A key of the table has precedence over its default."""
        merged = dict(own)
        # The names of header fields are case-insensitive.
        names = {key.lower(): key for key in own} if path[-1] == "headers" else {key: key for key in own}
        for key, value in default.items():
            own_key = names.get(key.lower() if path[-1] == "headers" else key)
            if own_key is None:
                merged[key] = value
                self._origins[*path, key] = Origin(self.root, (*at, key))
            elif isinstance(own[own_key], dict) and isinstance(value, dict):
                merged[own_key] = self._inherit((*path, key), own[key], value, (*at, key))
        return merged


def merge(sources: Sequence[tuple[SourceFile, dict[str, Any]]], report: Report) -> MergedTree:
    """Merge the data of all files into one tree. The main file must be first. Wrong parts are reported and left out."""
    root, main = sources[0]
    merged = MergedTree(root, {key: main[key] for key in _MAIN_ONLY if key in main})
    merged.data |= {"upstreams": {}, "routes": [], "auth": {}, "limits": {}}
    merged.defaults = _defaults(root, main, report)
    for source, data in sources:
        _known_keys(source, data, root, report)
        _add_named(merged, source, data, report, "upstreams", merged.defaults.get("upstream", {}))
        _add_named(merged, source, data, report, "auth", {})
        _add_named(merged, source, data, report, "limits", {})
        _add_routes(merged, source, data, report)
    return merged


def _defaults(root: SourceFile, data: dict[str, Any], report: Report) -> dict[str, Any]:
    tables = data.get("defaults", {})
    if not isinstance(tables, dict):
        report(Origin(root, ("defaults",)), "needs the tables [defaults.upstream] and [defaults.route]")
        return {}
    for key in tables.keys() - DEFAULT_TABLES.keys():
        report(Origin(root, ("defaults", key)), f"is not a table of [defaults]{suggestion(key, DEFAULT_TABLES)}")
    for key in DEFAULT_TABLES:
        if not isinstance(tables.get(key, {}), dict):
            report(Origin(root, ("defaults", key)), f"needs one table, [defaults.{key}]")
    return {key: tables[key] for key in DEFAULT_TABLES if isinstance(tables.get(key), dict)}


def _known_keys(source: SourceFile, data: dict[str, Any], root: SourceFile, report: Report) -> None:
    known = (*keys_of(Config), "defaults")
    for key in data:
        if key not in known:
            meant = suggestion(key, known) or suggestion(key, (), sections_with_key(key, Config))
            report(Origin(source, (key,)), f"is not a section{meant}")
        elif source is not root and key not in _SHARED:
            report(Origin(source, (key,)), f"belongs in the main file, {root.name}; remove it from this file")


_ONE = {"upstreams": "upstream", "auth": "kind of credential", "limits": "limit"}
"""What a table of a section with named tables stands for."""


def _add_named(
    merged: MergedTree, source: SourceFile, data: dict[str, Any], report: Report, section: str, defaults: dict[str, Any]
) -> None:
    """Add the tables ``[section.NAME]`` of a file. A name may be defined in one file only."""
    tables = data.get(section, {})
    if not isinstance(tables, dict):
        report(Origin(source, (section,)), f"needs a table for each {_ONE[section]}: [{section}.NAME]")
        return
    known = merged.data[section]
    for name, table in tables.items():
        origin = Origin(source, (section, name))
        if name in known:
            report(origin, f"is already defined at {merged.origin((section, name))}")
            continue
        known[name] = merged.place((section, name), table, origin, defaults, section.removesuffix("s"))


def _add_routes(merged: MergedTree, source: SourceFile, data: dict[str, Any], report: Report) -> None:
    tables = data.get("routes", [])
    if not isinstance(tables, list):
        report(Origin(source, ("routes",)), "needs a list of tables: write [[routes]], with two brackets")
        return
    all_routes = merged.data["routes"]
    for index, table in enumerate(tables):
        path, origin = ("routes", len(all_routes)), Origin(source, ("routes", index))
        all_routes.append(merged.place(path, table, origin, _inherited(merged, table), "route"))


def _inherited(merged: MergedTree, route: object) -> dict[str, Any]:
    """Return the defaults of a route. One that says ``auth = "none"`` itself inherits no key about credentials."""
    default: dict[str, Any] = merged.defaults.get("route", {})
    if not isinstance(route, dict) or route.get("auth") not in ("none", ["none"]):
        return default
    return {key: value for key, value in default.items() if key not in _OF_CREDENTIALS}
