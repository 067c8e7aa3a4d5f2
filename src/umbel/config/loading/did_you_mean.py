"""What somebody who wrote an unknown key probably meant.

Knows the schema's keys; reads no value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..schema.section import Section
from ..schema.section_tree import all_sections, keys_of

_SIMILAR = 0.7
_PLACES_MAX = 3


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that is most like ``word``, case and hyphens aside; None where none is like it."""
    by_plain = {_plain(key): key for key in known}
    found = difflib.get_close_matches(_plain(word), by_plain, n=1, cutoff=_SIMILAR)
    return by_plain[found[0]] if found else None


def homes(key: str, section: type[Section]) -> list[str]:
    """The headers of the other sections that have exactly this key, a few at most."""
    return [
        place.header or "the top of the file"
        for place in all_sections()
        if place.model is not section and key in keys_of(place.model)
    ][:_PLACES_MAX]


def hint(key: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """The half sentence that an unknown key's message ends with, or nothing."""
    if meant := nearest(key, known):
        return f'; did you mean "{meant}"?'
    places = " or ".join(elsewhere)
    return f"; it belongs in {places}" if places else ""


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")
