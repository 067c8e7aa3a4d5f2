"""Compression of whole responses, as ``[compress]`` and Accept-Encoding say.

Theory
------
*Place.* Compression is the last step before a whole response is given to the server (``response/sending.py``), so it
sees the final status, fields and body, whoever made them: a composition, a handler, an ordinary view, or an error.
Responses in parts do not come here: a compressor would hold their parts back.

*What can be compressed* depends on the response only: its media type is among ``types``, it is no partial content, has
no coding yet, allows transformation, and has no digest of its content. Such a response has ``Vary: Accept-Encoding``,
whatever its coding and size, so that a cache keeps the coded and the uncoded form apart.

*Entity tags.* Each coding is another representation and has its own strong tag (RFC 9110 section 8.8.3.3): ``"v1"``
becomes ``"v1--gzip"``. Two hyphens, because upstreams have tags with one (``"v1-gzip"``) for something else. Weak tags
stay as they are: they may stand for all codings. These tags exist only between the gateway and its clients:

- A request with If-None-Match and the tag of a coding that the client accepts now is answered with 304 and this tag.
  This costs no compression, and the server may choose any accepted coding.
- Everything else (calls and their upstreams, handlers, Quart's request in a view) gets If-None-Match and If-Match
  without these suffixes (``original_tags``), so that each recognizes its own tags. A suffix of a coding that the client
  does not accept stays in If-None-Match: the client could not use a 304 for it. If-Match protects a change against lost
  updates, and the content is the same in all codings, also in one that the configuration no longer has.

*Time.* A body of more than ``INLINE_MAX`` bytes is compressed in a thread, at most ``THREADS_MAX`` at once; others wait
in order. A cancel abandons the thread, which ends by itself and holds its place until then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import trio
from werkzeug.http import parse_etags

from ...core.http.compressors import CODINGS, Coding, is_available, make_compressor
from ...net.bounded_cache import BoundedCache
from ..request.accept_encoding import Accepted, read_accept_encoding
from ..request.request_fields import Field, RequestFields

if TYPE_CHECKING:
    from ...config.schema.compress import Compress

INLINE_MAX = 64 * 1024
"""Maximum bytes of a body that is compressed on the event loop: gzip and br take about half a millisecond."""
THREADS_MAX = 4
"""Maximum number of threads that compress at the same time."""

_FIELDS_COST = 32
"""Bytes that a coding adds to the head: Content-Encoding, and a longer ETag."""
_NEVER = frozenset({204, 205})
_AS_IT_IS = frozenset(b"content-encoding content-range content-digest repr-digest digest content-md5 signature".split())
"""Fields of a response that must not be compressed: it has a coding, is a part, or its bytes are digested."""
_ABOUT_CONTENT = frozenset({b"content-type", b"content-length", b"content-encoding", b"content-language"})
_NO_TRANSFORM = re.compile(rb"(?:^|[,\s])no-transform(?:[,;=\s]|$)", re.IGNORECASE)
_PARTS = b"multipart/byteranges"
_ACCEPT_ENCODING = b"accept-encoding"
_TAG_MARK = "--"
_SUFFIX = re.compile(rf'(--(?:{"|".join(CODINGS)}))(?=")')
"""The suffix of a coding at the end of an entity tag."""
_CACHED_MAX, _CACHED_SIZE = 256, 256

_threads: trio.lowlevel.RunVar[trio.CapacityLimiter | None] = trio.lowlevel.RunVar("compressing", None)


class WholeResponse(NamedTuple):
    """A response whose body is complete."""

    status: int
    fields: list[Field]
    body: bytes


class CodedContent:
    """The coded forms of content that is constant: each is made for the first response that needs it, and kept.

    They are at most as many as there are codings, and each is about as large as the content at most.
    """

    __slots__ = ("content", "forms")

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.forms: dict[Coding, bytes] = {}


class Compression:
    """Compresses the responses of one application. Used by the tasks of one trio run.

    Args:
        config: the section ``[compress]``. Codings whose library is missing are left out.
    """

    def __init__(self, config: Compress) -> None:
        self.codings: tuple[Coding, ...] = tuple(
            coding for coding in dict.fromkeys(config.algorithms) if is_available(coding)
        )
        """The codings, in the order of preference."""
        self.min = config.min
        """The smallest body in bytes that is compressed."""
        self.types = config.types
        self._proxied = config.proxied
        self._compressors = {coding: make_compressor(coding) for coding in self.codings}
        self._accepted: BoundedCache[str, Accepted] = BoundedCache(_CACHED_MAX, _CACHED_SIZE)
        self._fits: BoundedCache[bytes, bool] = BoundedCache(_CACHED_MAX, _CACHED_SIZE)

    async def apply(
        self, asked: RequestFields, method: str, whole: WholeResponse, constant: CodedContent | None = None
    ) -> WholeResponse:
        """Make the response in the coding that fits the request: compressed, unchanged but for Vary, or a 304.

        Args:
            asked: the fields of the request.
            method: the method of the request. The response to HEAD has the fields of the one to GET.
            whole: the response; its fields may be changed.
            constant: holds the coded forms of the body if the body is its ``content``; None: there are none.
        """
        status, fields, body = whole
        if status == 304:
            return self._not_modified(asked, whole)
        if not body or status < 200 or status in _NEVER or not self._is_compressible(status, fields):
            return whole
        _add_to_vary(fields)
        if status == 206:  # It has the Vary of the 200 (RFC 9110 section 15.3.7), but a part is not coded.
            return whole
        accepted = self.accepted(asked)
        if not accepted.codings:
            return whole
        if status == 200 and method in ("GET", "HEAD") and (tag := self._stored(asked, fields, accepted)) is not None:
            kept = [field for field in fields if field[0] not in _ABOUT_CONTENT]
            return WholeResponse(304, _with_tag(kept, tag), b"")
        if len(body) < self.min and accepted.identity:
            return whole
        coding = accepted.codings[0]
        if constant is None or constant.content is not body:  # Such as the problem of a refused request.
            constant = CodedContent(body)
        if (coded := constant.forms.get(coding)) is None:
            coded = constant.forms[coding] = await self._compressed(coding, body)
        if accepted.identity and len(coded) + _FIELDS_COST >= len(body):
            return whole
        return WholeResponse(status, _describing(fields, coding, len(coded)), coded)

    def accepted(self, asked: RequestFields) -> Accepted:
        """The codings in which a request with these fields may be answered."""
        if asked.via and not self._proxied:
            return Accepted()
        value = asked.by_name.get("accept-encoding", "")
        accepted = self._accepted.get(value)
        if accepted is None:
            accepted = read_accept_encoding(value, self.codings)
            self._accepted.add(value, accepted)
        return accepted

    def has_type(self, content_type: bytes) -> bool:
        """Whether responses with this Content-Type are compressed."""
        fits = self._fits.get(content_type)
        if fits is None:
            fits = _is_among(content_type.partition(b";")[0].strip(b" \t").lower().decode("latin-1"), self.types)
            self._fits.add(content_type, fits)
        return fits

    def original_tags(self, headers: Mapping[str, str], asked: RequestFields) -> Mapping[str, str]:
        """``headers`` of a request with its conditions as if no response had been compressed; see the module."""
        changed = self.changed_conditions(headers, asked)
        return {**headers, **changed} if changed else headers

    def changed_conditions(self, headers: Mapping[str, str], asked: RequestFields) -> Mapping[str, str]:
        """If-None-Match and If-Match of ``headers`` by name in lower case, where ``original_tags`` changes them."""
        changed: dict[str, str] = {}
        for name in ("if-none-match", "if-match"):
            value = headers.get(name)
            if value is None or _TAG_MARK not in value:
                continue
            accepted = self.accepted(asked).codings if name == "if-none-match" else CODINGS
            suffixes = {_TAG_MARK + coding for coding in accepted}
            changed[name] = "".join(part for part in _SUFFIX.split(value) if part not in suffixes)
        return changed

    def _is_compressible(self, status: int, fields: Sequence[Field]) -> bool:
        """Whether a response may be compressed; for a part (206), whether the whole could be."""
        fits = False
        for name, value in fields:
            if name == b"content-type":
                # The type of several parts says nothing of the whole, which may be compressible.
                fits = self.has_type(value) or (status == 206 and value.lower().startswith(_PARTS))
            elif name == b"content-range" and status == 206:
                continue
            elif name in _AS_IT_IS or (name == b"cache-control" and _NO_TRANSFORM.search(value)):
                return False
        return fits

    def _stored(self, asked: RequestFields, fields: Sequence[Field], accepted: Accepted) -> bytes | None:
        """The tag of a coded form of this response that the client has stored and accepts; None without one."""
        condition = asked.by_name.get("if-none-match")
        if condition is None or _TAG_MARK not in condition or (tag := _strong_tag(fields)) is None:
            return None
        named = parse_etags(condition)
        own = tag[1:-1].decode("latin-1")
        found = next((c for c in accepted.codings if named.contains_weak(f"{own}{_TAG_MARK}{c}")), None)
        return None if found is None else _tag_of(tag, found)

    def _not_modified(self, asked: RequestFields, whole: WholeResponse) -> WholeResponse:
        """A 304 with Vary, and with the tag that the client has named."""
        fields = whole.fields
        _add_to_vary(fields)
        condition, tag = asked.by_name.get("if-none-match"), _strong_tag(fields)
        if condition is None or tag is None or parse_etags(condition).contains_weak(tag[1:-1].decode("latin-1")):
            return whole
        stored = self._stored(asked, fields, self.accepted(asked))
        return whole if stored is None else whole._replace(fields=_with_tag(fields, stored))

    async def _compressed(self, coding: Coding, body: bytes) -> bytes:
        if len(body) <= INLINE_MAX:
            return self._compressors[coding](body)
        limiter = _threads.get()
        if limiter is None:
            limiter = trio.CapacityLimiter(THREADS_MAX)
            _threads.set(limiter)
        # A compressor of its own: the loop may use the shared one meanwhile.
        return await trio.to_thread.run_sync(make_compressor(coding), body, abandon_on_cancel=True, limiter=limiter)


def _is_among(media: str, types: Sequence[str]) -> bool:
    for pattern in types:
        # A pattern has at most one star, in its subtype: "text/*" or "application/*+json".
        before, star, after = pattern.partition("*")
        if media == pattern or (
            star and media.startswith(before) and media.endswith(after) and len(media) > len(before) + len(after)
        ):
            return True
    return False


def _add_to_vary(fields: list[Field]) -> None:
    """Add Accept-Encoding to the field Vary, unless it is there or Vary is ``*``."""
    first: int | None = None
    for index, (name, value) in enumerate(fields):
        if name == b"vary":
            members = {member.strip(b" \t") for member in value.lower().split(b",")}
            if _ACCEPT_ENCODING in members or b"*" in members:
                return
            first = index if first is None else first
    if first is None:
        fields.append((b"vary", b"Accept-Encoding"))
    else:
        value = fields[first][1]
        fields[first] = (b"vary", value + b", Accept-Encoding" if value else b"Accept-Encoding")


def _strong_tag(fields: Sequence[Field]) -> bytes | None:
    """The value of ETag if it is one strong tag."""
    tag = next((value for name, value in fields if name == b"etag"), b"")
    return tag if len(tag) > 1 and tag[:1] == b'"' == tag[-1:] else None


def _tag_of(tag: bytes, coding: Coding) -> bytes:
    """The tag of the coded form of a response with this strong tag."""
    return b'%b--%b"' % (tag[:-1], coding.encode())


def _with_tag(fields: Sequence[Field], tag: bytes) -> list[Field]:
    return [(name, tag) if name == b"etag" else (name, value) for name, value in fields]


def _describing(fields: Sequence[Field], coding: Coding, length: int) -> list[Field]:
    """The fields of the coded form, in the same order, without Accept-Ranges: ranges would be those of the other form.

    Content-Encoding follows Content-Type.
    """
    tag = _strong_tag(fields)
    coded: list[Field] = []
    for name, value in fields:
        if name == b"content-length":
            coded.append((name, b"%d" % length))
        elif name == b"content-type":
            coded += [(name, value), (b"content-encoding", coding.encode())]
        elif name == b"etag" and tag is not None:
            coded.append((name, _tag_of(tag, coding)))
        elif name != b"accept-ranges":
            coded.append((name, value))
    return coded
