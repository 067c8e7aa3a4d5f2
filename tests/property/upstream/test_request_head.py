"""Both encodings of a call's request give the same bytes, and no value ends a line or begins a request."""

from __future__ import annotations

import re
from collections import Counter

from hypothesis import event, given, settings
from hypothesis import strategies as st

from umbel.core.call import PreparedRequest
from umbel.core.http.header_field import ACCEPT_GZIP, Field
from umbel.upstream.errors import BadRequest
from umbel.upstream.pool.request_head import EncodedRequest, encode_call, encode_plain_call

BASE, HOST = b"/base", b"host:81"
OURS = (b"traceparent", b"x-deadline")
NEVER = tuple(name + b":" for name in OURS)
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

GOOD_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
GOOD_TARGETS = [b"/", b"/a?b=c&d", b"/a%0d%0a"]
ODD_TARGETS = [b"*", b"", b"a", b"/a b", b"/a\r\nX: y", b"/a#b", b"/\xff"]
GOOD_NAMES = [b"accept", b"x-a", b"idempotency-key", b"cookie"]
ODD_NAMES = [
    *(b"host", b"Host", b"connection", b"keep-alive", b"te", b"upgrade", b"expect", b"proxy-authorization"),
    *(b"content-length", b"transfer-encoding", b"accept-encoding", b"Accept-Encoding", b"traceparent", b"TraceParent"),
    *(b"x-deadline", b"X-Deadline", b"X-A", b"", b"x a", b"x:", b"x\r\ny"),
]
GOOD_VALUES = [b"", b"1", b"a, b", b"accept-encoding: gzip", b"traceparent: 1", b"\xe9\t"]
ODD_VALUES = [b"a\r\nx-evil: 1", b"a\n", b"\r", b"\0", b"close", b"x-a", b"chunked", b"3"]


def fields_of(names: st.SearchStrategy[bytes], values: st.SearchStrategy[bytes]) -> st.SearchStrategy[Field]:
    return st.builds(lambda name, value: (name, name.lower(), value), names, values)


def prepared_of(
    methods: list[str], targets: list[bytes], fields: st.SearchStrategy[Field], gateways: list[tuple[Field, ...]]
) -> st.SearchStrategy[PreparedRequest]:
    headers = st.lists(fields)
    content = st.sampled_from([None, b"", b"body", b"GET /evil HTTP/1.1\r\n\r\n"])
    return st.builds(
        lambda *parts: PreparedRequest(*parts),  # Its annotations are for type checkers only.
        st.sampled_from(methods),
        st.sampled_from(targets),
        headers | headers.map(tuple),
        content,
        st.sampled_from([(gateway, ((b"x-id", b"x-id", b"7"),)) for gateway in gateways]),
    )


PLAIN = prepared_of(
    GOOD_METHODS, GOOD_TARGETS, fields_of(st.sampled_from(GOOD_NAMES), st.sampled_from(GOOD_VALUES)), [(ACCEPT_GZIP,)]
)
ANY = prepared_of(
    [*GOOD_METHODS, "PROPFIND", "CONNECT", "G\r\n"],
    GOOD_TARGETS + ODD_TARGETS,
    fields_of(st.sampled_from(GOOD_NAMES + ODD_NAMES), st.sampled_from(GOOD_VALUES + ODD_VALUES) | st.binary()),
    [(), (ACCEPT_GZIP,)],
)
PREPARED = PLAIN | ANY
ADDED = st.lists(st.sampled_from([(name, name, b"%d" % len(name)) for name in OURS]), unique=True)


def plainly(prepared: PreparedRequest, added: list[Field]) -> bytes | BadRequest | None:
    lines = b"".join(b"%b: %b\r\n" % (name, value) for name, _, value in added)
    try:
        return encode_plain_call(prepared, BASE, HOST, lines, NEVER)
    except BadRequest as error:
        return error


def looked_at(prepared: PreparedRequest, added: list[Field]) -> EncodedRequest | BadRequest:
    try:
        return encode_call(prepared, BASE, HOST, added)
    except BadRequest as error:
        return error


@settings(max_examples=300)
@given(PREPARED, ADDED)
def test_the_plain_encoding_equals_the_full_encoding_or_is_not_used(
    prepared: PreparedRequest, added: list[Field]
) -> None:
    plain, whole = plainly(prepared, added), looked_at(prepared, added)
    event("looked at" if plain is None else type(plain).__name__)
    if isinstance(plain, bytes):
        assert isinstance(whole, EncodedRequest)
        assert plain == whole.head + whole.body
        assert not whole.close
    elif isinstance(plain, BadRequest):
        # An invalid field may also be one that is replaced.
        assert isinstance(whole, BadRequest) or any(VALUE.fullmatch(value) is None for _, _, value in prepared.fields)


@settings(max_examples=300)
@given(PREPARED, ADDED)
def test_no_value_ends_a_line_or_begins_another_request(prepared: PreparedRequest, added: list[Field]) -> None:
    outgoing = looked_at(prepared, added)
    if isinstance(outgoing, BadRequest):
        return
    content = prepared.content or b""
    assert outgoing.body == content
    first, *lines, end, last = outgoing.head.split(b"\r\n")
    assert (end, last) == (b"", b"")
    assert first == b"%b %b HTTP/1.1" % (prepared.method.encode(), BASE + prepared.target)
    assert all(re.fullmatch(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: " + VALUE.pattern, line) for line in lines)
    sent = Counter(line.partition(b":")[0].lower() for line in lines)
    own = Counter(field[1] for field in prepared.fields)
    assert (sent[b"host"], sent[b"accept-encoding"]) == (1, 1)
    assert {b"Host: " + HOST, b"accept-encoding: gzip"} <= set(lines)
    for name, _, value in added:
        assert [line for line in lines if line.lower().startswith(name + b":")] == [name + b": " + value]
    assert all(
        sent[name] <= own[name] for name in sent.keys() - {b"host", b"accept-encoding", b"content-length", *OURS}
    )
    assert sent[b"transfer-encoding"] == 0
    expected = [b"Content-Length: %d" % len(content)] if content or prepared.method in ("POST", "PUT", "PATCH") else []
    assert [line for line in lines if line.lower().startswith(b"content-length:")] == expected
