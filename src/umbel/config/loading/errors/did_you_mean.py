"""Suggestions for an unknown key: the known key that it resembles, or the sections that have a key of that name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ...schema.section import Section
from ...schema.section_tree import all_sections, keys_of

_SIMILARITY_MIN = 0.7
_PLACES_MAX = 3


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that resembles ``word`` most; None if none is similar. Case is ignored."""
    by_normal_form = {_normalized(key): key for key in known}
    found = difflib.get_close_matches(_normalized(word), by_normal_form, n=1, cutoff=_SIMILARITY_MIN)
    return by_normal_form[found[0]] if found else None


def sections_with_key(key: str, section: type[Section]) -> list[str]:
    """Return the headers of at most three other sections that have exactly this key, those within ``section`` first."""
    places = all_sections()
    within = next((f"{place.header[:-1]}." for place in places if place.model is section and place.header), "[")
    found = [place.header for place in places if place.model is not section and key in keys_of(place.model)]
    found.sort(key=lambda header: not header.startswith(within))
    return [header or "the top of the file" for header in found[:_PLACES_MAX]]


def suggestion(key: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """Return the end of the message about an unknown key, such as ``; did you mean "deadline"?``; empty without one.

    Args:
        key: the unknown key.
        known: the keys of its section.
        elsewhere: the headers of other sections that have the key. They are used only if no known key resembles it.
    """
    if meant := nearest(key, known):
        return f'; did you mean "{meant}"?'
    places = " or ".join(elsewhere)
    return f"; it belongs in {places}" if places else ""


def _normalized(word: str) -> str:
    return word.lower().replace("-", "_")
