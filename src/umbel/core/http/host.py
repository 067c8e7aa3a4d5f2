"""Hosts, as in the field Host: the check of their form, and their parts."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv6Address

from ..networks import parse_address

HOST_PATTERN = r"((?:[A-Za-z0-9_~-]+\.)*[A-Za-z0-9_~-]+\.?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
"""A name without empty labels, or an address in brackets; a port may follow. Groups: the name or address, the port."""
PORT_MAX = 65535
_HOST = re.compile(HOST_PATTERN, re.ASCII)
_ADDRESS_LENGTH_MAX = 64
_LENGTH_MAX = 255 + len(":65535")


def is_host(text: str) -> bool:
    """Whether ``text`` is a well-formed host, with or without a port."""
    if len(text) > _LENGTH_MAX or (match := _HOST.fullmatch(text)) is None:
        return False
    name, port = match[1], match[2]
    return int(port or 0) <= PORT_MAX and (name[0] != "[" or (":" in name and parse_address(name) is not None))


def one_form(host: str) -> str:
    """The form of a valid host that is equal for all of its spellings; see ``split_host``."""
    name, port = split_host(host.lower())
    return f"{name}:{port}" if port else name


def split_host(host: str) -> tuple[str, str]:
    """Split a valid ``name``, ``name:port`` or ``[address]:port`` into name and port; the port may be empty.

    An address keeps its brackets and gets its shortest form. One dot at the end of a name, which makes it absolute, is
    removed, and so are zeros at the beginning of a port. A malformed address is unchanged.
    """
    name, bracket, rest = host.rpartition("]")
    if bracket:
        if len(name) <= _ADDRESS_LENGTH_MAX:
            with suppress(ValueError):
                name = f"[{IPv6Address(name[1:]).compressed}"
        return f"{name}]", rest.removeprefix(":").lstrip("0")
    name, _, port = host.partition(":")
    return name.removesuffix("."), port.lstrip("0")
