"""Line numbers of the keys of a TOML text, found in tree-sitter's syntax tree, since ``tomllib`` has none.

The first ``LineNumbers`` imports tree-sitter. ``tomllib`` must have accepted the text.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

from ...schema.sections import KeyPath

if TYPE_CHECKING:
    from tree_sitter import Node


class LineNumbers:
    """The line of each key of one text, counted from 1."""

    def __init__(self, text: str) -> None:
        self._lines: dict[KeyPath, int] = {}
        self._lengths: dict[KeyPath, int] = {}
        for node in _parse(text).named_children:
            if node.has_error:
                continue  # This grammar lacks a form of TOML; its keys get the line of their ancestor.
            if node.type == "pair":
                self._pair(node, ())
            elif node.type in ("table", "table_array_element"):
                self._table(node)

    def line(self, path: KeyPath) -> int | None:
        """Return the line of the key at ``path``, or of its nearest ancestor in the text; None if there is none."""
        for end in range(len(path), 0, -1):
            if (line := self._lines.get(path[:end])) is not None:
                return line
        return None

    def _table(self, node: Node) -> None:
        children = node.named_children
        path = self._enter((), children[0])
        if node.type == "table":
            self._lines[path] = _line(node)  # The line of the header has precedence over that of an earlier sub-table.
        else:
            index = self._lengths[path] = self._lengths.get(path, -1) + 1
            path = (*path, index)
            self._lines[path] = _line(node)
        for child in children:
            if child.type == "pair":
                self._pair(child, path)

    def _pair(self, node: Node, path: KeyPath) -> None:
        key, value = node.named_children[0], node.named_children[-1]
        self._value(value, self._enter(path, key))

    def _value(self, node: Node, path: KeyPath) -> None:
        if node.type == "inline_table":
            for child in node.named_children:
                if child.type == "pair":
                    self._pair(child, path)
        elif node.type == "array":
            items = (child for child in node.named_children if child.type != "comment")
            for index, item in enumerate(items):
                self._lines[*path, index] = _line(item)
                self._value(item, (*path, index))

    def _enter(self, path: KeyPath, key: Node) -> KeyPath:
        """Return the path of a key below ``path``, and note the line of each part.

        A part that names a list of tables means the last table of the list so far (TOML 1.0).
        """
        for part in _parts(key):
            if path in self._lengths:
                path = (*path, self._lengths[path])
            path = (*path, part)
            self._lines.setdefault(path, _line(key))
        return path


def _line(node: Node) -> int:
    return node.start_point.row + 1


def _parse(text: str) -> Node:
    import tree_sitter
    import tree_sitter_toml

    language = tree_sitter.Language(tree_sitter_toml.language())
    return tree_sitter.Parser(language).parse(text.encode()).root_node


def _parts(key: Node) -> list[str]:
    text = (key.text or b"").decode()
    if key.type == "bare_key":
        return [text]
    parts: list[str] = []
    here = tomllib.loads(f"{text} = 0")
    while isinstance(here, dict):
        ((part, here),) = here.items()
        parts.append(part)
    return parts
