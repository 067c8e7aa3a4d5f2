"""curl through a proxy route: uploads with and without length, Expect, ranges, resumed downloads, large files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.external.curl.upstream import serving_files
from tests.external.proxied_process import proxy_config
from tests.support.process.launched_workers import launched

PARTIAL_FILE, HTTP2_STREAM_ERROR = 18, 92
"""curl's exit statuses for a response that ends too early."""
FLAVOURS = pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
LARGE = 100_000_000


class Site(NamedTuple):
    """A gateway with the upstream's files behind it."""

    base: str
    files: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    files, gateway = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("gateway")
    (files / "small").write_bytes(bytes(range(256)) * 400)
    block = os.urandom(1_000_000)
    with (files / "large").open("wb") as large:
        for number in range(LARGE // len(block)):
            large.write(number.to_bytes(8, "big") + block[8:])
    with serving_files(files) as upstream, launched("umbel serve", gateway, proxy_config(upstream)) as server:
        yield Site(f"http://127.0.0.1:{server.port}", files)
        assert server.lives
    assert "Traceback" not in server.output


def run(*arguments: str | Path, stdin: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run curl to its end, with a file as its standard input."""
    with Path(stdin or os.devnull).open("rb") as given:
        return subprocess.run(
            ["curl", "-sS", *map(str, arguments)], stdin=given, capture_output=True, timeout=50, check=False
        )


def answer(*arguments: str | Path, stdin: Path | None = None) -> dict[str, Any]:
    """Run curl, which must succeed; return the response's JSON."""
    done = run("--fail", *arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def checksum(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@FLAVOURS
def test_an_upload_of_known_length_arrives_with_its_length(site: Site, version: str) -> None:
    file = site.files / "small"
    # The field keeps curl from asking with Expect, as it does for uploads.
    told = answer(version, "-H", "Expect:", "-T", file, f"{site.base}/new")
    assert told == {"size": 102_400, "sha256": checksum(file), "framing": "length", "expect": None}


@FLAVOURS
def test_an_upload_of_unknown_length_arrives_chunked(site: Site, version: str) -> None:
    file = site.files / "small"
    # The field keeps curl from asking with Expect, which it does for chunked bodies.
    told = answer(version, "-H", "Expect:", "-T", "-", f"{site.base}/new", stdin=file)
    assert told == {"size": 102_400, "sha256": checksum(file), "framing": "chunked", "expect": None}


@pytest.mark.parametrize("path", ["/new", "/silent"])
@pytest.mark.parametrize("length", [True, False])
def test_curl_is_told_to_send_its_body_if_the_upstream_says_100_or_nothing(
    site: Site, path: str, length: bool, tmp_path: Path
) -> None:
    file = site.files / "small"
    # curl waits longer than the test may take, so that it sends the body only because of the 100.
    asked = ["--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout", "100", "-D", tmp_path / "head"]
    told = answer(*asked, "-T", file if length else "-", f"{site.base}{path}", stdin=None if length else file)
    framing = "length" if length else "chunked"
    assert told == {"size": 102_400, "sha256": checksum(file), "framing": framing, "expect": "100-continue"}
    assert re.findall(r"^HTTP/1.1 (\d+)", (tmp_path / "head").read_text(), re.MULTILINE) == ["100", "200"]


@pytest.mark.parametrize("length", [True, False])
def test_an_upload_that_the_upstream_refuses_is_not_sent(site: Site, length: bool) -> None:
    file = site.files / "small"
    asked = [
        "--http1.1",
        "-H",
        "Expect: 100-continue",
        "--expect100-timeout",
        "100",
        "-w",
        "%{http_code} %{size_upload}",
    ]
    done = run(*asked, "-T", file if length else "-", f"{site.base}/refuses", stdin=None if length else file)
    assert (done.returncode, done.stdout) == (0, b"no403 0")


@FLAVOURS
@pytest.mark.parametrize(
    ("wished", "got"), [("10-19", slice(10, 20)), ("-7", slice(-7, None)), ("102390-", slice(102_390, None))]
)
def test_a_range_of_a_file_is_passed_on(site: Site, version: str, wished: str, got: slice) -> None:
    done = run(version, "-r", wished, "-w", "%{stderr}%{http_code} %header{etag}", f"{site.base}/small")
    assert done.stdout == (site.files / "small").read_bytes()[got]
    assert done.stderr == b'206 "one"'


@FLAVOURS
def test_a_range_behind_the_end_gives_416(site: Site, version: str) -> None:
    done = run(version, "-r", "200000-", "-w", "%{http_code} %header{content-range}", f"{site.base}/small")
    assert done.stdout == b"416 bytes */102400"


@FLAVOURS
def test_a_download_that_broke_off_is_resumed(site: Site, version: str, tmp_path: Path) -> None:
    got, url = tmp_path / "got", f"{site.base}/breaks-off/small"
    first = run(version, "-o", got, url)
    assert first.returncode in (PARTIAL_FILE, HTTP2_STREAM_ERROR), first.stderr
    assert got.stat().st_size == 51_200
    second = run(version, "-C", "-", "-w", "%{http_code} %{size_download}", "-o", got, url)
    assert (second.returncode, second.stdout) == (0, b"206 51200")
    assert got.read_bytes() == (site.files / "small").read_bytes()


@FLAVOURS
def test_head_gives_the_length_without_the_body(site: Site, version: str) -> None:
    done = run(version, "-I", "-w", "%{http_code} %{size_download}", f"{site.base}/small")
    head = done.stdout.decode().lower()
    assert "content-length: 102400\r\n" in head
    assert head.endswith("200 0")


@FLAVOURS
@pytest.mark.parametrize("coded", [True, False])
def test_a_compressed_body_is_passed_on_as_it_is(site: Site, version: str, coded: bool) -> None:
    wished = ["--compressed"] if coded else []
    done = run(version, *wished, "-w", "%{stderr}%{size_download} %header{content-encoding}", f"{site.base}/coded")
    assert done.stdout == b"text " * 1000
    size, _, coding = done.stderr.decode().partition(" ")
    assert (int(size) < 500, coding) == ((True, "gzip") if coded else (False, ""))


@FLAVOURS
def test_a_large_file_goes_up_and_comes_down_unchanged(site: Site, version: str, tmp_path: Path) -> None:
    file, got = site.files / "large", tmp_path / "got"
    expected = checksum(file)
    assert answer(version, "-T", file, f"{site.base}/new")["sha256"] == expected
    if version == "--http1.1":  # HTTP/2 has one framing.
        assert answer(version, "-T", "-", f"{site.base}/new", stdin=file)["sha256"] == expected
    done = run(version, "-o", got, f"{site.base}/large")
    assert done.returncode == 0, done.stderr
    assert (got.stat().st_size, checksum(got)) == (LARGE, expected)
