"""The functions that parse input from outside, and the characters and words that the grammar of each distinguishes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from tests.support.source.adversarial import PumpedText, texts_of_atoms
from umbel.auth.authenticator import Place, Presented
from umbel.auth.certificates.forwarded_client_cert import names_of_last_element
from umbel.auth.jwt.compact import TOKEN_MAX, BadTokenError, read_claims, read_token
from umbel.auth.jwt.discovery import key_set_path
from umbel.auth.jwt.key_set import BadKeySetError, read_key_set
from umbel.auth.jwt.key_source import FetchError
from umbel.auth.jwt.token_cache import estimated_size
from umbel.auth.jwt.token_places import HEADER, find_token
from umbel.composition.answer.cache_control import strictest_cache_control
from umbel.composition.decode import decode_json
from umbel.composition.request.code_request import build_target
from umbel.composition.request.request_template import encode_form
from umbel.composition.text import template
from umbel.composition.text.expression import compile_expression
from umbel.config.loading import certificates, variables
from umbel.config.loading.errors.did_you_mean import nearest
from umbel.config.schema.compress import Compress
from umbel.config.schema.values import units
from umbel.core.call import PreparedRequest
from umbel.core.http.header_field import ACCEPT_GZIP, fits_field, raw_value, text_of
from umbel.core.http.secret_fields import may_be_secret
from umbel.core.networks import Networks
from umbel.gateway.browsers.compression import Compression
from umbel.gateway.request import paths, query
from umbel.gateway.request import request_body as bodies
from umbel.gateway.request import trace_ids as ids
from umbel.gateway.request.accept_encoding import read_accept_encoding
from umbel.gateway.request.client_deadline import client_timeout
from umbel.gateway.request.client_origin import origin_of
from umbel.gateway.request.content_negotiation import stream_form
from umbel.gateway.request.request_fields import RequestFields
from umbel.http1 import chunked, response_head
from umbel.policy import coalescing_key
from umbel.server.http1 import head_errors
from umbel.server.http1.host import Hosts
from umbel.server.http1.request_body import Body, BodyError
from umbel.server.http1.request_head import HeadReader
from umbel.server.http2 import request_head as h2_request_head
from umbel.server.http2.encoder import LinearEncoder
from umbel.server.limits.server_limits import Limits
from umbel.server.response.response_head import read_fields
from umbel.server.websocket.handshake import read_opening_handshake
from umbel.upstream.calls import retry_safety
from umbel.upstream.calls.response_body import Decoder
from umbel.upstream.pool.request_head import encode_call, encode_plain_call


class Case(NamedTuple):
    """A function and the parts of its inputs; see ``adversarial.texts_of_atoms``."""

    function: Callable[[Any], object]
    atoms: Sequence[str]
    prefixes: Sequence[str] = ("",)
    suffixes: Sequence[str] = ("",)
    binary: bool = True

    @property
    def texts(self) -> list[PumpedText]:
        return texts_of_atoms(self.atoms, self.prefixes, self.suffixes)


BOUNDLESS = Limits(max_head=2**20, max_target=2**20, max_fields=2**20)
COMPRESSION = Compression(Compress())
HOSTS = Hosts(())
READER = HeadReader(BOUNDLESS, HOSTS)
TRUST = Networks(["10.0.0.0/8"])


def _asking(value: bytes) -> PreparedRequest:
    """Make a call's request with this value in its target and in a field."""
    return PreparedRequest("GET", b"/" + value, ((b"a", b"a", value), ACCEPT_GZIP))


def _fields(name: bytes) -> Callable[[bytes], RequestFields]:
    return lambda value: RequestFields([(name, value), (b"host", b"a")])


def _media_type(value: bytes) -> None:
    bodies.check_media_type(RequestFields([(b"content-type", value)]), "json")


def _retry_after(value: str) -> object:
    text = value.encode("latin-1", "replace")
    return retry_safety.result_of(503, [(b"", b"retry-after", text), (b"", b"date", text)], None)


