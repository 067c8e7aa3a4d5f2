"""Lab 1: what the siblings of a failed task do."""

from ..model import Lab, Run

AT_S = 5


def measure(run: Run) -> str:
    """Count the calls that still run."""
    return str(len(run.running(AT_S)))


LAB = Lab(
    number=1,
    package=__name__.rpartition(".")[2],
    title="Who is still running?",
    phenomenon="siblings of a failed task",
    story="""A page asks six upstreams at once. One of them fails after 1 s, so the page is answered with 502. The
        other five calls would take 8 s.""",
    question="With asyncio.gather: how many calls still run at 5 s, four seconds after the answer was sent?",
    choices=("0", "1", "5"),
    right=2,
    measured=f"calls that still run {AT_S} s after the start",
    measure=measure,
    expected={"gather": "5", "taskgroup": "0", "trio": "0"},
    answer="""Five with gather, and nobody will read their results. None with TaskGroup, none with a trio nursery: both
        cancel the siblings and wait until they have ended, before the error goes on.""",
    why=(
        """gather passes the first exception on and forgets the rest. The other tasks were given to the event loop, and
        belong to nobody: they hold connections, memory and places in limits until they end by themselves. Under load,
        an upstream that fails fast makes all others busier.""",
        """A nursery is trio's block for tasks: `async with trio.open_nursery() as nursery`. A task is started in a
        nursery, and the block does not end before all of its tasks have ended. If one fails, the nursery cancels
        the others, waits for them, and raises an exception group with what went wrong. So when `page()` has
        returned or raised, nothing of it is left.""",
        """asyncio.TaskGroup (Python 3.11) has taken this rule from trio, and is as good here. The difference: in
        asyncio it is a choice that each function makes; in trio there is no way to start a task without a nursery.""",
    ),
    horizon=6,
    over_at=1,
    over="the page is answered",
)
