"""Parts of a host, as in the field Host."""

from __future__ import annotations


def split_host(host: str) -> tuple[str, str]:
    """Split a valid ``name``, ``name:port`` or ``[address]:port`` into name and port; the port may be empty.

    An address keeps its brackets. One dot at the end of a name, which makes it absolute, is removed.
    """
    name, bracket, rest = host.rpartition("]")
    if bracket:
        return f"{name}]", rest.removeprefix(":")
    name, _, port = host.partition(":")
    return name.removesuffix("."), port
