"""Search of outputs for secrets in any form in which a program may show them, whole or in part."""

from __future__ import annotations

from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from urllib.parse import quote

PIECE = 16
"""The length of the parts of a secret that are searched for: 96 bits of base64."""


def leaks(secrets: Mapping[str, str], outputs: Mapping[str, bytes]) -> list[str]:
    """Where outputs have a part of a secret: the name of the output, that of the secret, and what is around.

    A part is found if it has at least one and a half times PIECE characters, in upper or lower case, as it is, percent
    encoded, in hexadecimal or in base64; likewise of the secret's SHA-256.
    """
    pieces = {piece: name for name, secret in secrets.items() for piece in _pieces(secret)}
    found: dict[tuple[str, str], str] = {}
    for place, output in outputs.items():
        text = output.lower()
        for start in range(len(text) - PIECE + 1):
            name = pieces.get(text[start : start + PIECE])
            if name is not None and (place, name) not in found:
                found[place, name] = f"{place} has {name}: {output[max(0, start - 200) : start + 50]!r}"
    return list(found.values())


def _pieces(secret: str) -> Iterator[bytes]:
    for form in _forms(secret):
        assert len(form) >= PIECE
        for start in range(0, len(form) - PIECE + 1, PIECE // 2):
            yield form[start : start + PIECE].lower().encode()


def _forms(secret: str) -> Iterator[str]:
    # The header of a token is no secret: all tokens of a key have the same.
    parts = secret.split(".")[1:] if secret.startswith("eyJ") else [secret]
    for part in parts:
        yield part
        yield quote(part, safe="")
        yield part.encode().hex()
    content = secret.encode()
    digest = sha256(content)
    yield digest.hexdigest()
    for encode in (b64encode, urlsafe_b64encode):
        yield encode(digest.digest()).decode()
        for shift in range(3):
            # Within a longer text a secret begins at any of three bytes, and what is around it changes its ends.
            yield encode(b" " * shift + content).decode()[4:-4]
