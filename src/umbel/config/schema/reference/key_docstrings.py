"""The docstrings of the keys of a section, read from the source of its class.

pydantic can read them itself (``use_attribute_docstrings``), but it does so while it builds each class: a tenth of a
second of every start, for texts that only the JSON Schema and the reference show.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

from ..section import Section


def key_docstrings(section: type[Section]) -> dict[str, str]:
    """Return the docstrings by name of the field, those of base classes included."""
    texts: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if issubclass(base, Section) and base is not Section:
            texts |= _own(base)
    return texts


def _own(section: type[Section]) -> dict[str, str]:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                texts[name] = inspect.cleandoc(docstring)
    return texts
