"""Lab 5: a timeout for each read against one deadline for all."""

from ..model import Lab, Run


def measure(run: Run) -> str:
    """Return when the page ended."""
    [page] = run.named("page")
    return f"{run.horizon:g} s and on" if page.end is None else f"{page.end:g} s"


LAB = Lab(
    number=5,
    package=__name__.rpartition(".")[2],
    title="One deadline for a whole tree",
    phenomenon="timeouts of each read, against a response that drips",
    story="""A page is to be answered within 1 s. Two levels down, the upstream for prices is broken: it sends one byte
        every 0.9 s, and does not end. The first program allows each read 1 s, as HTTP clients do; the two others
        have one deadline of 1 s around the page.""",
    question="With a timeout of 1 s for each read: when does the page end?",
    choices=("at 1 s", "at 1.9 s, with the second read", "not within 12 s"),
    right=2,
    measured="end of the page",
    measure=measure,
    expected={"gather": "12 s and on", "taskgroup": "1 s", "trio": "1 s"},
    answer="""It does not end: no single read is late. With one deadline around the page, all calls of all levels end
        at 1 s, with asyncio.timeout as well as in trio.""",
    why=(
        """The timeouts of most HTTP clients (httpx, aiohttp's sock_read, requests) limit the wait for the next
        bytes. Each byte moves that limit on. So they find a dead peer, but do not bound the time of a response.""",
        """A deadline belongs around the whole of what must be done in time. `with trio.fail_after(1):` is a cancel
        scope: at its deadline everything inside is cancelled, at any depth, in any number of tasks. No function below
        takes a timeout or needs to know of one; of several scopes around a task the first deadline counts.""",
        """asyncio.timeout (Python 3.11) is as good here. It cancels the task of its block, and TaskGroup or gather pass
        that on to their tasks. A task that was started by create_task, and that the block does not wait for, is not
        reached. The next two labs show the other difference: asyncio's cancel is raised only once.""",
    ),
    horizon=12,
    over_at=1,
    over="the page should have been answered",
)
