"""The file of API keys: TOML with a table ``[[keys]]`` for each key. It holds the SHA-256 of the key and not the key.

```toml
[[keys]]
id = "acme"                # who has the key: the subject of the identity; two keys may have one id, for a rotation
sha256 = "9f86d081…"       # 64 hexadecimal digits
scopes = ["orders:read"]   # optional
expires = 2027-01-31       # optional: a date (its beginning, 00:00 UTC) or a time; without an offset it is UTC
```

A message about a mistake quotes nothing of the file, since people put a key where its digest or its name belongs.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ...config.loading.errors.did_you_mean import suggestion
from ...config.loading.file_reader import FileStamp, SourceFile, UnreadableError, parsed, read, read_settled
from ...config.schema.section_tree import dotted
from ...config.schema.sections import KeyPath

SIZE_MAX = 10**6
"""The most bytes of the file: some 10,000 keys, which are parsed in about a third of a second."""
ID_MAX = 64
"""The most characters of an id."""
MISTAKES_MAX = 100
"""The most mistakes of one file that are reported."""

_MEMBERS = ("id", "sha256", "scopes", "expires")
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_SYNTAX = re.compile(r"is not TOML: .*?(, at column \d+)?", re.DOTALL)


class ApiKey(msgspec.Struct, frozen=True):
    """One key of the file."""

    id: str
    digest: bytes
    """The SHA-256 of the key."""
    scopes: tuple[str, ...] = ()
    """The scopes that the key grants, each once, in the order of the file."""
    expires: float | None = None
    """Unix time from which on the key is refused; None: it does not expire."""


class KeyFile(NamedTuple):
    """The content of a file, and the state of the file when it was read."""

    keys: tuple[ApiKey, ...]
    stamp: FileStamp


class KeyMistake(NamedTuple):
    """One mistake in a file of keys."""

    line: int | None
    key: str
    """The path of the key, such as ``keys[2].sha256``; empty if the whole file is concerned."""
    reason: str

    def __str__(self) -> str:
        """``line: key: reason``, as far as they are known."""
        return ": ".join(str(part) for part in self if part)


class KeyFileError(Exception):
    """A file of keys cannot be used. ``mistakes`` holds the mistakes that were found, in the order of the lines."""

    def __init__(self, mistakes: tuple[KeyMistake, ...], stamp: FileStamp | None = None) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = mistakes
        self.stamp = stamp
        """The state of the file, if it could be read."""


def read_key_file(path: str, *, settled: bool = False) -> KeyFile:
    """Read the file of keys at ``path``. Blocks.

    Args:
        path: the path of the file.
        settled: read the file again, for some seconds, while it is being written.

    Raises:
        KeyFileError: the file cannot be read, is too large, is no TOML, or has mistakes. It carries all of them.
    """
    try:
        source = (read_settled if settled else read)(Path(path), path, SIZE_MAX)
    except UnreadableError as error:
        raise _unreadable(error) from None
    return KeyFile(_keys(source), source.stamp)


def read_text(path: str) -> str:
    """Read the text of the file at ``path``, without looking for mistakes in its tables. Blocks.

    Raises:
        KeyFileError: the file cannot be read, is too large, or is no TOML.
    """
    try:
        return read_settled(Path(path), path, SIZE_MAX).text
    except UnreadableError as error:
        raise _unreadable(error) from None


def keys_in(text: str) -> tuple[ApiKey, ...]:
    """Return the keys in the text of a file.

    Raises:
        KeyFileError: the text is too large, is no TOML, or has mistakes. It carries all of them.
    """
    try:
        return _keys(parsed(text, SIZE_MAX))
    except UnreadableError as error:
        raise _unreadable(error) from None


def _unreadable(error: UnreadableError) -> KeyFileError:
    # The parser quotes names of keys, which may be secrets in a wrong place.
    reason = _SYNTAX.fullmatch(error.reason)
    text = error.reason if reason is None else f"is not TOML{reason[1] or ''}"
    return KeyFileError((KeyMistake(error.line, "", text),), error.stamp)


def _keys(source: SourceFile) -> tuple[ApiKey, ...]:
    mistakes = [
        KeyMistake(source.line(at), dotted(_known(at)), reason) for at, reason in _mistakes(source.data, source)
    ]
    if mistakes:
        mistakes.sort(key=lambda each: each.line or 0)
        more = len(mistakes) - MISTAKES_MAX
        rest = (KeyMistake(None, "", f"has {more} more mistakes"),) if more > 0 else ()
        raise KeyFileError((*mistakes[:MISTAKES_MAX], *rest), source.stamp)
    return tuple(_key(table) for table in source.data["keys"])


def mistake_in_id(value: object) -> str:
    """Return why a value is no id of a key; empty if it is one."""
    if isinstance(value, str) and 0 < len(value) <= ID_MAX and value.isprintable() and value == value.strip():
        return ""
    return f"needs a text of at most {ID_MAX} printable characters, without spaces around it"


def mistake_in_scopes(value: object) -> str:
    """Return why a value is no list of scopes (RFC 6749 section 3.3); empty if it is one."""
    if isinstance(value, list) and all(isinstance(scope, str) and _SCOPE.fullmatch(scope) for scope in value):
        return ""
    return "needs a list of scopes: texts of printable ASCII without spaces, quotes and backslashes"


def unix_time(value: object) -> float | None:
    """Return the Unix time of a date or time of TOML; None if the value is neither. Without an offset it is UTC."""
    if not isinstance(value, datetime.date):
        return None
    whole = (
        value
        if isinstance(value, datetime.datetime)
        else datetime.datetime.combine(value, datetime.time(), datetime.UTC)
    )
    return (whole if whole.tzinfo is not None else whole.replace(tzinfo=datetime.UTC)).timestamp()


def _known(path: KeyPath) -> KeyPath:
    """Return a path without a last part that the file has made up."""
    return path if path[-1:] and (isinstance(path[-1], int) or path[-1] in ("keys", *_MEMBERS)) else path[:-1]


def _key(table: Mapping[str, Any]) -> ApiKey:
    scopes = tuple(dict.fromkeys(table.get("scopes", ())))
    return ApiKey(table["id"], bytes.fromhex(table["sha256"]), scopes, unix_time(table.get("expires")))


def _mistakes(data: Mapping[str, Any], source: SourceFile) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the reason of each mistake."""
    for name in data:
        if name != "keys":
            yield (name,), "has a key that is not known here: there are tables [[keys]] only"
    tables = data.get("keys")
    if tables is None:
        # An empty file may be one that is just being written.
        yield (), "has no table [[keys]]; to let nobody in, write keys = []"
    if not isinstance(tables, list):
        if tables is not None:
            yield ("keys",), "needs a list of tables: write [[keys]], with two brackets"
        return
    digests: dict[str, int] = {}
    for index, table in enumerate(tables):
        at: KeyPath = ("keys", index)
        if not isinstance(table, dict):
            yield at, "needs a table with id and sha256"
            continue
        yield from ((at + path, reason) for path, reason in _mistakes_in_table(table))
        if isinstance(value := table.get("sha256"), str):
            first = digests.setdefault(value.lower(), index)
            if first != index:
                line = source.line(("keys", first, "sha256"))
                yield (*at, "sha256"), f"is the digest of the table in line {line} already; each has its own"


def _mistakes_in_table(table: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    for name in table:
        if name not in _MEMBERS:
            yield (name,), f"has a member that is none of {', '.join(_MEMBERS)}{suggestion(name, _MEMBERS)}"
    if "id" not in table:
        yield (), "has no id"
    elif reason := mistake_in_id(table["id"]):
        yield ("id",), reason
    digest = table.get("sha256")
    if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
        place: KeyPath = ("sha256",) if "sha256" in table else ()
        yield place, 'needs the SHA-256 of the key, 64 hexadecimal digits, in sha256; "umbel auth hash" prints it'
    if "scopes" in table and (reason := mistake_in_scopes(table["scopes"])):
        yield ("scopes",), reason
    if "expires" in table and unix_time(table["expires"]) is None:
        yield ("expires",), "needs a date or a time without quotes, such as 2027-01-31 or 2027-01-31T12:00:00Z"
