"""An upstream for curl, made of Python's own HTTP server: it stores uploads, and serves files with ranges."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PIECE = 1 << 16


class Upstream(ThreadingHTTPServer):
    """A server whose paths are the names of files in ``directory``; some paths have a behaviour of their own.

    An upload is answered with its size, its checksum and its framing as JSON. With ``Expect: 100-continue``:
    ``/silent`` says no 100, ``/refuses`` answers with 403 before the body, others say 100. ``/breaks-off/NAME`` sends
    half of the file unless a range was asked for. ``/coded`` has a body that is compressed with gzip on request.
    """

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.directory = directory


class _Handler(BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def handle_expect_100(self) -> bool:
        if self.path == "/refuses":
            self._answer(403, b"no", ("Connection", "close"))
            return False
        return True if self.path == "/silent" else super().handle_expect_100()

    def do_PUT(self) -> None:
        digest, size = hashlib.sha256(), 0
        for piece in self._body():
            digest.update(piece)
            size += len(piece)
        framing = "length" if "Content-Length" in self.headers else self.headers["Transfer-Encoding"]
        told = {"size": size, "sha256": digest.hexdigest(), "framing": framing, "expect": self.headers["Expect"]}
        self._answer(200, json.dumps(told).encode())

    def _body(self) -> Iterator[bytes]:
        if "Content-Length" in self.headers:
            left = int(self.headers["Content-Length"])
            while left and (piece := self.rfile.read(min(left, PIECE))):
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def do_HEAD(self) -> None:
        self._file(body=False)

    def do_GET(self) -> None:
        if self.path != "/coded":
            self._file(body=True)
        elif "gzip" in self.headers.get("Accept-Encoding", ""):
            self._answer(200, gzip.compress(b"text " * 1000), ("Content-Encoding", "gzip"))
        else:
            self._answer(200, b"text " * 1000)

    def _file(self, *, body: bool) -> None:
        place = self.server.directory / self.path.rpartition("/")[2]
        size = place.stat().st_size
        begin, end = 0, size
        if wished := self.headers["Range"]:
            first, _, last = wished.removeprefix("bytes=").partition("-")
            begin, end = (int(first), int(last) + 1 if last else size) if first else (size - int(last), size)
            if begin >= size:
                self._answer(416, b"", ("Content-Range", f"bytes */{size}"))
                return
        self.send_response(206 if wished else 200)
        if wished:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"one"')
        self.end_headers()
        if self.path.startswith("/breaks-off/") and not wished:
            end, self.close_connection = size // 2, True
        with place.open("rb") as content:
            content.seek(begin)
            while body and begin < end:
                piece = content.read(min(PIECE, end - begin))
                self.wfile.write(piece)
                begin += len(piece)

    def _answer(self, status: int, body: bytes, *fields: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*fields, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving_files(directory: Path) -> Iterator[int]:
    """Run the upstream within the block; yield its port."""
    with Upstream(directory) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
