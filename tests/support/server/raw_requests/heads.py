"""Request heads (RFC 9112 sections 2 to 5, RFC 9110 section 7.2): lines, version, host, size."""

from __future__ import annotations

from .case import CLOSE, HOST, Case, Table, get, head, refused, served

_TARGET_MAX = 8192
_FIELDS_MAX = 100
_HEAD_MAX = 16 * 1024


def _line(line: bytes) -> bytes:
    return head(HOST, line=line)


def _host(value: bytes) -> bytes:
    return head(b"Host: " + value)


SIZES: Table = {
    "one field over 16 KiB": refused(431, get(b"X-A: " + b"x" * _HEAD_MAX)),
    "many fields over 16 KiB": refused(431, get(*(b"X-%d: " % n + b"x" * 800 for n in range(40)))),
    "a field name over 16 KiB": refused(431, get(b"x" * _HEAD_MAX + b": 1")),
    "a field without end": Case(b"GET /r HTTP/1.1\r\n" + HOST + b"\r\nX-A: " + b"x" * 100_000, (431,)),
    "101 fields": refused(431, get(*(b"X-%d: 1" % n for n in range(_FIELDS_MAX)))),
    "100 fields": served(get(*(b"X-%d: 1" % n for n in range(_FIELDS_MAX - 1)))),
    "a target over 8 KiB": refused(414, get(target=b"/" + b"x" * _TARGET_MAX)),
    "a target without end": Case(b"GET /" + b"x" * 100_000, (414,)),
    "a query over 8 KiB": refused(414, get(target=b"/r?a=" + b"x" * _TARGET_MAX)),
    "a target of 8 KiB": served(get(target=b"/r?".ljust(_TARGET_MAX, b"x"))),
    "a field of 8,000 bytes": served(get(b"X-A: " + b"x" * 8000)),
}

LINES: Table = {
    "bare LF everywhere": refused(400, get().replace(b"\r\n", b"\n")),
    "a bare LF after the request line": refused(400, get().replace(b"\r\n", b"\n", 1)),
    "a bare LF after a field": refused(400, b"GET /r HTTP/1.1\r\n" + HOST + b"\nX-A: 1\r\n\r\n"),
    "a bare LF for the empty line": refused(400, b"GET /r HTTP/1.1\r\n" + HOST + b"\r\n\n"),
    "a bare CR in a value": refused(400, get(b"X-A: 1\rX-B: 2")),
    "a bare CR after the request line": refused(400, get().replace(b"\r\n", b"\r", 1)),
    "a field folded with a space": refused(400, get(b"X-A: 1\r\n 2")),
    "a field folded with a tab": refused(400, get(b"X-A: 1\r\n\t2")),
    "a first field that is folded": refused(400, head(b" X-A: 1", HOST)),
    "NUL in a value": refused(400, get(b"X-A: a\x00b")),
    "a control character in a value": refused(400, get(b"X-A: a\x01b")),
    "backspace in a value": refused(400, get(b"X-A: a\x08b")),
    "a vertical tab in a value": refused(400, get(b"X-A: a\x0bb")),
    "escape in a value": refused(400, get(b"X-A: a\x1b[0m")),
    "DEL in a value": refused(400, get(b"X-A: a\x7fb")),
    "a space before the colon": refused(400, get(b"X-A : 1")),
    "a tab before the colon": refused(400, get(b"X-A\t: 1")),
    "no colon": refused(400, get(b"X-A")),
    "an empty field name": refused(400, get(b": 1")),
    "a space in a field name": refused(400, get(b"X A: 1")),
    "a bracket in a field name": refused(400, get(b"X(A): 1")),
    "NUL in a field name": refused(400, get(b"X\x00A: 1")),
    "a field name that is not ASCII": refused(400, get(b"X-\xff: 1")),
    "an underscore in a field name": refused(400, get(b"X_Forwarded_For: 1")),
    "a tab in a value": served(get(b"X-A: a\tb")),
    "an empty value": served(get(b"X-A:")),
    "bytes over 0x7f in a value": served(get(b"X-A: caf\xe9")),
    "one empty line before the request": served(b"\r\n" + get()),
}