def _dripped(raw: bytes) -> None:
    """Parse an upstream's response head in pieces of 64 bytes."""
    part, line = bytearray(), 0
    for start in range(0, len(raw), 64):
        since = len(part)
        part += raw[start : start + 64]
        line = response_head.check_part(part, since, line)


def _dripped_request(raw: bytes) -> None:
    """Check a request head in pieces of 8 bytes, up to the default limit of a head."""
    reader = HeadReader(Limits(), HOSTS)
    for end in range(8, len(raw), 8):
        reader.check_part(raw[:end], end - 8)


def _gunzip(raw: bytes) -> bytes:
    coder = zlib.compressobj(wbits=31)
    decoder = Decoder(10**6, "gzip")
    decoder.feed(coder.compress(raw) + coder.flush())
    return decoder.end()


def _answer_fields(raw: bytes) -> None:
    """Read the response fields of an application, one field for every three bytes."""
    read_fields([(b"set-cookie", raw[start : start + 3]) for start in range(0, len(raw), 3)])


def _hpack(raw: bytes) -> bytes:
    return LinearEncoder().encode([(b"link", raw)])


def _opening(name: bytes, value: bytes, *, keyed: bool = False) -> None:
    with suppress(head_errors.HeadError):
        read_opening_handshake([(b"sec-websocket-version", b"13"), (b"sec-websocket-" + name, value)], keyed=keyed)


def _chunks(raw: bytes) -> None:
    with suppress(BodyError):
        Body(-1, Limits(max_head=2**20)).feed(raw)
    chunked.ChunkedDecoder(2**20, 100).feed(raw, [])


EXPRESSIONS = [
    *("sort_by(v, &@)", "sort(v)", "max_by(v, &@)", "join(',', v)", "join(v[0], v)", "contains(v, 'a')", "reverse(v)"),
    *("contains(v[0], 'a')", "v[?@ == 'a']", "v[].v[]", "map(&to_string(@), v)", "to_string(v)", "zip(v, v)"),
    *(
        "starts_with(v[0], 'a')",
        "ends_with(v[0], 'a')",
        "length(v[0])",
        "to_number(v[0])",
        "v[*].[@, @]",
        "v[?contains(@, 'a')]",
    ),
    *("lookup(v, 'a')", "merge(v[0], v[0])", "keys(v[0])", "values(v[0])", "v[::-1]", "not_null(v[0], v)", "type(v)"),
]


def _expression(text: str) -> Callable[[bytes], object]:
    compiled = compile_expression(text, ())

    def evaluate(body: bytes) -> object:
        with suppress(msgspec.MsgspecError):
            return compiled.evaluate({"v": msgspec.json.decode(body)})
        return None

    return evaluate


def _target(pattern: str) -> Callable[[str], object]:
    compiled = template.compile_target(pattern, lambda name: template.Variable(name, None, (name,), True))
    return lambda text: compiled.expand({}, {"a": text, "b": [text[:9]] * len(text)})


def _target_of_config(text: str) -> object:
    return template.compile_target(text, lambda name: template.Variable(name, None, (name,), True))


def _text_of_config(text: str) -> object:
    return template.compile_text(text, lambda name: template.Variable(name, None, (name,), True))


def _token(text: str) -> None:
    with suppress(BadTokenError):
        read_token(text[:TOKEN_MAX], ("ES256",), ("jwt",))


def _claims(raw: bytes) -> None:
    with suppress(BadTokenError):
        read_claims(raw)


def _claims_size(raw: bytes) -> None:
    estimated_size(raw, msgspec.json.decode(raw))


def _key_set(raw: bytes) -> None:
    with suppress(BadKeySetError):
        read_key_set(raw, ("ES256",), remote=True)


def _key_file(raw: bytes) -> None:
    with suppress(BadKeySetError):
        read_key_set(raw, ("ES256",), remote=False)


def _key_set_path(raw: bytes) -> None:
    with suppress(FetchError):
        key_set_path(raw, "i", {"https://i:443"})


def _field_token(text: str) -> object:
    return find_token(Presented({"authorization": text}, {}, b""), (HEADER,))


def _query_token(raw: bytes) -> object:
    return find_token(Presented({}, {}, raw), (Place("query", "t"),))


