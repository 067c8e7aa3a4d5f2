"""Encoding of records: each as one JSON object on one line, without secrets, whatever values it holds.

Most records take a fast path: msgspec encodes the fields as they are, and the bytes are searched for anything that
could be a secret or unsafe. If something is found, or msgspec cannot encode a value, ``sanitize.py`` converts the
fields first. A record is encoded in the thread that records it, so that later changes of a value cannot reach the log.
No value makes a function here raise.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import msgspec
from trio import Nursery
from trio.lowlevel import Task, current_task

from ...core.diagnostics.redact import API_KEY_PREFIX, TEXT_CHARS_MAX, Redactor, cut
from ...net.bounded_cache import BoundedCache
from .. import context
from .level import SEVERITY, LevelName
from .sanitize import sanitize, sanitize_fields

RECORD_BYTES_MAX = 256 * 1024
"""The bound on a line. A longer record is encoded with shortened values and ``"truncated": true``."""

OWN_NAMES = frozenset(
    {"ts", "level", "severity", "event", "seq", "task", "truncated", "service.name", "host.name", "process.pid"}
)
"""The names that the encoder sets, besides ``worker`` in a worker. A field of such a name becomes ``field.<name>``."""

_SEQ_BYTES_MAX = 24
_SECOND_NS = 1_000_000_000
# The bounds of a truncated record: on each text, on names and nested texts, on nested parts, and on the whole.
_TEXT_CHARS_SHORTENED = 1024
_NAME_CHARS_SHORTENED = 256
_PARTS_SHORTENED = 20
_SHORTENED_BYTES_MAX = 64 * 1024
# The caches are meant for names in a program's source. They are bounded, since names may also come from outside.
_HEADS_MAX = 1024
_NAMES_MAX = 4096
_NAME_CHARS_MAX = 256
# JSON escapes the C0 controls. DEL, the C1 controls and the two separators are valid in JSON, but terminals interpret
# some of them, and many readers (Python's splitlines among them) end a line at others.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")
# As numbers: searching bytes for a number takes a tenth of the time of searching for a text.
_BRACE, _LIST, _J, _DEL, _BLANK, _EQUALS, _AT, _BACKSLASH = b"{[J\x7f =@\\"
# In compact JSON of a flat object these occur only within texts, except for the first brace and one colon for each
# member. A text without any of them holds no secret that the redactor can find, except for a JSON Web Token and
# an API key.
_API_KEY = API_KEY_PREFIX.encode()
_SUSPICIOUS_BYTES = b" =@\\:{[\x7f"
# msgspec encodes these as base64, in which no secret can be found.
_BYTES = frozenset({bytes, bytearray, memoryview})


class _UnsafeValueError(Exception):
    """The fast path cannot encode a value: the record must be sanitized."""


def _raise_unsafe(value: object) -> Any:
    raise _UnsafeValueError(type(value))


class Encoder:
    """The encoder of records, which adds time, task, service, host and process to each. Safe in several threads.

    The encoded lines lack their end. ``finish``, or the queue, adds the sequence number and the closing brace when the
    place of the line is known.

    Args:
        redactor: hides the secrets.
        service: the field ``service.name``.
        worker: the field ``worker``; None: no such field.
        clock: the time in ns since 1970.
    """

    def __init__(
        self, redactor: Redactor, *, service: str, worker: str | None = None, clock: Callable[[], int] = time.time_ns
    ) -> None:
        names: dict[str, object] = {"service.name": service, "host.name": socket.gethostname()}
        names["process.pid"] = os.getpid()
        if worker is not None:
            names["worker"] = worker
        self.redactor = redactor
        self._own_names = OWN_NAMES | names.keys()
        self._tail = b"," + _one_line(msgspec.json.encode(names))[1:-1] + b',"seq":'
        self._clock = clock
        self._second = (0, b"")
        self._ends: WeakKeyDictionary[Task, tuple[context.BoundFields, bytes]] = WeakKeyDictionary()
        self._unbound_ends: WeakKeyDictionary[Nursery, BoundedCache[str, bytes]] = WeakKeyDictionary()
        """Ends of lines without bound fields, by nursery and task name: these two determine the task path."""
        self._latest: tuple[Callable[[], Nursery | None], str, bytes] = (lambda: None, "", b"")
        """The latest end of ``_unbound_ends``: tasks of one name often record one after the other. One tuple, so that
        a thread never sees parts of two."""
        self._known_heads: BoundedCache[tuple[LevelName, str], bytes] = BoundedCache(
            _HEADS_MAX, _NAME_CHARS_MAX, size_of=lambda key: len(key[1])
        )
        self._heads = self._known_heads.entries
        self._known_names: BoundedCache[str, bool] = BoundedCache(_NAMES_MAX, _NAME_CHARS_MAX)
        self._safe_names = self._known_names.entries.keys()
        self._encode = msgspec.json.Encoder(enc_hook=_raise_unsafe).encode

    def fields(self, level: LevelName, event: str, fields: Mapping[str, object]) -> bytes:
        """Encode a record with these fields and the bound fields of the caller's context.

        A field of the record replaces a bound field of the same name.
        """
        bound = context.current()
        if bound.names and not bound.names.isdisjoint(fields):  # A field of the record overrides a bound one.
            fields = {**bound.fields, **fields}
            bound = context.NO_FIELDS
        # The fast path, if all names are known not to be names of secrets.
        if self._safe_names >= fields.keys() and _BYTES.isdisjoint(map(type, fields.values())):
            try:
                text = self._encode(fields)
            except Exception:  # noqa: BLE001 - a value without a JSON form, or a lone surrogate: sanitizing converts it
                return self._line(level, event, self._sanitized(fields), bound)
            if (
                len(text.translate(None, _SUSPICIOUS_BYTES)) == len(text) - 1 - len(fields)
                and text.isascii()
                and (_J not in text or text.find(b"eyJ") < 0)
                and _API_KEY not in text
            ):
                return self._line(level, event, text[1:-1], bound)
            # A second { or a [ begins a list or mapping, whose members have names of their own to check.
            flat = text.find(_BRACE, 1) < 0 and _LIST not in text
            if flat and len(text) <= TEXT_CHARS_MAX and self._without_secrets(fields.values()):
                return self._line(level, event, _one_line(text)[1:-1], bound)
        return self._line(level, event, self._sanitized(fields), bound)

    def struct(self, level: LevelName, event: str, line: msgspec.Struct, trusted: bool = True) -> bytes:
        """Encode a record of the schema, without the bound fields of the caller's context.

        ``trusted`` says that all names in the record are the schema's, also in its nested objects: so none is the name
        of a secret.
        """
        members = self.members(line) if trusted else None
        if members is None:
            members = self._sanitized(_asdict(line))
        return self._line(level, event, members, context.NO_FIELDS)

    def members(self, line: msgspec.Struct) -> bytes | None:
        """Encode the members of a record of the schema, without braces; names are taken to be the schema's.

        Returns None if a value may hold a secret or has no JSON form, so that the record must be sanitized.
        """
        try:
            text = self._encode(line)
        except Exception:  # noqa: BLE001 - a value without a JSON form, or a lone surrogate
            return None
        # Colons do not count here: the texts of the schema hold addresses.
        suspicious = _BLANK in text or _EQUALS in text or _AT in text or _BACKSLASH in text or _J in text
        if (suspicious or _API_KEY in text) and self.redactor.suspects(text):
            return None
        return text[1:-1] if _DEL not in text and text.isascii() else _one_line(text)[1:-1]

    def complete(self, level: LevelName, event: str, members: Sequence[bytes]) -> list[bytes]:
        """Encode several records of one level and event, and return their lines, in order and without their end.

        The records share time and task. If one is too long or without members, each gets its own time, and what is too
        long is cut.

        Args:
            members: for each record its encoded members without braces. They must hold neither secrets nor line ends.
        """
        if members and all(members):
            line = self._line(level, event, members[0], context.NO_FIELDS)
            before, found, after = line.partition(members[0])
            room = RECORD_BYTES_MAX - _SEQ_BYTES_MAX - len(before) - len(after)
            if found and max(map(len, members)) <= room:
                return [b"%b%b%b" % (before, each, after) for each in members]
        return [self._line(level, event, each, context.NO_FIELDS) for each in members]

    def _line(self, level: LevelName, event: str, members: bytes, bound: context.BoundFields) -> bytes:
        key = (level, event)
        head = self._heads[key] if key in self._heads else self._head(level, event)
        try:
            task = current_task()
        except RuntimeError:
            end = self._make_end(bound)
        else:
            end = self._end(task, bound)
        now = self._clock()
        second, prefix = self._second
        if not 0 <= now - second < _SECOND_NS:
            second, prefix = self._second = (now - now % _SECOND_NS, _prefix(now))
        micros = (now - second) // 1000
        line = b"%b%06dZ%b%b%b" % (prefix, micros, head if members else head[:-1], members, end)
        if len(line) > RECORD_BYTES_MAX - _SEQ_BYTES_MAX:
            return self._cut(level, event, members, bound)
        return line

    def _end(self, task: Task, bound: context.BoundFields) -> bytes:
        """Return the end of a line that ``task`` records, from a cache: bound fields, task path, process."""
        nursery = task.parent_nursery
        if bound is context.NO_FIELDS and nursery is not None:
            latest, name, end = self._latest
            if latest() is nursery and task.name == name:
                return end
            ends = self._unbound_ends.get(nursery)
            if ends is None:
                ends = self._unbound_ends[nursery] = BoundedCache(_HEADS_MAX, _NAME_CHARS_MAX)
            known_end = ends.get(task.name)
            if known_end is None:
                known_end = self._make_end(bound)
                ends.add(task.name, known_end)
            self._latest = ref(nursery), task.name, known_end
            return known_end
        known = self._ends.get(task)
        if known is None or known[0] is not bound:
            known = self._ends[task] = (bound, self._make_end(bound))
        return known[1]

    def _cut(self, level: LevelName, event: str, members: bytes, bound: context.BoundFields) -> bytes:
        """Encode a record that is too long again, with shortened values."""
        given = msgspec.json.decode(b"{" + members + b"}", type=dict[str, object])
        short = self._sanitized(_shortened({**given, **bound.fields}))
        return self._line(level, cut(event, _NAME_CHARS_SHORTENED), b'"truncated":true,' + short, context.NO_FIELDS)

    def _make_end(self, bound: context.BoundFields) -> bytes:
        around = b"," + self._sanitized(bound.fields) if bound.fields else b""
        path = _one_line(msgspec.json.encode(sanitize(context.task_path(), self.redactor)))
        return b"".join((around, b',"task":', path, self._tail))

    def _head(self, level: LevelName, event: str) -> bytes:
        name = _one_line(msgspec.json.encode(sanitize(event, self.redactor)))
        head = b'","level":"%b","severity":%d,"event":%b,' % (level.encode(), SEVERITY[level], name)
        self._known_heads.add((level, event), head)
        return head

    def _without_secrets(self, values: Iterable[object]) -> bool:
        """Whether the redactor changes none of the texts."""
        text = self.redactor.text
        return all(text(value) is value for value in values if type(value) is str)

    def _sanitized(self, fields: Mapping[str, object]) -> bytes:
        """Encode sanitized fields; their names take the fast path from now on unless they are names of secrets."""
        for name in fields:
            known = name in self._safe_names
            if not known and type(name) is str and name not in self._own_names and not self.redactor.is_secret(name):
                self._known_names.add(name, True)
        renamed = {f"field.{name}" if name in self._own_names else name: value for name, value in fields.items()}
        return _one_line(self._encode(sanitize_fields(renamed, self.redactor)))[1:-1]


def _prefix(now: int) -> bytes:
    return time.strftime('{"ts":"%Y-%m-%dT%H:%M:%S.', time.gmtime(now // _SECOND_NS)).encode()


def finish(line: bytes, seq: int) -> bytes:
    """Complete an encoded line with its sequence number."""
    return line + b"%d}\n" % seq


def _asdict(line: msgspec.Struct) -> dict[str, object]:
    """Return a struct's members under their JSON names, without those that have their default value."""
    result: dict[str, object] = {}
    for field in msgspec.structs.fields(line):
        value = getattr(line, field.name)
        if field.required or value != (field.default_factory() if callable(field.default_factory) else field.default):
            result[field.encode_name] = value
    return result


