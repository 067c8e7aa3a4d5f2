"""X-Forwarded-Client-Cert: the names of the client's certificate, as a proxy reports them (the format is Envoy's).

The value is a list of elements, one for each proxy, the last one by the proxy next to the gateway. An element has pairs
``Key=value`` separated by semicolons; keys are case-insensitive. A value that holds a comma, a semicolon or a quote is
a quoted text with backslash escapes, such as ``Subject="CN=a\\"b"``; Envoy writes URI and DNS without quotes. Both may
occur several times, once for each name of the certificate.

https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert

A proxy may append its element to those that the client has sent. Then the client chooses the beginning of the value.
So the whole value must be well-formed: a quoted text that the client leaves open would otherwise take in, or give
another meaning to, what the proxy has appended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

SIZE_MAX = 64 * 1024
"""The most characters of the value."""
ELEMENTS_MAX = 64
"""The most elements."""

# A blank or two may stand around the elements of a list. An escape is a backslash and any character.
_PAIR = re.compile(r'[ \t]{0,2}([A-Za-z]{1,16}+)=(?:"((?:[^"\\]|\\.)*+)"[ \t]{0,2}|([^",;\\]*+))([,;]|\Z)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class CertificateNames(NamedTuple):
    """The subject alternative names of a certificate, as far as they are URIs and DNS names."""

    uris: tuple[str, ...]
    dns: tuple[str, ...]


def names_of_last_element(value: str) -> CertificateNames | None:
    """Return the names in the last element of the value; None: the value is malformed or too long. Takes linear time.

    Args:
        value: the value of the field; the values of several fields are joined by commas.
    """
    if len(value) > SIZE_MAX:
        return None
    found: Mapping[str, list[str]] = {"uri": [], "dns": []}
    elements, at = 1, 0
    while (pair := _PAIR.match(value, at)) is not None:
        key, quoted, plain, end = pair.groups()
        text = plain.strip(" \t") if quoted is None else _ESCAPE.sub(r"\1", quoted)
        if text and (names := found.get(key.lower())) is not None:
            names.append(text)
        at = pair.end()
        if not end:
            return CertificateNames(tuple(found["uri"]), tuple(found["dns"]))
        if end == ",":
            elements += 1
            if elements > ELEMENTS_MAX:
                return None
            for names in found.values():
                names.clear()
    return None