WORDS = ("a", "1", "-", ";", ",", "=", '"', "\\", " ", "\t", "/", "*", "q=", "\xe9")
JSON_ATOMS = ('"a",', "1,", "[],", "[", '{"a":1},', '"aaaa', "1.5,", "null,")

SERVER = {
    "the fields of an answer": Case(_answer_fields, ("a", "b")),
    "a field of an answer of HTTP/2": Case(_hpack, ("a", "\xff")),
    "a request line": Case(
        READER.read, ("a", "/", "%", "?", ":", " "), ("GET /", "GET http://", "G"), (" HTTP/1.1\r\nHost: a\r\n\r\n",)
    ),
    "a request's field": Case(
        READER.read,
        WORDS,
        tuple(
            f"GET / HTTP/1.1\r\nHost: a\r\n{name}:"
            for name in ("X", "Connection", "TE", "Expect", "Transfer-Encoding", "Cookie")
        ),
        ("\r\n\r\n",),
    ),
    "a request's fields": Case(
        READER.read,
        ("a: b\r\n", "a:\r\n", ":\r\n", " a\r\n", "connection: a\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n",),
        ("\r\n",),
    ),
    "a host": Case(lambda value: HOSTS.check([value], required=True), ("a", ".", "[", ":", "]", "1", "-")),
    "a head in pieces": Case(_dripped_request, ("a", "a: b\r\n", "\t", "\r\n", ":"), ("GET / HTTP/1.1\r\n", "GET /")),
    "a part of a head": Case(READER.check_part, ("a", "/", " ", "\r\n", "a: b\r\n", "\r", "\n"), ("", "GET /")),
    "a refused head": Case(lambda raw: head_errors.method_path_version(raw), ("a", " ", "/", "?", "\r\n")),
    "a head that is odd": Case(
        lambda raw: head_errors.read_unusual_target(raw, BOUNDLESS),
        ("a", "/", " ", ":", "a:b\r\n", "\r\n", "content-length ", "_"),
        ("GET http://", "GET / HTTP/1.1\r\n"),
        ("", " HTTP/1.1\r\n\r\n", "\r\n\r\n"),
    ),
    "a value of HTTP/2": Case(
        lambda value: h2_request_head.read_head(
            [(b":method", b"GET"), (b":path", b"/" + value), (b":authority", b"a"), (b"cookie", value)],
            BOUNDLESS,
            HOSTS,
        ),
        WORDS,
    ),
    "a key of a WebSocket": Case(lambda value: _opening(b"key", value, keyed=True), WORDS),
    "subprotocols of a WebSocket": Case(lambda value: _opening(b"protocol", value), WORDS),
    "extensions of a WebSocket": Case(lambda value: _opening(b"extensions", value), WORDS),
    "a chunked body": Case(
        _chunks,
        ("0", "1\r\na\r\n", ";", " ", "\r\n", "a: b\r\n", "0\r\n", "ff", "\r", ";a=b"),
        ("", "1", "0\r\n", "1;"),
    ),
}
GATEWAY = {
    "a path": Case(
        paths.check_path, ("/", "a", "%", "%41", "%2e", ".", "..", "//", "/.", "%e9", ";"), ("/", "http://")
    ),
    "a query": Case(
        lambda raw: (paths.check_query(raw), query.QueryRules({}, ["a", "A"]).read(raw)),
        ("a=b&", "&", "=", "%41", "%", "+", ";", "a"),
        ("", "a="),
    ),
    "a forwarded client certificate": Case(
        names_of_last_element, (*WORDS, "URI=a", "URI=a,", 'Subject="', "DNS=a;"), ("", "URI=", 'By="'), binary=False
    ),
    "a number in a query": Case(
        lambda text: [query._PARSERS[kind][0](text) for kind in ("float",)],
        ("1", ".", "e", "+", "0"),
        ("", "0.", "1e"),
        ("", "e5"),
        binary=False,
    ),
    "a form": Case(lambda raw: bodies.decode_body(raw, "form"), ("a=b&", "&", "=", "%41", "%e9", "+", "a")),
    "cookies": Case(lambda value: _fields(b"cookie")(value).cookies, WORDS),
    "a field that is repeated": Case(
        lambda value: RequestFields([(b"a", value[:640])] * (len(value) // 640)), ("a", ",")
    ),
    "a media type": Case(
        _media_type,
        (*WORDS, "; a=b", ';a="\\"', "*0=", "a*0*=utf-8''%41"),
        ("", "application/json;", "application/json; charset=", 'application/json; a="'),
    ),
    "accepted types": Case(
        lambda text: stream_form("text/event-stream," + text),
        (*WORDS, "a/b;q=0.5,", "text/event-stream,"),
        ("", 'a/b;c="', "a/b;q="),
        binary=False,
    ),
    "accepted codings": Case(
        lambda text: read_accept_encoding(text[:1000], ("zstd", "br", "gzip")),
        (*WORDS, "gzip;q=0.5,", "*;q=0,"),
        ("", "gzip;q="),
        binary=False,
    ),
    "conditions of coded responses": Case(
        lambda text: COMPRESSION.original_tags({"if-none-match": text, "if-match": text}, RequestFields([])),
        (*WORDS, '"a--gzip",', "--", '"'),
        binary=False,
    ),
    "a client's budget": Case(
        lambda text: client_timeout({"prefer": text, "x-envoy-upstream-rq-timeout-ms": text}),
        (*WORDS, "wait=1,"),
        ("", 'a="'),
        binary=False,
    ),
    "a request's id": Case(ids.request_id, ("a", "-", " "), binary=False),
    "a trace": Case(
        lambda text: ids.trace(f"00-{'1' * 32}-{'1' * 16}-01{text}", text),
        ("a", "=", ",", "-", " ", "0", "a=b,"),
        ("", "-"),
        binary=False,
    ),
    "forwarded addresses": Case(
        lambda value: origin_of(
            "10.0.0.1", [(b"x-forwarded-for", value), (b"via", value), (b"forwarded", value)], TRUST
        ).forwarded_for(),
        ("10.0.0.1,", "::", ",", "1", ".", ":", "a", " ", "[", "10.0.0.1", "%"),
        ("", "::", "10.0.0.1,"),
        ("", "10.0.0.1"),
    ),
    "members of Forwarded": Case(
        lambda value: origin_of("10.0.0.1", [(b"forwarded", value)], TRUST).client,
        (",", ";", '"', "\\", '\\"', "a", " ", "for=10.0.0.1,", 'for="10.0.0.1",', 'a=",",', "a=b;", 'b="";'),
        ("", 'a="'),
        ("", '"', ";for=10.0.0.1"),
    ),
}
UPSTREAM = {
    "a response's head": Case(
        response_head.head_of,
        (*WORDS, "\r\na: b", "\r\n", "\r\nconnection: a", "\r\nproxy-a: b"),
        ("HTTP/1.1 200 ", "HTTP/1.1 200 OK\r\na:", "HTTP/1.1 200 OK\r\nconnection: "),
    ),
    "a response's head in pieces": Case(
        _dripped, ("a", "\r\n", "a: b\r\n", " "), ("HTTP/1.1 200 ", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\na:")
    ),
    "a time to retry after": Case(
        _retry_after,
        ("1", " ", "Sun, 06 Nov 1994 08:49:37 GMT", ",", "-", ":", "+", "Mon", "(", ".", "a"),
        ("", "Sun, 06 Nov 1994 ", "1 "),
        binary=False,
    ),
    "cache rules": Case(
        lambda text: (
            strictest_cache_control([[("cache-control", text), ("age", text)]]),
            coalescing_key.is_private([(b"Cache-Control", b"cache-control", text.encode("latin-1"))]),
        ),
        ("max-age=1,", "private", ",", " ", "=", '"', "1", "a", "s-maxage"),
        ("", "private", "max-age="),
        binary=False,
    ),
    "a via": Case(coalescing_key.last_hop, (",", " ", "a")),
    "a name that may be secret": Case(may_be_secret, ("auth", "a", "secre", "s", "-")),
    "a gzip body": Case(_gunzip, ("a", "\x00", "ab")),
    "a plain request": Case(lambda value: encode_plain_call(_asking(value), b"", b"h", b"", ()), ("a", "/", "?")),
    "any request": Case(lambda value: encode_call(_asking(value), b"", b"h", ()), ("a", "/", "?")),
}
COMPOSITION = {
    "JSON": Case(decode_json, JSON_ATOMS, ("", "[", '["'), ("", "1]")),
    "a segment of a path": Case(_target("/x/{a}"), ("a", "/", "é", "%", ".", "\u20ac"), binary=False),
    "a value of a query": Case(_target("/x{?a,b}"), ("a", "&", "é", "%", "\ud800"), binary=False),
    "a list of a query": Case(lambda text: template.query_pairs("a", [*text], client=True), ("a", "é"), binary=False),
    "a header's value": Case(raw_value, ("a", "\x00", "é", "€", " "), binary=False),
    "the text of a header's value": Case(text_of, ("a", "\xc3\xa9", "\xe9", "\xc3"), binary=False),
    "a text for a header": Case(fits_field, ("a", "\x00", "é", "€", "\ud800", "\t"), binary=False),
    "a form that is sent": Case(
        lambda text: encode_form({"a": text, "b": [*text]}, lambda name: True), ("a", "é", "&"), binary=False
    ),
    "a path from code": Case(
        lambda text: build_target(text, None, ()), ("a", "/", "..", "%2e", "/.", "?"), ("/", "/a?"), binary=False
    ),
    **{
        f"the expression {text}": Case(_expression(text), JSON_ATOMS, ("[", '["', "{"), ("1]", '"]', ""))
        for text in EXPRESSIONS
    },
}
CONFIG = {
    "a duration": Case(units.parse_duration, ("1", ".", "s", "m", " "), ("", "1."), binary=False),
    "a size": Case(units.parse_size, ("1", ".", "B", "KiB"), binary=False),
    "variables": Case(
        lambda text: variables.Variables({"A": "b"}).replace(text),
        ("${", "${A", "${A:-", "}", "$${", "$", "A", "${A}"),
        binary=False,
    ),
    "certificates": Case(
        certificates.expiry_dates,
        ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "-", "A", "\n"),
        binary=False,
    ),
    "a target's template": Case(
        _target_of_config, ("{", "}", "{a}", "a", "/", "?", "&", "{?a}", ",", "."), ("/", "/x{?a", "/{"), binary=False
    ),
    "a header's template": Case(_text_of_config, ("{", "}", "{a}", "a", ",", "{?"), binary=False),
    "a name that is almost known": Case(
        lambda text: nearest(text, ("max_body", "timeout")), ("a", "max_body", "_"), binary=False
    ),
}
AUTH = {
    "a token": Case(
        _token, ("a", ".", "=", "\xe9", "eyJhbGciOiJFUzI1NiJ9."), ("", "a.", "eyJhbGciOiJFUzI1NiJ9."), binary=False
    ),
    "the claims of a token": Case(_claims, JSON_ATOMS, ("[", '{"a":[', '{"a":"'), ("1]", "1]}", '"}')),
    "the size of claims": Case(_claims_size, ("1,", "[],", '{"a":1},'), ('{"a":[',), ("1]}",)),
    "a key set": Case(_key_set, JSON_ATOMS, ('{"keys":[',), ("1]}",)),
    "a file of keys": Case(
        _key_file, ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----", "-----BEGIN A-----", "-", "A", "\n")
    ),
    "an openid-configuration": Case(_key_set_path, ("a", "/", "%", "@", "?"), ('{"issuer":"i","jwks_uri":"',), ('"}',)),
    "a field with a token": Case(_field_token, ("a", ", ", "Bearer ", " ", "\t"), ("", "Bearer "), binary=False),
    "a query with a token": Case(_query_token, ("a", "&", "=", "%74", "%", "t=a&"), ("", "t=")),
}
CASES = {**SERVER, **GATEWAY, **UPSTREAM, **COMPOSITION, **CONFIG, **AUTH}
