"""The rule for files of keys at the start of this process: whether one that cannot be used is a mistake.

It is one at the start of a program, and in a worker that is to replace a living one, which has keys. A worker that
replaces a dead one serves without these keys instead: else a typo and a crash together would end all other routes too.
"""

from __future__ import annotations

import os

_VARIABLE = "UMBEL_SERVES_WITHOUT_KEY_FILES"


def serve_without_key_files() -> None:
    """Let this process start with files of keys that cannot be used."""
    # Programs that this process starts inherit the variable, but not the pid.
    os.environ[_VARIABLE] = str(os.getpid())


def needs_key_files() -> bool:
    """Whether a file of keys that cannot be used is a mistake for this process."""
    return os.environ.get(_VARIABLE) != str(os.getpid())
