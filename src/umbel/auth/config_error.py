"""Mistake of a section ``[auth.NAME]`` that only shows when its authenticator is made."""

from __future__ import annotations

from ..config.schema.sections import KeyPath


class AuthConfigError(ValueError):
    """An authenticator cannot be made from the configuration.

    Args:
        key: path of the key at fault, within the table ``[auth.NAME]``.
        reason: one sentence, without content of the file at fault.
    """

    def __init__(self, key: KeyPath, reason: str) -> None:
        super().__init__(f"{'.'.join(map(str, key))}: {reason}")
        self.key = key
        self.reason = reason
