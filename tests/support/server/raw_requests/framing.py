"""Framing of request bodies (RFC 9112 sections 6 and 7): an ambiguous length is an error and ends the connection."""

from __future__ import annotations

from .case import CLOSE, HOST, JSON, MAX_BODY, Case, Table, chunked, head, post, refused, served

_GOOD = b"2\r\n{}\r\n0\r\n\r\n"
_COUNTED = b"Content-Length: 2"
_CHUNKED = b"Transfer-Encoding: chunked"


def _length(value: bytes, body: bytes = b"{}") -> bytes:
    return post(b"Content-Length: " + value, body=body)


def _coding(value: bytes) -> bytes:
    return post(b"Transfer-Encoding: " + value, body=_GOOD)


LENGTHS: Table = {
    "a length twice, the same": refused(400, post(_COUNTED, _COUNTED, body=b"{}")),
    "a length twice, different": refused(400, post(_COUNTED, b"Content-Length: 3", body=b"{} ")),
    "a length as a list": refused(400, _length(b"2, 2")),
    "a length as a list of different ones": refused(400, _length(b"2,3")),
    "a negative length": refused(400, _length(b"-2")),
    "a signed length": refused(400, _length(b"+2")),
    "a length in hex": refused(400, _length(b"0x2")),
    "a length with an underscore": refused(400, _length(b"1_0", b"{}" + b" " * 8)),
    "a length with a fraction": refused(400, _length(b"2.0")),
    "a length of two words": refused(400, _length(b"2 2")),
    "an empty length": refused(400, _length(b"")),
    "a length that is a word": refused(400, _length(b"two")),
    "a length in other digits": refused(400, _length("٢".encode())),
    "a length of thirty digits": refused(400, _length(b"9" * 30)),
    "a length over 64 bits": refused(400, _length(b"18446744073709551618")),
    "a length with trailing garbage": refused(400, _length(b"2;")),
    "a length of 64 bits": refused(413, _length(b"9223372036854775807")),
    "a length over the limit": refused(413, _length(b"%d" % (MAX_BODY + 1), b"")),
    "a length at the limit": served(_length(b"%d" % MAX_BODY, b"{}".ljust(MAX_BODY))),
    "a length with zeros before it": served(_length(b"0002")),
    "a length with space around it": served(_length(b"  2 \t")),
    "a length of zero": served(
        post(b"Content-Length: 0"), 400
    ),  # Sound framing; the route refuses an empty body as JSON.
}

CODINGS: Table = {
    "a length, then a coding": refused(400, post(_COUNTED, _CHUNKED, body=_GOOD)),
    "a coding, then a length": refused(400, post(_CHUNKED, _COUNTED, body=_GOOD)),
    "a coding and a length of zero": refused(400, post(_CHUNKED, b"Content-Length: 0", body=_GOOD)),
    "a coding twice": refused(400, post(_CHUNKED, _CHUNKED, body=_GOOD)),
    "chunked twice in one field": refused(400, _coding(b"chunked, chunked")),
    "two fields of codings": refused(400, post(b"Transfer-Encoding: gzip", _CHUNKED, body=_GOOD)),
    "a coding in HTTP/1.0": refused(400, head(HOST, JSON, _CHUNKED, line=b"POST /echo HTTP/1.0") + _GOOD),
    "a coding with a space before the colon": refused(400, post(b"Transfer-Encoding : chunked", body=_GOOD)),
    "a coding with a tab before the colon": refused(400, post(b"Transfer-Encoding\t: chunked", body=_GOOD)),
    "a coding after a vertical tab": refused(400, _coding(b"\x0bchunked")),
    "a coding on a folded line": refused(400, _coding(b"\r\n chunked")),
    "the coding gzip": refused(501, _coding(b"gzip")),
    "gzip under chunked": refused(501, _coding(b"gzip, chunked")),
    "the coding identity": refused(501, _coding(b"identity")),
    "a coding that only ends like chunked": refused(501, _coding(b"xchunked")),
    "a coding in quotes": refused(501, _coding(b'"chunked"')),
    "a coding in capitals": served(_coding(b"Chunked")),
}

