"""Keys of an issuer that are fetched from the network and kept fresh.

Theory
------
**Problem.** Requests need keys at once, the network gives them at any time or never, and whoever sends tokens with
invented key ids must not make the gateway flood the provider.

**One task fetches.** ``run`` alone makes fetches, one after the other: at its start, when ``refresh`` has passed, after
a failure with growing pauses, and when ``renew`` asks for it. Requests never fetch; they wait for the end of a round.
So a request that is cancelled ends no fetch, and any number of requests share one.

**Rounds.** ``_round`` is the fetch under way, or else the next one. Its event is set at its end, with its result; then
a new round begins. A waiter holds the round that it waits for, so a later round cannot wake it wrongly.

**Cool-down.** Between the end of a fetch and the next one that ``renew`` asks for, at least ``cooldown`` passes. Within
it ``renew`` returns at once. So unknown key ids, and tokens without one that no key verifies, cause one fetch per
cool-down, however many they are.

**States.**

========  ==========================================  ============================================
state     meaning                                     next
========  ==========================================  ============================================
none      no keys, or they are too old                ok by a fetch
ok        the last fetch succeeded                    failing by a fetch that fails
failing   the last fetch failed, keys are in use      ok by a fetch; none when the keys are too old
========  ==========================================  ============================================

Keys are too old ``refresh + stale_if_error`` after the fetch that brought them (and the time of one more fetch, so that
without ``stale_if_error`` there are keys during a refresh). This is compared when keys are needed, so no timer can be
late. A set without a usable key, or with more keys or bytes than ``key_set`` accepts, is a failure: the last keys stay.

**Records.** A change of the state to failing or none is a record ``auth.keys_failed``, and after that at most one a
minute. A set that differs from the last one is a record ``auth.keys_changed``.

**Cancellation.** A cancel of ``run`` ends the fetch, and wakes all waiters without keys. A cancel of ``renew`` ends
only that wait.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

import trio

from ...core.events import NULL, Level, LogMessage, Recorder
from .key_set import BadKeySetError, KeySet, read_key_set
from .key_statistics import KeyState, KeyStatistics

FETCH_SECONDS = 5.0
"""The most seconds of one fetch, discovery included."""
PAUSE_MIN = 1.0
"""The shortest time between two fetches that nobody asked for, in seconds (after a failure a half of it)."""
PAUSE_MAX = 60.0
"""The longest pause after a failure, in seconds; the first one is up to a second."""
RECORD_EVERY = 60.0
"""Seconds between two records of a state that stays the same."""
REFRESH_SPREAD = 0.1
"""The part of ``refresh`` by which a fetch may be early, so that many processes do not fetch at the same time."""


class FetchError(Exception):
    """Keys cannot be fetched. The message is a part of a sentence, without content of the response."""


class KeyUpstream(Protocol):
    """An upstream that has key sets."""

    @property
    def origins(self) -> Collection[str]:
        """The origins of its URLs, as ``discovery.origin_of`` returns them."""
        ...

    async def fetch(self, path: str) -> bytes:
        """Fetch the body of a response with status 200 by GET.

        Args:
            path: path and query, relative to the upstream's base URL.

        Raises:
            FetchError: there is no such response.
        """
        ...


class _Round:
    """A fetch that is under way, or the next one."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.succeeded = False


