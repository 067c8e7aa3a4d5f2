"""Media types (RFC 9110 section 8.3)."""

from __future__ import annotations


def is_json(content_type: str) -> bool:
    """Whether a Content-Type names JSON: application/json, text/json, or a subtype that ends in ``+json``.

    Source: WHATWG MIME Sniffing, section 4.6, "JSON MIME type".
    """
    kind, slash, subtype = content_type.partition(";")[0].strip(" \t").lower().partition("/")
    if subtype == "json":
        return kind in ("application", "text")
    return bool(kind and slash) and subtype.endswith("+json")
