"""What ``umbel.testing`` says where a library of its extra is missing."""

from __future__ import annotations

import importlib
import sys

import pytest


def test_a_missing_h11_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h11", None)
    monkeypatch.delitem(sys.modules, "umbel.testing.upstream_connection", raising=False)
    with pytest.raises(ImportError, match=r"needs the library h11; run pip install 'umbel\[testing\]'"):
        importlib.import_module("umbel.testing.upstream_connection")
