"""Mutations of HTTP/2 input by frames: types, flags, stream identifiers, lengths, order and payloads."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4


class Frame(NamedTuple):
    """A frame; ``length`` overrides the length of the payload in the frame header."""

    kind: int
    flags: int = 0
    stream: int = 0
    payload: bytes = b""
    length: int | None = None

    def encode(self) -> bytes:
        length = len(self.payload) if self.length is None else self.length
        return (
            struct.pack(">I", length)[1:]
            + bytes((self.kind, self.flags))
            + struct.pack(">I", self.stream)
            + self.payload
        )


def head(*fields: tuple[str, str], method: str = "GET", path: str = "/r") -> bytes:
    """Encode the header block of a request without dynamic table entries, so that blocks may be sent in any order."""
    encoder = Encoder()
    encoder.header_table_size = 0
    pseudo = [(":method", method), (":scheme", "http"), (":authority", "gateway.test"), (":path", path)]
    return encoder.encode([*pseudo, *fields])


def raw_head(*fields: tuple[bytes, bytes]) -> bytes:
    """Encode a header block with exactly these fields, valid or not."""
    literal = b""
    for name, value in fields:
        literal += b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
    return literal


BLOCKS: Sequence[bytes] = (
    head(),
    head(path="/nowhere", method="POST"),
    head(("content-length", "5"), method="POST", path="/echo"),
    head(("content-length", "-5"), ("te", "gzip"), ("connection", "close")),
    head(("expect", "100-continue"), method="POST", path="/echo"),
    raw_head((b":method", b"CONNECT"), (b":authority", b"x:1")),
    raw_head((b":method", b"G\xffT"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"gateway.test")),
    raw_head((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/\xff?\xff"), (b":authority", b"gateway.test")),
    raw_head((b":method", b"GET"), (b":scheme", b"http"), (b":path", b""), (b":authority", b"")),
    raw_head((b":method", b"GET"), (b":method", b"GET"), (b":path", b"/r"), (b"X-Upper", b"\r\n")),
    raw_head(
        (b":path", b"/r"),
    ),
    b"\x3f\xff\xff\xff\xff\xff",  # a dynamic table size that does not end
    b"\x80",  # index 0
    b"",
)


def frames_of(data: bytes) -> list[Frame]:
    """Split an input into frames; an incomplete frame header at the end is dropped."""
    data = data.removeprefix(PREFACE)
    frames = []
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        frames.append(Frame(data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return frames


def any_frame(rng: Random) -> Frame:
    """Make a random frame, which is valid more often than not."""
    stream = rng.choice((0, 1, 1, 3, 3, 5, 7, 2, 2**31 - 1, 2**32 - 1))
    flags = rng.choice((0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS, 0x20 | END_HEADERS, 0x08, 0xFF))
    number = struct.pack(">I", rng.choice((0, 1, 100, 65_535, 2**31 - 1, 2**32 - 1)))
    match kind := rng.choice((*range(10), HEADERS, HEADERS, DATA, 11, 255)):
        case 0:
            payload = bytes(rng.choice((0, 1, 5, 16_384, 16_385)))
        case 1 | 9 | 5:
            payload = rng.choice(BLOCKS)
        case 2:
            payload = number + b"\x10"
        case 4:
            payload = b"".join(
                struct.pack(">HI", rng.randrange(8), rng.choice((0, 1, 65_536, 2**31))) for _ in range(3)
            )
        case 6 | 7:
            payload = number + bytes(4)
        case _:
            payload = number
    return Frame(kind, flags, stream, payload)


Mutation = Callable[[list[Frame], Random], None]


def insert(frames: list[Frame], rng: Random) -> None:
    frames.insert(rng.randrange(len(frames) + 1), any_frame(rng))


def drop(frames: list[Frame], rng: Random) -> None:
    del frames[rng.randrange(len(frames))]


def repeat(frames: list[Frame], rng: Random) -> None:
    at = rng.randrange(len(frames))
    frames[at:at] = [frames[at]] * rng.choice((1, 2, 50, 500))


def swap(frames: list[Frame], rng: Random) -> None:
    a, b = rng.randrange(len(frames)), rng.randrange(len(frames))
    frames[a], frames[b] = frames[b], frames[a]


def other_flags(frames: list[Frame], rng: Random) -> None:
    at = rng.randrange(len(frames))
    frames[at] = frames[at]._replace(flags=rng.randrange(256))


def other_stream(frames: list[Frame], rng: Random) -> None:
    at = rng.randrange(len(frames))
    frames[at] = frames[at]._replace(stream=rng.choice((0, 1, 2, 3, 5, 2**31, 2**31 - 1)))


def other_length(frames: list[Frame], rng: Random) -> None:
    at = rng.randrange(len(frames))
    frames[at] = frames[at]._replace(length=rng.choice((0, 1, len(frames[at].payload) + 1, 16_385, 2**24 - 1)))


def other_payload(frames: list[Frame], rng: Random) -> None:
    at = rng.randrange(len(frames))
    payload = bytearray(frames[at].payload or b"\0")
    payload[rng.randrange(len(payload))] = rng.randrange(256)
    frames[at] = frames[at]._replace(payload=bytes(payload))


MUTATIONS: Sequence[Mutation] = (
    insert,
    insert,
    insert,
    drop,
    repeat,
    swap,
    other_flags,
    other_stream,
    other_length,
    other_payload,
)


def mutated(corpus: Sequence[bytes], rng: Random) -> bytes:
    """Make a new input: the preface, in 3 of 100 inputs truncated, and mutated frames of one or two stored inputs."""
    frames = [frame for _ in range(rng.choice((1, 1, 2))) for frame in frames_of(rng.choice(corpus))]
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        if not frames:
            insert(frames, rng)
        rng.choice(MUTATIONS)(frames, rng)
    data = b"".join(frame.encode() for frame in frames)
    return (PREFACE if rng.random() < 0.97 else PREFACE[: rng.randrange(3, len(PREFACE))]) + data[:2_000_000]
