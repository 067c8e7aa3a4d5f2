"""TLS contexts for upstreams. Verification is always on, and no environment variable changes what is trusted."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import certifi

from ...core.regular_file import open_regular


def client_context(*, ca: str | None = None, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name: TLS 1.2 or later, ALPN ``http/1.1``.

    Unlike ``ssl.create_default_context`` it ignores SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE. It never asks for a
    pass phrase.

    Args:
        ca: PEM file of the certificates to trust; None: the system's trust store, or certifi's without one.
        cert: PEM file of the client certificate; None: none is sent.
        key: PEM file of the certificate's private key; None: it is in ``cert``.

    Raises:
        ValueError: a file cannot be read or used; the message is one sentence that begins with the file's parameter.
    """
    # PROTOCOL_TLS_CLIENT: CERT_REQUIRED and check_hostname are on.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca is not None:
        _check_readable("ca", ca)
        try:
            context.load_verify_locations(cafile=ca)
        except OSError as error:
            raise ValueError(f"ca: {ca} {_why(error, 'certificates in PEM form')}") from error
    else:
        _trust_system(context)
    if cert is not None:
        _check_readable("cert", cert)
        if key is not None:
            _check_readable("key", key)
        try:
            # Without a password function OpenSSL would ask for a pass phrase on the terminal, and block.
            context.load_cert_chain(cert, key, password=lambda: b"")
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None)
            if reason == "KEY_VALUES_MISMATCH":
                raise ValueError(f"key: {key} does not belong to the certificate in {cert}") from error
            wanted = "a certificate and an unencrypted key in PEM form"
            raise ValueError(f"cert: {cert} and its key are not {wanted}") from error
    return context


def _trust_system(context: ssl.SSLContext) -> None:
    """Trust the certificates at the paths that are compiled into OpenSSL; if there are none, those of certifi."""
    paths = ssl.get_default_verify_paths()  # Its ``openssl_*`` members do not depend on the environment.
    cafile, capath = Path(paths.openssl_cafile), Path(paths.openssl_capath)
    found = False
    if cafile.is_file():
        context.load_verify_locations(cafile=str(cafile))
        found = True
    if capath.is_dir() and any(capath.iterdir()):
        context.load_verify_locations(capath=str(capath))
        found = True
    if not found:
        context.load_verify_locations(cafile=certifi.where())


def _check_readable(what: str, path: str) -> None:
    try:
        os.close(open_regular(path))
    except OSError as error:
        raise ValueError(f"{what}: {path} {_why(error, 'PEM')}") from error


def _why(error: OSError, form: str) -> str:
    """The end of the sentence about a file that could not be used."""
    if isinstance(error, ssl.SSLError):
        return f"does not hold {form}"
    return f"cannot be read: {(error.strerror or type(error).__name__).lower()}"