class KeySource:
    """The keys of one issuer; see the module.

    Args:
        auth: the name of the section ``[auth.NAME]``, for records.
        issuer: the issuer.
        source: where the keys are, for people.
        load: fetches the key set from an upstream; raises FetchError.
        algorithms: the accepted algorithms.
        refresh, stale_if_error, cooldown: seconds; see the schema.
        limit: the most seconds of one fetch.
        recorder: gets the records.
        rng: the source of jitter.
    """

    renewable = True

    def __init__(
        self,
        auth: str,
        issuer: str,
        source: str,
        load: Callable[[KeyUpstream], Awaitable[bytes]],
        algorithms: Collection[str],
        *,
        refresh: float,
        stale_if_error: float,
        cooldown: float,
        limit: float = FETCH_SECONDS,
        recorder: Recorder = NULL,
        rng: random.Random | None = None,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._auth = auth
        self._issuer = issuer
        self._source = source
        self._load = load
        self._algorithms = algorithms
        self._refresh = refresh
        self._keep = refresh + stale_if_error + limit
        self._cooldown = cooldown
        self._limit = limit
        self._recorder = recorder
        self._rng = rng or random.Random()
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched_at = 0.0
        self._generation = self._fetches = self._failures = self._failed_in_a_row = 0
        self._last_error = ""
        self._running = self._fetching = False
        self._ended_at = float("-inf")
        self._round = _Round()
        self._asked = trio.Event()
        self._first = trio.Event()
        self._recorded: tuple[KeyState, float] = ("ok", float("-inf"))

    @property
    def key_set(self) -> KeySet | None:
        """The keys that hold now; None: there are none, or they are too old."""
        keys = self._keys
        if keys is not None and self._clock() - self._fetched_at > self._keep:
            return None
        return keys

    @property
    def state(self) -> KeyState:
        """The state; see the module."""
        if self.key_set is None:
            return "none"
        return "failing" if self._last_error else "ok"

    @property
    def has_keys(self) -> bool:
        """Whether keys have been fetched once."""
        return self._first.is_set()

    async def wait_for_first_keys(self) -> None:
        """Wait until keys have been fetched once."""
        await self._first.wait()

    async def renew(self) -> bool:
        """Have the keys fetched, or wait for the fetch under way; return whether it brought keys.

        Returns False at once within the cool-down, or if ``run`` does not run.
        """
        if not self._running:
            return False
        if not self._fetching:
            if self._clock() - self._ended_at < self._cooldown:
                return False
            self._asked.set()
        mine = self._round
        await mine.ended.wait()
        return mine.succeeded

    async def run(self, upstream: KeyUpstream) -> None:
        """Fetch keys until this is cancelled. Raises nothing else.

        Raises:
            RuntimeError: it runs already.
        """
        if self._running:
            raise RuntimeError(f"the keys of {self._issuer} are fetched by another task")
        self._running = True
        try:
            while True:
                self._asked = trio.Event()
                await self._fetch(upstream)
                with trio.move_on_after(self._pause()):
                    await self._asked.wait()
        finally:
            self._running = False
            self._end_round(succeeded=False)

    def statistics(self) -> KeyStatistics:
        """A snapshot."""
        keys = self._keys
        return KeyStatistics(
            self._issuer,
            self._source,
            0 if keys is None else len(keys.keys),
            () if keys is None else keys.left_out,
            self._generation,
            None if keys is None else self._clock() - self._fetched_at,
            self._fetches,
            self._failures,
            self._last_error,
            self.state,
        )

    async def _fetch(self, upstream: KeyUpstream) -> None:
        self._fetching = True
        keys: KeySet | None = None
        reason, bug = f"there was no answer within {self._limit:g} s", None
        try:
            with trio.move_on_after(self._limit):
                content = await self._load(upstream)
                keys = read_key_set(content, self._algorithms, remote=True)
        except FetchError as error:
            reason = str(error)
        except BadKeySetError as error:
            reason = f"the key set {error}"
        except Exception as error:  # noqa: BLE001  # a bug: it must not end the process, and is in the record
            reason, bug = "the fetch crashed", error
        finally:
            self._fetching = False
            self._fetches += 1  # At the end: the number of those that succeeded, the rest, must not fall again.
            self._ended_at = self._clock()
        if keys is None:
            self._note_failure(reason, bug)
        else:
            self._note_keys(keys)
        self._end_round(succeeded=keys is not None)

    def _end_round(self, *, succeeded: bool) -> None:
        ended, self._round = self._round, _Round()
        ended.succeeded = succeeded
        ended.ended.set()

    def _note_keys(self, keys: KeySet) -> None:
        self._fetched_at = self._ended_at
        self._failed_in_a_row = 0
        self._last_error = ""
        self._recorded = ("ok", self._ended_at)
        if keys.equals(self._keys) and self._keys is not None and keys.left_out == self._keys.left_out:
            # The same object stays, so that verified tokens stay known.
            return
        self._keys = keys
        self._generation += 1
        self._first.set()
        fields = {"keys": len(keys.keys), "left_out": len(keys.left_out), "generation": self._generation}
        text = f"the keys of {self._issuer} for auth {self._auth} have changed"
        self._record("info", "auth.keys_changed", text, fields)

    def _note_failure(self, reason: str, bug: Exception | None) -> None:
        self._failures += 1
        self._failed_in_a_row += 1
        self._last_error = reason
        state, now = self.state, self._ended_at
        before, at = self._recorded
        if state != before or now - at >= RECORD_EVERY:
            self._recorded = (state, now)
            text = f"the keys of {self._issuer} for auth {self._auth} cannot be fetched: {reason}"
            fields = {"state": state, "failed_in_a_row": self._failed_in_a_row}
            self._record("warning" if state == "failing" else "error", "auth.keys_failed", text, fields, bug)

    def _record(
        self, level: Level, event: str, text: str, fields: Mapping[str, object], error: Exception | None = None
    ) -> None:
        fields = {"auth": self._auth, "issuer": self._issuer, "source": self._source, **fields}
        self._recorder.record(LogMessage(level, event, text, None, fields, error))

    def _pause(self) -> float:
        """Seconds until the next fetch."""
        if not self._failed_in_a_row:
            return max(PAUSE_MIN, self._refresh * (1.0 - REFRESH_SPREAD * self._rng.random()))
        longest = min(PAUSE_MAX, 2.0 ** min(self._failed_in_a_row - 1, 10), max(PAUSE_MIN, self._refresh))
        return longest * (0.5 + 0.5 * self._rng.random())
