"""A ``core.call.Caller`` in memory, whose calls end as a script says, or when the test calls ``end``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import trio

from umbel.core.call import Call, CallContext, Mode, PreparedRequest
from umbel.core.http.header_field import Field

NEVER = math.inf


class Reply(NamedTuple):
    """How a call ends."""

    after: float = NEVER
    """Seconds from ``start`` to the end of the call; 0: it ends within ``start``; NEVER: the test calls ``end``."""
    status: int = 200
    value: object = 1
    content: bytes | None = None
    """The body; None: ``value`` as JSON."""
    error: Exception | None = None
    """The error with which the call ends instead of a response."""
    headers: Sequence[tuple[str, str]] = ()
    fails_to_depart: bool = False
    """Whether the call ends within ``send``."""
    waits: int = 0
    """How often the call needs a task, each time for ``after`` seconds. The first time is within ``start``."""


class ScriptedCall:
    """One call. It asserts that its owner follows the rules of ``core.call``."""

    names = None
    note = ""

    def __init__(self, prepared: PreparedRequest, context: CallContext, reply: Reply) -> None:
        self.prepared = prepared
        self.context = context
        self.reply = reply
        self.status: int | None = None
        self.error: Exception | None = None
        self.fields: Sequence[Field] = ()
        self.content = b""
        self.ended_at = math.nan
        self.started_at: float | None = None
        self.sent = False
        self.cancelled: str | None = None
        """The reason of the cancel; None if the call was not cancelled."""
        self._owed = 0
        """The number of calls of ``finish`` that the owner still has to make."""
        self._waits = reply.waits
        self._over = trio.Event()

    @property
    def has_ended(self) -> bool:
        return not math.isnan(self.ended_at)

    @property
    def under_way(self) -> bool:
        return self.started_at is not None and not self.has_ended

    def send(self) -> None:
        assert self.started_at is not None and not self.sent
        self.sent = True
        if self.reply.fails_to_depart:
            self.end()

    def start(self, now: float) -> None:
        assert self.started_at is None
        assert now <= trio.current_time()
        self.started_at = now
        if self.reply.waits:
            self.resume()
        elif self.reply.after == 0:
            self.end()
        elif self.reply.after < NEVER:
            # A system task, because the call must not end with a cancel of the task that starts it.
            trio.lowlevel.spawn_system_task(self._end_later)

    def resume(self) -> None:
        """Notify the owner that the call needs a task."""
        if not self.has_ended:
            self._owed += 1
            self.context.owner.call_waits(self)

    async def finish(self) -> None:
        assert self._owed
        self._owed -= 1
        try:
            with trio.move_on_after(self.reply.after):
                await self._over.wait()
                return
        except trio.Cancelled as error:
            self.cancel(error.reason or "")
            raise
        self._waits -= 1
        if self._waits > 0:
            self.resume()
        else:
            self.end()

    def end(self) -> None:
        """End the call with its result. This does nothing after a cancel, as a closed connection brings no response."""
        if self.has_ended:
            return
        reply = self.reply
        self.ended_at = trio.current_time()
        self._over.set()
        if reply.error is not None:
            self.error = reply.error
        else:
            self.status = reply.status
            self.content = msgspec.json.encode(reply.value) if reply.content is None else reply.content
            self.fields = [(name.encode(), name.lower().encode(), value.encode()) for name, value in reply.headers]
        self.context.owner.call_ended(self)

    def cancel(self, reason: str) -> None:
        if not self.has_ended:
            self.ended_at, self.cancelled = trio.current_time(), reason
            self._over.set()

    async def _end_later(self) -> None:
        await trio.sleep(self.reply.after)
        self.end()


class ScriptedCaller:
    """Makes scripted calls.

    ``script`` is a function of the target, or a mapping whose longest key that is a prefix of the target counts.
    """

    def __init__(self, script: Mapping[str, Reply] | Callable[[str], Reply]) -> None:
        self._script = script
        self.calls: list[ScriptedCall] = []
        """The calls in the order of ``new_call``, including those that were not started."""

    def new_call(self, prepared: PreparedRequest, context: CallContext, mode: Mode = "whole") -> Call:
        target = prepared.target.decode()
        if isinstance(self._script, Mapping):
            reply = self._script[max((key for key in self._script if target.startswith(key)), key=len)]
        else:
            reply = self._script(target)
        call = ScriptedCall(prepared, context, reply)
        self.calls.append(call)
        return call

    @property
    def started(self) -> list[ScriptedCall]:
        return [call for call in self.calls if call.started_at is not None]

    @property
    def under_way(self) -> list[ScriptedCall]:
        return [call for call in self.calls if call.under_way]

    @property
    def targets(self) -> list[str]:
        return [call.prepared.target.decode() for call in self.started]

    def of(self, target: str) -> ScriptedCall:
        """Return the one call with this target."""
        (found,) = (call for call in self.calls if call.prepared.target.decode() == target)
        return found
