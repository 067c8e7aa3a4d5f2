"""The labs as a site on loopback, whose pages run the programs when they are asked to.

``GET /`` lists the labs. ``GET /N`` is the page of a lab before its run. ``POST /N/run`` runs its programs and returns
what they did, as ``columns_of`` gives it. A request that a browser sends for a page of another site is refused. So what
others can have this process do is bounded: to run the programs of the labs, one lab at a time.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from ..admin.answer import HTML, JSON, Answer, problem_answer, send_answer
from ..admin.connections import serve_connections
from ..admin.guard import Hosts, OriginGuard
from ..admin.listeners import AdminListener
from ..core.inbound import InboundApplication
from .document import columns_of
from .model import PACKAGES, Lab, Run, lab_of
from .page import index_page, live_page
from .run import LabError, run_lab

if TYPE_CHECKING:
    from ..core.inbound import Field, InboundRequest

WAITING_MAX = 4
"""The bound on runs that wait for the one in progress."""
_PATH = re.compile(r"/(?P<number>[0-9]{1,3})(?P<run>/run)?")
_FIELDS: tuple[Field, ...] = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    # The rest of its policy stands in the page, which is a file too.
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class LabSite(InboundApplication):
    """The site.

    Args:
        address: ``host:port`` as bound.
        run: runs the programs of a lab.
    """

    def __init__(self, address: str, run: Callable[[Lab], Awaitable[Mapping[str, Run]]] = run_lab) -> None:
        self._guard = OriginGuard(Hosts(address, address))
        self._run = run
        self._one_run = trio.CapacityLimiter(1)

    async def handle(self, request: Any) -> None:
        """Answer an ``InboundRequest``; cut the answer if the client does not take it within ``ANSWER_S``.

        A client that leaves ends its run.
        """
        with trio.CancelScope() as scope:
            request.on_gone(lambda: scope.cancel(reason="the client has left"))
            answer = await self._answer(request)
            await send_answer(request, answer, _FIELDS)

    def error_response_fields(self, head: object, fields: Sequence[Field]) -> Sequence[Field]:
        """``fields``, and the fields of every answer."""
        return (*fields, *_FIELDS)

    async def _answer(self, request: InboundRequest) -> Answer:
        refusal = self._guard.check(request)
        if refusal is not None:
            return problem_answer(refusal.status, refusal.detail)
        path = request.target.partition(b"?")[0].decode("latin-1")
        found = _PATH.fullmatch(path)
        if path != "/" and (found is None or int(found["number"]) not in PACKAGES):
            return problem_answer(404, f"There is no such page; the labs are /{', /'.join(map(str, PACKAGES))}.")
        runs = found is not None and found["run"] is not None
        allowed = ("POST",) if runs else ("GET", "HEAD")
        if request.method not in allowed:
            return problem_answer(405, f"Send {allowed[0]}.", (b"allow", ", ".join(allowed).encode()))
        if found is None:
            return Answer(200, HTML, index_page().encode())
        lab = lab_of(int(found["number"]))
        return await self._result(lab) if runs else Answer(200, HTML, live_page(lab).encode())

    async def _result(self, lab: Lab) -> Answer:
        if self._one_run.statistics().tasks_waiting >= WAITING_MAX:
            return problem_answer(503, "Other labs are run; try again in a moment.", (b"retry-after", b"5"))
        async with self._one_run:
            try:
                runs = await self._run(lab)
            except LabError as error:
                return problem_answer(500, str(error))
        return Answer(200, JSON, msgspec.json.encode(columns_of(lab, runs)))


async def serve_labs(listener: AdminListener, report: Callable[[str, str], object]) -> None:
    """Serve the labs until SIGINT or SIGTERM, which ends runs that are in progress.

    Args:
        listener: a listening socket on loopback; the caller closes it.
        report: takes the failures of the server, as the name of an event and a sentence.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_connections, LabSite(listener.address), listener.socket, report)
            await anext(signals)
            nursery.cancel_scope.cancel(reason="a signal ends the labs")
