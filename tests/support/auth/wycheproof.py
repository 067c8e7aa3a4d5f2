"""The JOSE vectors of Project Wycheproof (C2SP/wycheproof, testvectors_v1, Apache-2.0).

They are not part of this repository: they are read from ``../shared/data/wycheproof`` beside it, or from the directory
that the environment variable UMBEL_WYCHEPROOF names. Without them their tests are skipped, and the summary says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[3]
PLACE = Path(os.environ.get("UMBEL_WYCHEPROOF") or ROOT.parent / "shared" / "data" / "wycheproof")
MISSING = "" if PLACE.is_dir() else "the vectors of Project Wycheproof are missing: set UMBEL_WYCHEPROOF"


class Vector(NamedTuple):
    """A token, the keys that a verifier of it has, and what the verifier must say."""

    number: int
    comment: str
    keys: list[dict[str, Any]]
    """The public keys; the secret ones if the algorithm is symmetric."""
    token: Any
    valid: bool


def vectors(kind: str) -> Iterator[Vector]:
    """The vectors of a file about signatures, such as ``json_web_key``; those about encryption are left out."""
    content = json.loads((PLACE / f"{kind}_test.json").read_text(encoding="utf-8"))
    for group in content["testGroups"]:
        keys = group.get("public") or group["private"]
        for test in group["tests"]:
            if "jws" in test:
                valid = test["result"] == "valid"
                yield Vector(test["tcId"], test["comment"], keys.get("keys", [keys]), test["jws"], valid)
