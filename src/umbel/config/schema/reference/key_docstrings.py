"""The docstrings of the keys of a section, read from the source of its class.

pydantic can read them itself (``use_attribute_docstrings``), but it does so while it builds each class: a tenth of a
second of every start, for texts that only the JSON Schema and the reference show.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

from ..section import Section


def key_docstrings(section: type[Section]) -> dict[str, str]:
    """Return the docstrings by name of the field, those of base classes included.

    The classes must stand at the top level of their modules.
    """
    texts: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if issubclass(base, Section) and base is not Section:
            texts |= _docstrings_of_module(base.__module__)[base.__qualname__]
    return texts


@cache
def _docstrings_of_module(name: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of the fields of each class of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[name]))
    return {node.name: _docstrings(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _docstrings(definition: ast.ClassDef) -> dict[str, str]:
    texts = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                texts[name] = inspect.cleandoc(docstring)
    return texts