CHUNKS: Table = {
    "a chunk size that is no hex": refused(400, chunked(b"zz\r\n{}\r\n0\r\n\r\n")),
    "a chunk size with 0x": refused(400, chunked(b"0x2\r\n{}\r\n0\r\n\r\n")),
    "a chunk size with a sign": refused(400, chunked(b"+2\r\n{}\r\n0\r\n\r\n")),
    "a negative chunk size": refused(400, chunked(b"-2\r\n{}\r\n0\r\n\r\n")),
    "an empty chunk size": refused(400, chunked(b"\r\n{}\r\n0\r\n\r\n")),
    "a chunk size with an underscore": refused(400, chunked(b"1_0\r\n" + b"{}".ljust(16) + b"\r\n0\r\n\r\n")),
    "a chunk size of seventeen digits": refused(400, chunked(b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n")),
    "a chunk size with a space before it": refused(400, chunked(b" 2\r\n{}\r\n0\r\n\r\n")),
    "a bare LF after a chunk size": refused(400, chunked(b"2\n{}\r\n0\r\n\r\n")),
    "a bare LF after a chunk": refused(400, chunked(b"2\r\n{}\n0\r\n\r\n")),
    "a bare LF after the last chunk": refused(400, chunked(b"2\r\n{}\r\n0\n\r\n")),
    "a bare LF at the end of the chunks": refused(400, chunked(b"2\r\n{}\r\n0\r\n\n")),
    "a bare CR after a chunk size": refused(400, chunked(b"2\r{}\r\n0\r\n\r\n")),
    "a chunk longer than its size": refused(400, chunked(b"2\r\n{}{}\r\n0\r\n\r\n")),
    "a chunk shorter than its size": refused(400, chunked(b"9\r\n{}\r\n0\r\n\r\n" + b"x" * 9)),
    "a chunk extension over 1 KiB": refused(400, chunked(b"2;a=" + b"x" * 1100 + b"\r\n{}\r\n0\r\n\r\n")),
    "chunk extensions without end": refused(400, chunked(b"2;a=" + b"x" * 65_536)),
    "a chunk extension with a bare LF": refused(400, chunked(b"2;a\nb\r\n{}\r\n0\r\n\r\n")),
    "a chunk extension with a control character": refused(400, chunked(b"2;a=\x01\r\n{}\r\n0\r\n\r\n")),
    "a bare LF in a trailer": refused(400, chunked(b"2\r\n{}\r\n0\r\nX-T: 1\n\r\n")),
    "a trailer without a colon": refused(400, chunked(b"2\r\n{}\r\n0\r\ntrailer\r\n\r\n")),
    "trailers over the limit of a head": refused(431, chunked(b"2\r\n{}\r\n0\r\nX-T: " + b"x" * 20_000 + b"\r\n\r\n")),
    "more trailers than a head has fields": refused(431, chunked(b"2\r\n{}\r\n0\r\n" + b"X-T: 1\r\n" * 101 + b"\r\n")),
    "chunks over the limit": refused(413, chunked(b"%x\r\n" % (MAX_BODY + 1) + bytes(MAX_BODY + 1) + b"\r\n0\r\n\r\n")),
    "many chunks over the limit": refused(413, chunked(b"400\r\n%s\r\n" % bytes(1024) * 100 + b"0\r\n\r\n")),
    "a short chunk extension": served(chunked(b'2;a=1;b="x"\r\n{}\r\n0\r\n\r\n')),
    "a trailer": served(chunked(b"2\r\n{}\r\n0\r\nX-T: 1\r\n\r\n")),
    "a last chunk of several zeros": served(chunked(b"2\r\n{}\r\n000\r\n\r\n")),
    "a chunk for each byte": served(chunked(b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")),
}

CONTINUES: Table = {
    "100-continue": served(post(_COUNTED, b"Expect: 100-continue", body=b"{}")),
    "100-continue in capitals": served(post(_COUNTED, b"Expect: 100-Continue", body=b"{}")),
    "100-continue without a body": Case(head(HOST, b"Expect: 100-continue", CLOSE), (200,)),
    "100-continue before a length over the limit": refused(
        413, post(b"Content-Length: %d" % (MAX_BODY + 1), b"Expect: 100-continue")
    ),
    "another expectation": refused(417, post(_COUNTED, b"Expect: a-miracle", body=b"{}")),
    "another expectation beside 100-continue": refused(
        417, post(_COUNTED, b"Expect: 100-continue, a-miracle", body=b"{}")
    ),
}
