"""The files of the console: which are served, with which fields, and that they fit together."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path, PurePosixPath

import pytest
import trio

from tests.unit.admin.test_connections import Source, serving
from umbel.admin.static_files import PREFIX, static_files

FOLDER = Path(str(files("umbel.admin"))) / "console"
POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"


async def ask(path: Path, target: str, method: str = "GET", **fields: str) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return the status, the header fields and the content of the response."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(f"{method} {target} HTTP/1.1\r\nhost: x\r\n{lines}connection: close\r\n\r\n".encode())
        received = b"".join([piece async for piece in stream])
    head, _, content = received.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in rest), content


@pytest.mark.parametrize(
    ("target", "content_type"),
    [
        ("/console/main.js", "text/javascript; charset=utf-8"),
        ("/console/views/tree.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ],
)
async def test_a_file_is_served_with_its_type_and_the_policy_for_scripts(
    target: str, content_type: str, tmp_path: Path
) -> None:
    async with serving(tmp_path, Source()) as path:
        status, fields, content = await ask(path, target)
        again, known, nothing = await ask(path, target, if_none_match=f'"other", W/{fields["etag"]}')
        changed, _, _ = await ask(path, target, if_none_match='"other"')
        _, _, head = await ask(path, target, method="HEAD")
    assert (status, fields["content-type"]) == (200, content_type)
    assert content == (FOLDER / target.removeprefix(PREFIX)).read_bytes()
    assert fields["content-security-policy"] == POLICY
    assert fields["x-content-type-options"] == "nosniff"
    assert fields["cross-origin-resource-policy"] == "same-origin"
    assert (again, nothing, known["etag"]) == (304, b"", fields["etag"])
    assert (changed, head) == (200, b"")


@pytest.mark.parametrize(
    "target",
    [
        "/console/",
        "/console/views",
        "/console/views/",
        "/console/README.md",
        "/console/nothing.js",
        "/console/../page.py",
        "/console/..%2fpage.py",
        "/console/%2e%2e/page.py",
        "/console/views/../main.js",
        "/console//main.js",
        "/console//etc/passwd",
        "/console/main.js%00",
        "/console/MAIN.JS",
    ],
)
async def test_no_other_path_leads_to_a_file(target: str, tmp_path: Path) -> None:
    async with serving(tmp_path, Source()) as path:
        status, _, content = await ask(path, target)
    assert status in (400, 404)
    assert b"import" not in content


async def test_a_file_is_only_read(tmp_path: Path) -> None:
    async with serving(tmp_path, Source()) as path:
        assert (await ask(path, "/console/main.js", method="POST"))[0] == 405


def test_every_file_but_the_readme_is_served() -> None:
    there = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert {path.removeprefix(PREFIX) for path in static_files()} == there - {"README.md"}


def test_modules_import_only_files_that_are_served() -> None:
    missing = []
    for name, file in static_files().items():
        for found in re.findall(rb'^import .* from "(.*)";$', file.content, re.MULTILINE):
            parts: list[str] = []
            for part in (PurePosixPath(name).parent / found.decode()).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            if str(PurePosixPath(*parts)) not in static_files():
                missing.append(f"{name} imports {found.decode()}")
    assert missing == []


@pytest.mark.parametrize("forbidden", [r"https?://(?!www\.w3\.org/2000/svg)", r"\.innerHTML", r"\beval\(", r" style="])
def test_no_file_loads_from_elsewhere_or_parses_texts_as_html(forbidden: str) -> None:
    pattern = re.compile(forbidden)
    found = [
        f"{name}: {line.strip()}"
        for name, file in static_files().items()
        for line in file.content.decode().splitlines()
        if pattern.search(line) and not re.search(r"replace\(/\^https", line)
    ]
    assert found == []
