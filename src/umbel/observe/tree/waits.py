"""What a task waits for, in words, by the function of trio or of ``umbel.net`` that it has called."""

from __future__ import annotations

from functools import lru_cache

MACHINERY = ("trio", "umbel.net", "trio_util", "outcome")
"""Packages whose functions are what a task waits in, and not where it waits."""

SLEEP = "time"
"""What a task waits for that sleeps."""
_WORDS = {
    "sleep": SLEEP,
    "sleep_until": SLEEP,
    "sleep_forever": "a cancel",
    "checkpoint": "its turn",
    "cancel_shielded_checkpoint": "its turn",
    "Event.wait": "an event",
    "Lock.acquire": "a lock",
    "Condition.wait": "a condition",
    "Semaphore.acquire": "a semaphore",
    "CapacityLimiter.acquire": "a place of a limiter",
    "CapacityLimiter.acquire_on_behalf_of": "a place of a limiter",
    "MemoryReceiveChannel.receive": "a message of a channel",
    "MemorySendChannel.send": "room in a channel",
    "Nursery._nested_child_finished": "its tasks",
    "NurseryManager.__aexit__": "its tasks",
    "Nursery.start": "the start of a task",
    "to_thread_run_sync": "a thread",
    "from_thread_run": "trio's thread",
    "SocketStream.receive_some": "bytes of a socket",
    "SocketStream.send_all": "room in a socket",
    "SocketListener.accept": "a connection",
    "SSLStream.receive_some": "bytes of a TLS connection",
    "SSLStream.send_all": "room in a TLS connection",
    "_SocketType.accept": "a connection",
    "_SocketType.recv": "bytes of a socket",
    "_SocketType.send": "room in a socket",
    "_SocketType.connect": "a connection to a peer",
    "SocketType.accept": "a connection",
    "SocketType.connect": "a connection to a peer",
    "open_tcp_stream": "a connection to a peer",
    "open_unix_socket": "a connection to a peer",
    "getaddrinfo": "a name server",
    "wait_readable": "bytes of a descriptor",
    "wait_writable": "room in a descriptor",
    "EpollIOManager.wait_readable": "bytes of a descriptor",
    "EpollIOManager.wait_writable": "room in a descriptor",
    "SignalReceiver.__anext__": "a signal",
    "Process.wait": "the end of a process",
    "run_process": "the end of a process",
    "wait_task_rescheduled": "a callback",
    "park": "a callback",
    "AsyncValue.wait_value": "a value",
    "AsyncValue.wait_transition": "a value",
    "PlainStream.wait_readable": "bytes of a socket",
    "PlainStream.receive_some": "bytes of a socket",
    "PlainStream.drained": "room in a socket",
    "PlainStream.send_all": "room in a socket",
    "EpollReader.run": "events of sockets",
    "TimerQueue.run": "the next timer",
}


@lru_cache(maxsize=10_000)
def is_machinery(module: str) -> bool:
    """Whether a module belongs to ``MACHINERY``."""
    return any(module == package or module.startswith(f"{package}.") for package in MACHINERY)


def in_words(qualified_name: str) -> str:
    """What a task waits for in the function of this ``co_qualname``."""
    return _WORDS.get(qualified_name, qualified_name)


def has_words(qualified_name: str) -> bool:
    """Whether ``in_words`` knows the function."""
    return qualified_name in _WORDS