def _shortened(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the numbers and the beginnings of the texts of a record that is too long, as many as fit in any case."""
    result: dict[str, object] = {}
    room = _SHORTENED_BYTES_MAX
    for name, value in fields.items():
        short = _shortened_value(value)
        room -= len(msgspec.json.encode({name[:_NAME_CHARS_SHORTENED]: short})) * 2  # _one_line may double it
        if room >= 0:
            result[name[:_NAME_CHARS_SHORTENED]] = short
    return result


def _shortened_value(value: object) -> object:
    if isinstance(value, Mapping):
        parts = list(value.items())[:_PARTS_SHORTENED]
        return {str(key)[:_NAME_CHARS_SHORTENED]: _shortened_part(part) for key, part in parts}
    if isinstance(value, list):
        return [_shortened_part(part) for part in value[:_PARTS_SHORTENED]]
    return value[:_TEXT_CHARS_SHORTENED] if isinstance(value, str) else value


def _shortened_part(value: object) -> object:
    return value if isinstance(value, bool | int | float | None) else str(value)[:_NAME_CHARS_SHORTENED]


def _one_line(text: bytes) -> bytes:
    """Escape the characters that JSON allows but that are not safe in a line."""
    if text.isascii() and _DEL not in text:
        return text
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text.decode()).encode()