REQUEST_LINES: Table = {
    "HTTP/0.9": refused(505, _line(b"GET /r HTTP/0.9")),
    "HTTP/1.2": refused(505, _line(b"GET /r HTTP/1.2")),
    "HTTP/2.0": refused(505, _line(b"GET /r HTTP/2.0")),
    "HTTP/3.0": refused(505, _line(b"GET /r HTTP/3.0")),
    "HTTP/9.9": refused(505, _line(b"GET /r HTTP/9.9")),
    "no version": refused(400, _line(b"GET /r")),
    "a version of two digits": refused(400, _line(b"GET /r HTTP/1.10")),
    "a version without a dot": refused(400, _line(b"GET /r HTTP/11")),
    "a version in small letters": refused(400, _line(b"GET /r http/1.1")),
    "another protocol": refused(400, _line(b"GET /r RTSP/1.0")),
    "a word after the version": refused(400, _line(b"GET /r HTTP/1.1 x")),
    "a space after the version": refused(400, _line(b"GET /r HTTP/1.1 ")),
    "two spaces before the target": refused(400, _line(b"GET  /r HTTP/1.1")),
    "two spaces after the target": refused(400, _line(b"GET /r  HTTP/1.1")),
    "tabs for spaces": refused(400, _line(b"GET\t/r\tHTTP/1.1")),
    "a space before the method": refused(400, _line(b" GET /r HTTP/1.1")),
    "no target": refused(400, _line(b"GET HTTP/1.1")),
    "a method in brackets": refused(400, _line(b"G(T /r HTTP/1.1")),
    "a method that is not ASCII": refused(400, _line(b"G\xcbT /r HTTP/1.1")),
    "a TLS handshake": Case(bytes.fromhex("16030100c8010000c40303") + bytes(100), (400,)),
    "the preface of HTTP/2 with another version": refused(400, b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n"),
    "NUL bytes": Case(bytes(64), (400,)),
}

HOSTS: Table = {
    "no Host": refused(400, head()),
    "two Hosts": refused(400, head(HOST, HOST)),
    "two Hosts that differ": refused(400, head(HOST, b"Host: evil.test")),
    "an empty Host": refused(400, _host(b"")),
    "a Host with a slash": refused(400, _host(b"gateway.test/x")),
    "a Host with a question mark": refused(400, _host(b"gateway.test?x")),
    "a Host with an at sign": refused(400, _host(b"user@gateway.test")),
    "a Host with a number sign": refused(400, _host(b"gateway.test#x")),
    "a Host with a backslash": refused(400, _host(b"gateway.test\\x")),
    "a Host with a space": refused(400, _host(b"gateway.test x")),
    "a Host with a comma": refused(400, _host(b"gateway.test, evil.test")),
    "a Host that is not ASCII": refused(400, _host(b"gateway.t\xffst")),
    "a Host with a percent sign": refused(400, _host(b"gateway%2etest")),
    "a Host whose port is a word": refused(400, _host(b"gateway.test:http")),
    "a Host whose port is out of range": refused(400, _host(b"gateway.test:99999")),
    "a Host with half a bracket": refused(400, _host(b"[::1")),
    "an unknown Host": refused(421, _host(b"evil.test")),
    "an unknown address": refused(421, _host(b"[::1]:80")),
    "an absolute target unequal to the Host": refused(400, get(target=b"http://evil.test/r")),
    "an absolute target with user information": refused(400, get(target=b"http://user@gateway.test/r")),
    "an absolute target of another scheme": refused(400, get(target=b"ftp://gateway.test/r")),
    "an absolute target without a host": refused(400, get(target=b"http:///r")),
    "an absolute target without a Host": refused(400, head(line=b"GET http://gateway.test/r HTTP/1.1")),
    "an absolute target equal to the Host": served(get(target=b"http://gateway.test/r")),
    "a Host in capitals": served(head(b"host: GATEWAY.test")),
    "a Host with a port": served(head(b"Host: gateway.test:80")),
    "a request of HTTP/1.0 without a Host": Case(head(line=b"GET /livez HTTP/1.0"), (200,)),
    "a request of HTTP/1.0": Case(head(HOST, line=b"GET /r HTTP/1.0"), (200,)),
}

_BOTH = b"Connection: Upgrade, HTTP2-Settings"

UPGRADES: Table = {
    "an upgrade to h2c": served(get(_BOTH, b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")),
    "an upgrade to h2c with odd settings": served(get(_BOTH, b"Upgrade: h2c", b"HTTP2-Settings: \xff!")),
    "an upgrade to h2c without settings": served(get(b"Connection: Upgrade", b"Upgrade: h2c")),
    "an upgrade to something else": served(get(b"Connection: Upgrade", b"Upgrade: TLS/1.3")),
}

METHODS: Table = {
    "a method in small letters": refused(501, _line(b"get /r HTTP/1.1")),
    "an unknown method": refused(501, _line(b"BREW /r HTTP/1.1")),
    "a method that the route does not have": served(_line(b"DELETE /r HTTP/1.1"), 405),
    "CONNECT": refused(501, head(b"Host: gateway.test:443", line=b"CONNECT gateway.test:443 HTTP/1.1")),
    "OPTIONS of a route": served(_line(b"OPTIONS /r HTTP/1.1"), 204),
    "an asterisk with GET": served(_line(b"GET * HTTP/1.1"), 400),
}

PIPELINES: Table = {
    "two requests": Case(get() + get(CLOSE), (200, 200)),
    "five requests of different answers": Case(
        get() + get(target=b"/none") + get() + get(target=b"/livez") + get(CLOSE), (200, 404, 200, 200, 200)
    ),
    "a good one, then a bad one": Case(get() + get(b"X A: 1") + get(), (200, 400)),
    "a good one, then half a one": Case(get(CLOSE) + b"GET /r HT", (200,)),
    "what follows Connection: close": Case(get(CLOSE) + get(), (200,)),
    "Connection: close among others": Case(get(b"Connection: x-a, Close") + get(), (200,)),
}
