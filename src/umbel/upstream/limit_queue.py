"""Limits of upstreams: a call that does not conform to a limit waits for its turn.

Theory
------
**Problem.** A limit (``[limits.NAME]``) refuses a request that does not conform. A call to an upstream should rather
wait, if its turn comes early enough. Calls that wait for one key take their turns in the order in which they came, also
if several upstreams have the limit. A waiting call must cost no task, and must end with its deadline and its client.

**Line.** A ``LimitQueue`` belongs to one limit, and has a *line* for each key for which calls wait. A call with several
limits stands in one line of each. A call is *due* when it is the first in all its lines and each limit admits its cost.
The call that came first of all is the first in all its lines, so calls never wait for each other in a circle.

**Spending.** A call spends of all its limits in one step, when it is due and has a place of the bulkhead, directly
before its first attempt. Before that it holds nothing, so that a call that leaves has nothing to give back. A call that
is due but finds no place stands in its lines until it gets one; the later calls of its keys wait behind it. Then all is
decided again, since other attempts, or other processes, may have spent meanwhile.

**Time of a turn.** The first in all its lines has a timer for the time at which its limits will admit it. The timer
only decides again: what has been spent meanwhile may put the turn off. Every other call has a timer only for the time
at which it gives up, ``MARGIN`` before its deadline. (At the deadline itself its owner would cancel it, and nobody
would learn the reason.) A call gives up earlier, and does not even begin to wait, if it can be seen that its turn does
not come before that time: if all the calls before it take their turns as early as they can.

**Further attempts** (retries, hedges, redirects) are what the upstream sees, so they spend too. They never wait: if
they are not due at once, with nobody waiting for the same key, they are not made (``CallLimits.take``). An attempt that
replaces a kept connection, which ended before any byte of a response, is the same attempt and spends once.

**Tasks.** No function waits. ``turn_came`` and ``turn_refused`` run in the task of the timers, so the end of one call
never begins another in the same step, however long the line is.

**End of the timers.** When a queue of timers ends it runs them all early (``TimerQueue.run_all``); a timer that runs
before its time therefore ends its call.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import trio

from ..core.errors import NotRunningError
from .errors import Overflow

if TYPE_CHECKING:
    from ..core.call import CallContext
    from ..core.model import RequestFacts
    from ..net.timers import Timer, TimerQueue
    from ..policy.gcra import Decision, Key

MARGIN = 0.001
"""Seconds before its deadline at which a call gives up waiting."""
_DELAY_MIN = 1e-6
"""Shortest time of a timer that decides again: a shorter one might not move the clock."""


class CallLimiter(Protocol):
    """A limit, which keeps what each key has spent. Its functions never wait."""

    name: str
    waiting: int
    """Calls that wait for the limit now."""
    delayed: int
    """Calls that had to wait."""

    def price(self, context: Mapping[str, Any]) -> tuple[Key, float]:
        """The key and the cost of a request with these values."""
        ...

    def decide_price(self, key: Key, cost: float, now: float) -> Decision:
        """Decide whether ``key`` may spend ``cost`` now, and spend nothing yet."""
        ...

    def wait(self, key: Key, cost: float, ahead: float, now: float) -> float:
        """Seconds until ``key`` may spend ``cost`` behind ``ahead`` units of others; infinite: never."""
        ...

    def spend(self, key: Key, decision: Decision, now: float) -> None:
        """Spend what ``decision`` has admitted."""

    def refuse(self) -> None:
        """Count a refusal."""


class TurnOwner(Protocol):
    """A call that waits for its turn. Its functions must not raise or wait."""

    context: CallContext

    def turn_came(self, now: float) -> None:
        """The call is due. It takes the turn (``Turn.take``), or holds it until it has a place."""

    def turn_refused(self, error: Exception, now: float) -> None:
        """The call may wait no longer: its turn comes too late, or the client is being closed."""


class _Line:
    """The calls that wait for one key of a limit, in their order."""

    __slots__ = ("cost", "turns")

    def __init__(self) -> None:
        # An OrderedDict, so that the first is found, and any is removed, in constant time.
        self.turns: OrderedDict[Turn, None] = OrderedDict()
        self.cost = 0.0
        """What all of them together will spend."""

    @property
    def first(self) -> Turn:
        """The call that came first."""
        return next(iter(self.turns))


class LimitQueue:
    """The calls that wait for one limit, of all upstreams that have it.

    Args:
        limiter: the limit.
    """

    __slots__ = ("limiter", "lines")

    def __init__(self, limiter: CallLimiter) -> None:
        self.limiter = limiter
        self.lines: dict[Key, _Line] = {}
        """By key; no line is empty. Their number is bounded by that of the waiting calls."""

    def price(self, request: RequestFacts | None) -> _Price:
        """What a call of ``request`` costs. A request spends the same in all its calls, so that is evaluated once."""
        values = None if request is None else request.limit_values
        if values is None:
            return _Price(self, *self.limiter.price({}))
        found = values.prices.get(self.limiter.name)
        if found is None:
            found = values.prices[self.limiter.name] = self.limiter.price(values.by_name)
        return _Price(self, *found)


class _Price(NamedTuple):
    queue: LimitQueue
    key: Key
    cost: float

    @property
    def line(self) -> _Line | None:
        """The line in which the call stands, or would stand; None: nobody waits, or the call is free."""
        return self.queue.lines.get(self.key) if self.cost else None

    def wait(self, ahead: float, now: float) -> float:
        return self.queue.limiter.wait(self.key, self.cost, ahead, now) if self.cost else 0.0


class CallLimits:
    """The limits of one upstream.

    Args:
        queues: one for each limit; upstreams with the same limit share it.
        timers: the queue that runs the timers of the upstream's calls.
    """

    __slots__ = ("_queues", "_timers")

    def __init__(self, queues: Iterable[LimitQueue], timers: TimerQueue) -> None:
        self._queues = tuple(queues)
        self._timers = timers

    def turn(self, request: RequestFacts | None) -> Turn:
        """The turn of a call of ``request``; None: the call belongs to no inbound request, and its key is null."""
        return Turn([queue.price(request) for queue in self._queues], self._timers)

    def take(self, request: RequestFacts | None, now: float) -> bool:
        """Spend for a further attempt if that is due at once. Return whether it is; if not, count a refusal."""
        turn = self.turn(request)
        if turn.is_due(now):
            turn.take(now)
            return True
        turn.count_refusal(now)
        return False


class Turn:
    """The turn of one call, or of one attempt, at the limits of its upstream. See the module for the rules.

    A new turn stands in no line. ``hold`` and ``wait`` put it into its lines; ``take`` and ``leave`` take it out.
    """

    __slots__ = ("_bound", "_delayed", "_owner", "_prices", "_timer", "_timers", "_when")

    def __init__(self, prices: list[_Price], timers: TimerQueue) -> None:
        self._prices = prices
        self._timers = timers
        self._owner: TurnOwner | None = None
        """The call, while it stands in lines: a reference for longer would be a cycle."""
        self._bound = math.inf
        """Time at which the call gives up, if its deadline is later."""
        self._delayed = False
        """Whether the limiters count the call as waiting."""
        self._timer: Timer | None = None
        self._when = 0.0
        """Time of ``_timer``."""

    def is_due(self, now: float) -> bool:
        """Whether the call may spend now: nobody is before it in a line, and each limit admits it."""
        for price in self._prices:
            line = price.line
            if line is not None and line.first is not self:
                return False
        return all(queue.limiter.decide_price(key, cost, now).admitted for queue, key, cost in self._prices)

    def take(self, now: float) -> None:
        """Spend, and leave the lines. The call must be due."""
        for queue, key, cost in self._prices:
            queue.limiter.spend(key, queue.limiter.decide_price(key, cost, now), now)
        self.leave(now)

    def check(self, bound: float, deadline: float, now: float) -> None:
        """Check that the turn can come in time, before the call begins to wait.

        Args:
            bound: when the call gives up, in ``trio.current_time()``, if its deadline is later.
            deadline: the deadline of the call.

        Raises:
            Overflow: it comes too late, or never.
        """
        self._bound = bound
        wait, price = self._wait(now)
        if now + wait >= min(bound, deadline - MARGIN):
            raise self._too_late(wait, price)

    def hold(self, owner: TurnOwner) -> None:
        """Stand in the lines, as the first, while the call waits for a place of the bulkhead."""
        self._join(owner)

    def wait(self, owner: TurnOwner, now: float) -> None:
        """Wait in the lines until ``owner.turn_came`` or ``owner.turn_refused``; after ``check``, or after ``hold``."""
        self._join(owner)
        if not self._delayed:
            self._delayed = True
            for price in self._prices:
                price.queue.limiter.waiting += 1
                price.queue.limiter.delayed += 1
        self._set_timer(now)

    def leave(self, now: float) -> None:
        """Leave the lines, if the turn stands in any. The next in them get the timer of their turn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._delayed:
            self._delayed = False
            for price in self._prices:
                price.queue.limiter.waiting -= 1
        if self._owner is None:
            return
        self._owner = None
        nexts: dict[Turn, None] = {}
        for price in self._prices:
            line = price.line
            if line is not None:
                first = line.first
                del line.turns[self]
                line.cost -= price.cost
                if not line.turns:
                    del price.queue.lines[price.key]
                elif first is self:
                    nexts[line.first] = None
        for turn in nexts:
            turn._set_timer(now)

    def count_refusal(self, now: float) -> None:
        """Count a refusal of the limit that would admit the call last."""
        _, price = self._wait(now)
        price.queue.limiter.refuse()

    def _join(self, owner: TurnOwner) -> None:
        if self._owner is not None:
            return
        self._owner = owner
        for queue, key, cost in self._prices:
            if cost:
                line = queue.lines.setdefault(key, _Line())
                line.turns[self] = None
                line.cost += cost

    @property
    def _is_first(self) -> bool:
        return all(line is None or line.first is self for line in (price.line for price in self._prices))

    def _wait(self, now: float) -> tuple[float, _Price]:
        """Seconds until the turn comes, if nothing else is spent, and the limit that admits the call last.

        Only for a turn that stands in no line, or is the first in all.
        """
        waits = []
        for price in self._prices:
            line = price.line
            ahead = 0.0 if line is None or self._owner is not None else line.cost
            waits.append(price.wait(ahead, now))
        longest = max(range(len(waits)), key=waits.__getitem__)
        return waits[longest], self._prices[longest]

    def _gives_up_at(self, owner: TurnOwner) -> float:
        # The deadline of a shared call grows when further callers join it.
        return min(self._bound, owner.context.deadline - MARGIN)

    def _set_timer(self, now: float) -> None:
        """Set the timer of the first in all its lines for its turn, and of any other for giving up."""
        owner = self._owner
        if owner is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._gives_up_at(owner)
        if self._is_first:
            # A wait that is too long is refused by the timer at once, in a step of its own.
            turn = now + max(self._wait(now)[0], _DELAY_MIN)
            when = turn if turn < when else now
        if when < math.inf:
            self._when = when
            self._timer = self._timers.add(when, self._decide)

    def _decide(self) -> None:
        """Timer: the turn has come, or comes too late; or decide again later."""
        self._timer, owner, now = None, self._owner, trio.current_time()
        if owner is None:
            return
        if now < self._when:
            owner.turn_refused(NotRunningError("the upstream was closed while the call waited for its turn"), now)
        elif self.is_due(now):
            owner.turn_came(now)
        else:
            wait, price = self._wait(now) if self._is_first else (0.0, self._prices[0])
            if now + wait >= self._gives_up_at(owner):
                owner.turn_refused(self._too_late(wait, price), now)
            else:
                self._set_timer(now)

    def _too_late(self, wait: float, price: _Price) -> Overflow:
        """Count a refusal, and make its error."""
        price.queue.limiter.refuse()
        name = price.queue.limiter.name
        if wait == math.inf:
            return Overflow(f"the call costs more than the limit {name} ever admits at once", limit=name)
        if not wait:
            return Overflow(f"the turn of the call at the limit {name} did not come in time", limit=name)
        reason = f"the limit {name} admits the call only in {wait:.3g} s, which is too late"
        return Overflow(reason, retry_after=wait, limit=name)
