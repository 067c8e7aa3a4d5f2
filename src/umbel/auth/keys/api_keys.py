"""API keys: verification against the file of a section ``[auth.NAME]`` with ``kind = "api-key"``.

Theory
------
**Timing.** One who measures how long a refusal takes must learn nothing about the stored digests. So a presented key
is hashed (SHA-256), and its digest is looked up by a MAC (keyed BLAKE2b) under a key that each process draws at
random: which entries of the table are compared depends on bits that nobody outside can predict. A hit is then confirmed
by a comparison in constant time, and a miss makes the same comparison with a digest of no key. The digests in the file
need no salt and no slow hash function, because a key is random and long; ``umbel auth new-key`` makes keys of 256 bits.

**The file is read again** when it changes. ``run`` looks at the device, inode, size and modification time of the file
every second, following symbolic links, so it notices a file that is replaced by rename, a symbolic link that is made to
lead elsewhere (as in a Kubernetes secret), and a file that is rewritten in place. A file that has changed is read once
it has stayed the same from one look to the next, and what was read counts only if the file did not change meanwhile:
so a file that is half written is not used. A new table replaces the old one as a whole. While the file is missing or
has a mistake, the keys of the last good one stay in force. A process that starts with such a file has none: then each
key is refused as unavailable, until the file can be used (``config/loading/file_rules.py`` says which process may).

Three things cannot be noticed: a file that is rewritten in place with the same size and the same modification time; a
writer that pauses for more than a second where the file has no mistake; and a change that the file system does not
show, as some network file systems delay it. Replacing the file by rename avoids the first two.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path

import msgspec
import trio
from trio_util import periodic

from ...config.loading.file_reader import FileStamp, why
from ...config.schema.access.auth import ApiKeyAuth
from ...config.schema.sections import KeyPath
from ...core.console import say
from ...core.errors import ConfigError, ConfigProblem
from ...core.events import NULL, Level, LogMessage, Recorder
from ...core.identity import Identity
from ..authenticator import Place, Presented, Refusal
from .key_file import ApiKey, KeyFile, KeyFileError, read_key_file

KEY_MAX = 1024
"""The most characters of a presented key."""
LOOK_S = 1.0
"""Seconds between two looks at the file."""
_MAC_SIZE = 16
_NO_DIGEST = bytes(hashlib.sha256().digest_size)
"""Compared in place of the digest of an unknown key. Nobody knows a text with this SHA-256."""

_NOT_ONE = Refusal("The request must have one API key.", "invalid_request")
_TOO_LONG = Refusal("The API key is too long.", "invalid_request")
_UNKNOWN = Refusal("The API key is not valid.", outcome="unknown-key")
_NO_KEYS = Refusal("The API keys are not available.", outcome="no-keys", unavailable=True)
_EXPIRED = Refusal("The API key has expired.", outcome="expired")


class KeyStatistics(msgspec.Struct, frozen=True):
    """A snapshot of the keys of one section."""

    name: str
    file: str
    keys: int
    """The number of keys in force, expired ones included."""
    expired: int
    read_age: float | None
    """Seconds since the keys in force were read; None: there are none, since the file could never be used."""
    generation: int
    """How many times keys were read and put into force; 0: there are none yet."""
    last_error: str | None
    """Why the present file is not in force; None: it is."""


class _Table:
    """The keys in force, by their MAC."""

    __slots__ = ("by_mac", "stamp")

    def __init__(self, file: KeyFile, mac: Callable[[bytes], bytes]) -> None:
        self.by_mac: Mapping[bytes, ApiKey] = {mac(key.digest): key for key in file.keys}
        self.stamp = file.stamp


class ApiKeyAuthenticator:
    """Authenticator for API keys. Reads the file when it is made, which blocks.

    Args:
        name: the name of the section.
        section: the section; its file is an absolute path.
        recorder: gets ``auth.key_file_read`` when new keys are in force, and ``auth.key_file_failed`` when the file can
            no longer be used, or for another reason than before.
        wall: the Unix time, which keys are compared with that expire.
        required: whether a file that cannot be used is an error. Otherwise it is said on stderr, and there are no keys
            until it can be used.

    Raises:
        ConfigError: the file cannot be used, and is required. It carries all mistakes.
    """

    kind = "api-key"

    def __init__(
        self,
        name: str,
        section: ApiKeyAuth,
        *,
        recorder: Recorder = NULL,
        wall: Callable[[], float] = time.time,
        required: bool = True,
    ) -> None:
        self.name = name
        self._header = section.header
        self._file = section.file
        self._recorder = recorder
        self._wall = wall
        self._places = (Place("header", section.header),)
        self._mac_key = os.urandom(32)
        self._table: _Table | None = None
        """The keys in force; None: the file could never be used."""
        self._read_at = wall()
        self._generation = 0
        self._last_error: str | None = None
        self._seen: FileStamp | None = None
        """The state of the file at the last look; None: it could not be looked at."""
        self._tried: FileStamp | None = None
        """The state of the file at the last reading; None: the file must be read again in any case."""
        try:
            self._table = _Table(read_key_file(section.file, settled=True), self._mac)
        except KeyFileError as error:
            if required:
                problems = [ConfigProblem(section.file, each.line, each.key, each.reason) for each in error.mistakes]
                raise ConfigError(problems) from None
            self._fail(str(error))
            say(f"error: {section.file} of [auth.{name}] cannot be used; its keys get 503 until it can: {error}")
        else:
            self._generation = 1
            self._seen = self._tried = self._table.stamp

    def authenticate(self, presented: Presented) -> Identity | Refusal | None:
        """Verify the API key of a request; see ``Authenticator.authenticate``."""
        key = presented.fields.get(self._header)
        if not key:
            return None
        if len(key) > KEY_MAX:
            return _TOO_LONG
        if "," in key:  # The values of two fields are joined by a comma, so no key has one.
            return _NOT_ONE
        if self._table is None:
            return _NO_KEYS
        digest = hashlib.sha256(key.encode("latin-1", "replace")).digest()
        found = self._table.by_mac.get(self._mac(digest))
        same = hmac.compare_digest(digest, _NO_DIGEST if found is None else found.digest)
        if found is None or not same:
            return _UNKNOWN
        if found.expires is not None and self._wall() >= found.expires:
            return _EXPIRED
        return Identity(self.kind, self.name, found.id, found.scopes)

    async def renew_keys(self, presented: Presented) -> bool:
        """Return False: there is no provider to fetch keys from."""
        await trio.lowlevel.checkpoint()
        return False

    def used(self, presented: Presented) -> Place | None:
        """Return the header field if the request has it."""
        return self._places[0] if presented.fields.get(self._header) else None

    def challenge(self, refusal: Refusal | None) -> str:
        """Return the challenge, which is the same with and without a refusal.

        RFC 9110 demands a challenge with each 401. No scheme for API keys is registered, so a client ignores it.
        """
        return f'ApiKey realm="{self.name}"'

    @property
    def places(self) -> tuple[Place, ...]:
        """The header field of the key."""
        return self._places

    def statistics(self) -> KeyStatistics:
        """Return a snapshot."""
        now = self._wall()
        keys = () if self._table is None else self._table.by_mac.values()
        expired = sum(1 for key in keys if key.expires is not None and now >= key.expires)
        age = None if self._table is None else max(0.0, now - self._read_at)
        return KeyStatistics(self.name, self._file, len(keys), expired, age, self._generation, self._last_error)

    async def run(self) -> None:
        """Look at the file every ``LOOK_S`` seconds, until cancelled. A look raises nothing."""
        # ``aclosing``, because trio warns of an async generator that is left to the garbage collector.
        async with aclosing(periodic(LOOK_S)) as turns:
            async for _ in turns:
                await self.look()

    async def look(self) -> None:
        """Look at the file once, and read it if it has changed and has stayed the same since the last look.

        A cancel does not wait for the file system, which may be a remote one that hangs.
        """
        in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)
        try:
            stamp = await in_thread(_stamp, self._file)
        except (OSError, ValueError) as error:
            self._seen = self._tried = None
            self._fail(f"cannot be read: {why(error)}")
            return
        unchanged, self._seen = stamp == self._seen, stamp
        if stamp == self._tried or not unchanged:
            return
        try:
            file = await in_thread(read_key_file, self._file)
        except KeyFileError as error:
            self._tried = stamp
            if error.stamp is not None and error.stamp != stamp:
                self._seen = self._tried = None  # It changed while it was read.
                return
            self._fail(str(error))
            return
        self._tried = stamp
        if file.stamp == stamp:
            self._take(file)
        else:
            self._seen = self._tried = None

    def _take(self, file: KeyFile) -> None:
        self._table = _Table(file, self._mac)
        self._read_at = self._wall()
        self._generation += 1
        self._last_error = None
        message = f"the API keys of [auth.{self.name}] were read again: {len(file.keys)} keys are in force"
        self._record("info", "auth.key_file_read", message, {"keys": len(file.keys), "generation": self._generation})

    def _fail(self, reason: str) -> None:
        if reason == self._last_error:
            return
        self._last_error = reason
        meanwhile = "its keys get 503 until it can" if self._table is None else "the last keys stay in force"
        message = f"the file of [auth.{self.name}] cannot be used, and {meanwhile}: {reason}"
        self._record("error", "auth.key_file_failed", message, {"reason": reason})

    def _record(self, level: Level, event: str, message: str, fields: Mapping[str, object]) -> None:
        known = {"auth": self.name, "file": self._file, **fields}
        self._recorder.record(LogMessage(level, event, message, fields=known))

    def _mac(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._mac_key, digest_size=_MAC_SIZE).digest()


def mistake_in_key(key: bytes) -> str:
    """Return why no request can present ``key``; empty if a request can."""
    if not 0 < len(key) <= KEY_MAX:
        return f"a key has 1 to {KEY_MAX} bytes"
    if key.strip(b" \t") != key or not all(byte >= 0x20 and byte != 0x7F and byte != ord(",") for byte in key):
        return "a key in a header field has no comma, no control characters, and no spaces around it"
    return ""


def problems(section: ApiKeyAuth) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path of a key of the section, and the reason, for each mistake in its file. Blocks."""
    try:
        read_key_file(section.file, settled=True)
    except KeyFileError as error:
        for each in error.mistakes:
            place = section.file if each.line is None else f"{section.file}:{each.line}"
            yield ("file",), ": ".join(part for part in (place, each.key, each.reason) if part)


def _stamp(file: str) -> FileStamp:
    path = Path(file)
    return FileStamp.of(path, path.stat())
