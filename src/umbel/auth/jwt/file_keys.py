"""Keys of an issuer from a file, which is read once."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from ...config.loading.file_reader import why
from ...core.regular_file import open_regular
from .key_set import SIZE_MAX, BadKeySetError, KeySet, read_key_set
from .key_statistics import KeyStatistics


@dataclass(frozen=True, slots=True)
class FileKeys:
    """Keys that were read from a file. A changed file is read when the configuration is loaded again."""

    issuer: str
    path: str
    key_set: KeySet

    @property
    def renewable(self) -> bool:
        """Whether the keys can be fetched again."""
        return False

    def statistics(self) -> KeyStatistics:
        """A snapshot."""
        return KeyStatistics(
            self.issuer, self.path, len(self.key_set.keys), self.key_set.left_out, 1, None, 0, 0, "", "ok"
        )


def read_file(path: str, algorithms: Collection[str]) -> KeySet:
    """Read the keys in a file: a JSON Web Key Set, or public keys and certificates in PEM. Blocks on the file.

    Raises:
        BadKeySetError: the file cannot be read, or has no usable key. The message is a part of a sentence.
        ImportError: the library is not installed.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read(SIZE_MAX + 1)
    except (OSError, ValueError) as error:
        raise BadKeySetError(f"cannot be read: {why(error)}") from None
    return read_key_set(content, algorithms, remote=False)
