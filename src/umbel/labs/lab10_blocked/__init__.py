"""Lab 10: what a call that blocks does to an event loop."""

from ..model import CREATE_TASK, TASKGROUP, TRIO, Column, Lab, Run

THREAD = Column("thread", "trio, and a thread", "trio", "with_thread")
PAGE_S = 0.25
STALL_S = 1.0
"""Well below the 2 s of the call, and well above what a busy machine adds."""


def measure(run: Run) -> str:
    """Say whether a page of the other client was much too late."""
    late = max((bar.end or run.horizon) - bar.start - PAGE_S for bar in run.named("page"))
    return "stalled" if late > STALL_S else "served"


LAB = Lab(
    number=10,
    package=__name__.rpartition(".")[2],
    title="The blocked loop",
    phenomenon="a synchronous call in a handler",
    story="""One client asks for page after page, each of which takes 250 ms. At 0.9 s, another client asks for a
        report, whose handler calls a plain function that takes 2 s and has no `await`: a computation, or a driver of a
        database that is not async. This lab runs in real time.""",
    question="With which of the three programs are the pages served while the report is made?",
    choices=("With all three", "With trio", "With none"),
    right=2,
    measured="the client of the pages, while the report is made",
    measure=measure,
    expected={"gather": "stalled", "taskgroup": "stalled", "trio": "stalled", "thread": "served"},
    answer="""With none. A task gives the event loop back at an `await` only, and the report has none. A nursery is no
        better here: one page takes 2 s in all three. In a thread the function stalls nobody.""",
    why=(
        """Tasks of one event loop take turns in a single thread: they are concurrent, not parallel. What one of them
        computes, all others wait for, and no deadline and no cancel takes effect meanwhile, since those need the loop
        too. This holds for asyncio and trio alike.""",
        """So it must be seen. Umbel's watchdog is a timer in a thread of its own, which a task of the event loop sets
        anew at least once a second. While the loop is blocked, the task cannot: the timer runs out, and writes where
        the loop is, with file and line. `umbel serve` always watches its event loop (`hang_timeout`). The
        debug mode of asyncio says afterwards that a step of a task took long, but not at which line it blocked.""",
        """What helps: `await trio.to_thread.run_sync(render)`, or `asyncio.to_thread(render)`. A thread cannot be
        cancelled, so give the function a timeout of its own; and pure Python code in a thread still shares the one
        lock of the interpreter, so heavy computations belong in another process.""",
    ),
    horizon=4,
    columns=(CREATE_TASK, TASKGROUP, TRIO, THREAD),
    real_time=True,
)
