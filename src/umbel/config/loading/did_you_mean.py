"""Suggestions for a misspelt key: the known key that it resembles, or the sections that have a key of that name.

Reads the names of the schema's keys, never a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..schema.section import Section
from ..schema.section_tree import all_sections, keys_of

_SIMILARITY_MIN = 0.7
_PLACES_MAX = 3


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that resembles ``word`` most, case and hyphens ignored; None if none is similar."""
    by_normal_form = {_normalized(key): key for key in known}
    found = difflib.get_close_matches(_normalized(word), by_normal_form, n=1, cutoff=_SIMILARITY_MIN)
    return by_normal_form[found[0]] if found else None


def sections_with_key(key: str, section: type[Section]) -> list[str]:
    """Return the headers of the sections other than ``section`` that have exactly this key, at most three."""
    return [
        place.header or "the top of the file"
        for place in all_sections()
        if place.model is not section and key in keys_of(place.model)
    ][:_PLACES_MAX]


def suggestion(key: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """Return the end of an unknown key's message, such as ``; did you mean "deadline"?``; empty if nothing fits.

    Args:
        key: the unknown key.
        known: the keys of its own section.
        elsewhere: the headers of other sections that have the key; named only where no known key resembles it.
    """
    if meant := nearest(key, known):
        return f'; did you mean "{meant}"?'
    places = " or ".join(elsewhere)
    return f"; it belongs in {places}" if places else ""


def _normalized(word: str) -> str:
    return word.lower().replace("-", "_")
