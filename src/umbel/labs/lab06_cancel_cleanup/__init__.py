"""Lab 6: cleanup that waits after a cancel."""

from ..model import Lab, Run


def measure(run: Run) -> str:
    """Return the time from the deadline to the end of the page."""
    [page] = run.named("page")
    assert page.end is not None
    return f"{page.end - 1:g} s"


LAB = Lab(
    number=6,
    package=__name__.rpartition(".")[2],
    title="Cancel twice",
    phenomenon="edge-triggered against level-triggered cancel",
    story="""A page has a deadline of 1 s. Its call takes 8 s, and has a finally block, which says goodbye to the
        upstream. The upstream does not react, so the goodbye takes 3 s.""",
    question="With asyncio.timeout(1) around the page: how long after the deadline does the page end?",
    choices=("at once", "3 s", "7 s"),
    right=1,
    measured="time from the deadline to the end of the page",
    measure=measure,
    expected={"gather": "3 s", "taskgroup": "3 s", "trio": "0 s"},
    answer="""3 s late with asyncio, by gather and by TaskGroup: the goodbye runs although the deadline has passed. In
        trio the page ends at its deadline: the goodbye is cancelled where it first waits.""",
    why=(
        """asyncio's cancel is an edge: `task.cancel()` raises CancelledError once, at the current await. Awaits in the
        cleanup then work as if nothing had happened, and only a second cancel would end them. asyncio.timeout does not
        send one, nor does TaskGroup. If somebody does (a shutdown), it can hit any await of the cleanup.""",
        """trio's cancel is a level: once a deadline has passed, every checkpoint (an `await` that reaches one of trio's
        own functions) within its scope raises Cancelled, until the scope is left. So code that does not know
        of deadlines cannot exceed them, not in a finally block either.""",
        """The price: the goodbye was not said. If it must be, the program says so, and for how long:
        `with trio.move_on_after(0.5, shield=True):` around it. Then the page is at most 0.5 s late. In asyncio each
        await in cleanup needs an asyncio.timeout of its own. What is forgotten in asyncio is waited for; what is
        forgotten in trio is cut.""",
    ),
    horizon=6,
    over_at=1,
    over="the deadline of the page has passed",
)
