"""The tree of the schema's sections: all sections, the section at a key path, and the spelling of headers and paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from .section import Section
from .sections import Config, KeyPath

# TOML 1.0: a key that needs no quotes.
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Place(NamedTuple):
    """A section of the schema, with its header as a configuration file spells it."""

    header: str
    """The header, such as ``[upstreams.NAME]``; empty for the top of the file."""
    model: type[Section]
    variant: str = ""
    """The key that chooses this section among several with one header, such as ``kind = "jwt"``; else empty."""


@cache
def all_sections() -> tuple[Place, ...]:
    """Return every section of a configuration in the schema's order, the top of the file first."""
    return tuple(_walk(Config, (), listed=False))


def section_at(root: type[Section], path: KeyPath, data: Any = None) -> type[Section] | None:
    """Return the section at ``path`` below ``root``; None if the schema has no section there.

    Where the key ``kind`` chooses among sections, the result is the one that the tables of ``data`` have there, and the
    first one if they have none.
    """
    here: list[Any] = [root]
    for part in path:
        here = [inner for annotation in here for inner in _step(annotation, part)]
        data = _item(data, part)
        kind = data.get(KIND) if isinstance(data, dict) else None
        here = [annotation for annotation in here if isinstance(kind, str) and kind_of(annotation) == kind] or here
    return next((annotation for annotation in here if _is_section(annotation)), None)


KIND = "kind"
"""The key that chooses among the sections that may stand in one place."""


def kind_of(annotation: Any) -> str | None:
    """Return the value of ``kind`` that chooses a section; None: the section stands in its place alone."""
    field = annotation.model_fields.get(KIND) if _is_section(annotation) else None
    return get_args(field.annotation)[0] if field is not None and get_origin(field.annotation) is Literal else None


def header(path: KeyPath) -> str:
    """Return the header of the section at ``path`` as files write it: ``[[routes]]`` or ``[routes.calls.items]``."""
    name = ".".join(_key(part) for part in path if isinstance(part, str))
    return f"[[{name}]]" if path and isinstance(path[-1], int) else f"[{name}]"


def dotted(path: KeyPath) -> str:
    """Return the path of a key as messages write it: ``routes[2].calls.items.each``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_key(part)}" if text else _key(part)
    return text


def _key(part: str) -> str:
    return part if _BARE_KEY.fullmatch(part) else f'"{part}"'


def keys_of(section: type[Section]) -> dict[str, str]:
    """Return the keys of a section as files spell them, each with the name of its field."""
    return {field.alias or name: name for name, field in section.model_fields.items()}


def plain_types(annotation: Any) -> Iterator[Any]:
    """Yield the plain types of an annotation: those within Annotated, and all types of a union."""
    if get_origin(annotation) is Annotated:
        yield from plain_types(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from plain_types(member)
    else:
        yield annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _item(data: Any, part: str | int) -> Any:
    """Return the item of a table or list; None if it has no such item."""
    if isinstance(data, dict):
        return data.get(part)
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


def _step(annotation: Any, part: str | int) -> Iterator[Any]:
    if _is_section(annotation):
        name = keys_of(annotation).get(str(part))
        if name is not None:
            yield from plain_types(annotation.model_fields[name].annotation)
    elif get_origin(annotation) is dict and isinstance(part, str):
        yield from plain_types(get_args(annotation)[1])
    elif get_origin(annotation) is tuple and isinstance(part, int):
        yield from plain_types(get_args(annotation)[0])


def _walk(section: type[Section], path: tuple[str, ...], *, listed: bool) -> Iterator[Place]:
    name = ".".join(path)
    kind = kind_of(section)
    header = ("[[" + name + "]]" if listed else f"[{name}]") if path else ""
    yield Place(header, section, f'{KIND} = "{kind}"' if kind is not None else "")
    for key, field in keys_of(section).items():
        for annotation in plain_types(section.model_fields[field].annotation):
            if _is_section(annotation):
                yield from _walk(annotation, (*path, key), listed=False)
            elif get_origin(annotation) in (dict, tuple):
                inside = get_args(annotation)[1 if get_origin(annotation) is dict else 0]
                for member in filter(_is_section, plain_types(inside)):
                    named = get_origin(annotation) is dict
                    yield from _walk(member, (*path, key, "NAME") if named else (*path, key), listed=not named)
