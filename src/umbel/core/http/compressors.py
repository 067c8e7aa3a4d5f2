"""Compressors of content codings: gzip by zlib, and zstd and br by optional libraries.

zstd is ``compression.zstd`` of Python 3.14, or its backport for older versions, which has the same interface. Both can
bound the output of one step of decompression (``decompression.py``), and a compressor can be used again for the next
body, which costs less than a new one.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Literal, get_args

Coding = Literal["zstd", "br", "gzip"]
CODINGS: tuple[Coding, ...] = get_args(Coding)
Compressor = Callable[[bytes], bytes]

EXTRAS: Mapping[str, str] = {"zstd": "umbel[zstd]", "br": "umbel[br]"}
"""The extra of Umbel that installs the library of a coding."""

LEVELS: Mapping[Coding, int] = {"zstd": 3, "br": 4, "gzip": 4}
"""The compression level of each coding. The results have about the same size. gzip at its usual level 6 takes twice
the time for 64 KiB, and saves a tenth of the bytes (``make bench-compress``)."""
_GZIP_FORMAT = 16 + zlib.MAX_WBITS


def library(coding: str) -> Any:
    """The module with the functions of the coding zstd or br. The types of its interface are not checked.

    Raises:
        ImportError: the library is not installed.
    """
    if coding == "br":
        return import_module("brotli")
    return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


@cache
def is_available(coding: str) -> bool:
    """Whether the library of a coding can be imported; True for a coding of the standard library."""
    if coding not in EXTRAS:
        return True
    try:
        library(coding)
    except ImportError:
        return False
    return True


def how_to_install(coding: str) -> str:
    """The command that installs the library of a coding in ``EXTRAS``."""
    return f"pip install '{EXTRAS[coding]}'"


def make_compressor(coding: Coding) -> Compressor:
    """Make a function that compresses one body after the other. Only one thread may use it.

    Raises:
        ImportError: the library of the coding is not installed.
    """
    if coding == "gzip":
        return lambda body: zlib.compress(body, LEVELS["gzip"], _GZIP_FORMAT)
    if coding == "br":
        brotli = library("br")
        return lambda body: brotli.compress(body, quality=LEVELS["br"])
    compressor = library("zstd").ZstdCompressor(LEVELS["zstd"])
    whole_frame = compressor.FLUSH_FRAME
    # Each call ends its frame, so the bytes of one body never depend on another.
    return lambda body: compressor.compress(body, whole_frame)
