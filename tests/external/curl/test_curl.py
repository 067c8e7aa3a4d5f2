"""curl against the server, with each version of HTTP that curl supports."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from tests.external.conftest import Target, output

FLAVOURS = {
    # curl's options, whether TLS is used, and the HTTP version of the response.
    "HTTP/1.1": (["--http1.1"], False, "1.1"),
    "HTTP/1.0": (["--http1.0"], False, "1.1"),
    "HTTP/1.1 over TLS": (["--http1.1"], True, "1.1"),
    "HTTP/2 with prior knowledge": (["--http2-prior-knowledge"], False, "2"),
    "HTTP/2 by ALPN": (["--http2"], True, "2"),
    "HTTP/2 by Upgrade, which is ignored": (["--http2"], False, "1.1"),
}
CASES = pytest.mark.parametrize("flavour", FLAVOURS)
CASES_SINCE_1_1 = pytest.mark.parametrize("flavour", [each for each in FLAVOURS if each != "HTTP/1.0"])


def curl(target: Target, flavour: str, *arguments: str) -> str:
    """Run curl and return one line per response: status, HTTP version, number of new connections."""
    options, secure, _ = FLAVOURS[flavour]
    base = target.secure if secure else target.plain
    written = "%{http_code} %{http_version} %{num_connects}\n"
    ours = [each.replace("BASE", base) for each in arguments]
    return output(["curl", "-sS", "-w", written, "--cacert", str(target.ca), "-o", "/dev/null", *options, *ours])


@pytest.fixture
def body(tmp_path: Path) -> str:
    """A JSON file that is larger than one TCP segment."""
    path = tmp_path / "body.json"
    path.write_text('{"a": "' + "x" * 60_000 + '"}')
    return str(path)


@CASES
def test_get_is_answered(target: Target, flavour: str) -> None:
    assert curl(target, flavour, "BASE/r") == f"200 {FLAVOURS[flavour][2]} 1\n"


@CASES
def test_head_is_answered_without_a_body(target: Target, flavour: str) -> None:
    assert curl(target, flavour, "-I", "BASE/r") == f"200 {FLAVOURS[flavour][2]} 1\n"


@CASES
def test_post_with_expect_continue_is_answered(target: Target, flavour: str, body: str) -> None:
    sent = ["-H", "Content-Type: application/json", "-H", "Expect: 100-continue", "--data-binary", f"@{body}"]
    assert curl(target, flavour, *sent, "BASE/echo") == f"200 {FLAVOURS[flavour][2]} 1\n"


@CASES_SINCE_1_1
def test_post_of_unknown_length_is_answered(target: Target, flavour: str, body: str) -> None:
    sent = ["-H", "Content-Type: application/json", "-X", "POST", "-H", "Transfer-Encoding: chunked", "-T", body]
    assert curl(target, flavour, *sent, "BASE/echo") == f"200 {FLAVOURS[flavour][2]} 1\n"


@CASES_SINCE_1_1
def test_three_requests_go_over_one_connection(target: Target, flavour: str) -> None:
    found = re.match(r"curl (\d+)", output(["curl", "--version"]))
    assert found is not None
    if "prior" in flavour and int(found[1]) < 8:
        pytest.skip("curl before 8.0 cannot reuse a connection with prior knowledge (curl issue 10634)")
    version = FLAVOURS[flavour][2]
    three = ["BASE/r", "-o", "/dev/null", "BASE/nowhere", "-o", "/dev/null", "BASE/livez"]
    assert curl(target, flavour, *three) == f"200 {version} 1\n404 {version} 0\n200 {version} 0\n"


@CASES
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_coded_body_is_echoed_in_a_coding_that_curl_decodes(
    target: Target, flavour: str, coding: str, tmp_path: Path
) -> None:
    if coding not in output(["curl", "--version"]).replace("brotli", "br").replace("zlib", "gzip"):
        pytest.skip(f"this curl does not decode {coding}")
    coded = tmp_path / "body.json.gz"
    coded.write_bytes(gzip.compress(json.dumps([*range(10_000)]).encode()))
    sent = ["-H", "Content-Type: application/json", "-H", "Content-Encoding: gzip", "--data-binary", f"@{coded}"]
    options, secure, _ = FLAVOURS[flavour]
    base = target.secure if secure else target.plain
    got = tmp_path / "got"
    # The field replaces the one that --compressed sends.
    wished = ["--compressed", "-H", f"Accept-Encoding: {coding}", "-o", str(got), "-D", str(tmp_path / "head")]
    output(["curl", "-sS", "--cacert", str(target.ca), *options, *sent, *wished, f"{base}/echo"])
    assert json.loads(got.read_bytes()) == {"got": [*range(10_000)]}
    assert f"content-encoding: {coding}\n" in (tmp_path / "head").read_text().lower()
