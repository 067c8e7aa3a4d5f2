"""Compression of random responses for random requests: content, fields and tags always fit each other."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.config.schema.compress import Compress
from umbel.core.http.compressors import library
from umbel.gateway.browsers.compression import Compression, WholeResponse
from umbel.gateway.request.request_fields import RequestFields

COMPRESSION = Compression(Compress(min="100B"))
DECODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.decompress,
    b"br": lambda data: bytes(library("br").decompress(data)),
    b"zstd": lambda data: bytes(library("zstd").decompress(data)),
}
ACCEPTED = st.lists(
    st.sampled_from(["gzip", "br;q=0.5", "zstd;q=0", "identity;q=0", "*", "*;q=0", "identity", "x;q", "deflate"]),
    max_size=4,
).map(", ".join)
BODIES = st.one_of(st.binary(max_size=200), st.integers(1, 3000).map(lambda count: b"umbel " * count))
CONDITIONS = st.sampled_from(["", '"v"', '"v--gzip"', 'W/"v--br", "x"', '"w--zstd"', "*"])
OPTIONAL = {
    b"etag": st.sampled_from([b'"v"', b'W/"v"', b'"v--gzip"']),
    b"vary": st.sampled_from([b"Accept", b"*", b"accept-encoding, x", b""]),
    b"cache-control": st.sampled_from([b"max-age=1", b"no-transform"]),
    b"content-encoding": st.just(b"x"),
}


@st.composite
def responses(draw: st.DrawFn) -> WholeResponse:
    body = draw(BODIES)
    fields = [(b"content-type", draw(st.sampled_from([b"text/plain", b"image/png", b"application/json; a=b"])))]
    fields += [(name, draw(values)) for name, values in OPTIONAL.items() if draw(st.booleans())]
    fields.append((b"content-length", b"%d" % len(body)))
    return WholeResponse(draw(st.sampled_from([200, 201, 206, 404])), fields, body)


def apply(accept: str, condition: str, whole: WholeResponse) -> WholeResponse:
    asked = RequestFields(
        [
            (name, value.encode())
            for name, value in ((b"accept-encoding", accept), (b"if-none-match", condition))
            if value
        ]
    )

    async def run() -> WholeResponse:
        return await COMPRESSION.apply(asked, "GET", WholeResponse(whole.status, list(whole.fields), whole.body))

    return trio.run(run)


@given(ACCEPTED, CONDITIONS, responses())
@settings(max_examples=150)
def test_the_response_fits_the_request_and_its_fields_fit_its_content(
    accept: str, condition: str, whole: WholeResponse
) -> None:
    before, result = dict(whole.fields), apply(accept, condition, whole)
    fields = dict(result.fields)
    assert len(fields) == len(result.fields)
    coding = fields.get(b"content-encoding")
    permitted = (
        bool(whole.body)
        and before[b"content-type"] != b"image/png"
        and before.get(b"cache-control") != b"no-transform"
        and b"content-encoding" not in before
    )
    if not permitted:
        assert result == whole
        return
    assert b"*" in fields[b"vary"] or b"accept-encoding" in fields[b"vary"].lower()
    assert whole.status != 206 or result.body == whole.body
    if result.status == 304 != whole.status:
        assert whole.status == 200
        assert result.body == b""
        tag = fields[b"etag"].decode()
        assert tag in condition
        assert tag.partition("--")[0] + '"' == before[b"etag"].decode() or tag == before[b"etag"].decode()
        return
    assert result.status == whole.status
    assert fields[b"content-length"] == b"%d" % len(result.body)
    if coding is None:
        assert (result.body, fields.get(b"etag")) == (whole.body, before.get(b"etag"))
        return
    assert DECODERS[coding](result.body) == whole.body
    assert coding.decode() in accept or "*" in accept
    assert "identity;q=0" in accept or "*;q=0" in accept or len(result.body) < len(whole.body)
    tag_before = before.get(b"etag", b"")
    expected = tag_before[:-1] + b"--" + coding + b'"' if tag_before.startswith(b'"') else tag_before
    assert fields.get(b"etag", b"") == expected
