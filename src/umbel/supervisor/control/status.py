"""The state of the master, its slots and their workers as plain data (``umbel ctl status``)."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import trio

from ..master.master import Master
from ..master.process import Worker
from ..master.slot import Slot
from . import messages

_ANSWER_S = 1.0


async def status(master: Master) -> dict[str, Any]:
    """Return the state of the master and its slots, with the counters of all ready workers.

    Waits for the counters for at most 1 s; a worker that does not answer in this time has no member ``stats``.
    """
    stats = await master.queries.ask(master.workers, messages.StatsQuery(), messages.Stats, _ANSWER_S)
    slots = master.slots_in_order()
    return {
        "master": {
            "pid": os.getpid(),
            "uptime_s": round(trio.current_time() - master.started_at, 3),
            "state": state_of(master),
            "summary": master.summary(),
            "generation": master.generation,
            "addresses": list(master.addresses),
            "size": master.size,
            "ready": len(master.workers),
            "silent": master.silent,
            "log_level": master.log_level,
            "limits": master.limits.statistics(),
        },
        "slots": [_slot(slot, stats) for slot in slots],
    }


def state_of(master: Master) -> str:
    """Return the state of a master in one word."""
    if master.stopping:
        return "stopping"
    if master.degraded:
        return "degraded"
    return "serving" if master.workers else "starting"


def _slot(slot: Slot, stats: dict[Worker, messages.Stats]) -> dict[str, Any]:
    workers = sorted(slot.all_workers, key=lambda worker: worker.spawned_at)
    return {
        "slot": slot.number,
        "state": str(slot.state.value),
        "restarts": slot.restarts,
        "last_exit": None if slot.last_exit is None else str(slot.last_exit),
        "workers": [_worker(worker, stats.get(worker)) for worker in workers],
    }


def _worker(worker: Worker, stats: messages.Stats | None) -> dict[str, Any]:
    snapshot = worker.statistics()
    result: dict[str, Any] = msgspec.to_builtins(snapshot)
    if stats is not None:
        result["stats"] = {"server": stats.server, "app": stats.app, "queues": stats.queues}
    return result
