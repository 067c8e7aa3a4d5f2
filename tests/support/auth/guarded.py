"""Applications with ``[auth]`` for tests: sections with keys in files, tokens and API keys, and checks of refusals."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from tests.support.auth.tokens import jwk, jwks, private_key, sign
from tests.support.server.asgi import Answer

KEY, OTHER = private_key("ES256"), private_key("ES256", 1)
ISSUER = "https://id.example/"
PARTNER = "uk_partner"
APP = "https://app.example"


def key_files(directory: Path) -> Path:
    """Write the keys of the issuer, and the file of the partner's key, into a directory; return it."""
    (directory / "jwks.json").write_bytes(jwks(jwk(KEY, kid="1", alg="ES256")))
    digest = hashlib.sha256(PARTNER.encode()).hexdigest()
    (directory / "keys.toml").write_text(f'[[keys]]\nid = "acme"\nsha256 = "{digest}"\nscopes = ["orders:read"]\n')
    for file in directory.iterdir():
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return directory


def sections(files: Path, **users: Any) -> dict[str, Any]:
    issuer = {"iss": ISSUER, "keys": str(files / "jwks.json"), "audience": ["shop"]}
    return {
        "auth": {
            "users": {"kind": "jwt", "algorithms": ["ES256"], "issuers": [issuer], **users},
            "partners": {"kind": "api-key", "file": str(files / "keys.toml")},
        }
    }


def token(key: Any = KEY, **claims: Any) -> str:
    now = time.time()
    usual = {"iss": ISSUER, "aud": "shop", "sub": "ada", "exp": now + 300, "iat": now}
    return sign(key, "ES256", {**usual, **claims}, header={"kid": "1"})


def bearer(value: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {value}")


def check_refused(answer: Answer, status: int, problem: str) -> None:
    assert (answer.status, answer.json["type"]) == (status, f"urn:umbel:problem:{problem}"), answer
    assert answer["cache-control"] == "no-store"
    assert answer["content-type"] == "application/problem+json"
