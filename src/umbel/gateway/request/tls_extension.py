"""The client's certificate in an ASGI scope (extension ``tls`` of the ASGI specification)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any


def certificate_in(scope: Mapping[str, Any]) -> bytes | None:
    """The client's certificate (DER) that the TLS handshake has verified.

    None without one, if the server could not verify it, or if the server does not support the extension.
    """
    tls = (scope.get("extensions") or {}).get("tls") or {}
    chain = tls.get("client_cert_chain")
    return ssl.PEM_cert_to_DER_cert(next(iter(chain))) if chain and not tls.get("client_cert_error") else None
