"""Lab 7: what a cancel does that a handler of exceptions swallows."""

from ..model import CREATE_TASK, TASKGROUP, TRIO, Lab, Run

STOP_S = 2.5


def measure(run: Run) -> str:
    """Say whether the poller runs on after its cancel."""
    (poller,) = run.named("poller")
    return "runs on" if poller.end is None else f"stops at {poller.end:g} s"


LAB = Lab(
    number=7,
    package=__name__.rpartition(".")[2],
    title="The swallowed cancel",
    phenomenon="`except BaseException` in a loop",
    story="""A background task polls an upstream: a fetch of 1 s, a pause of 1 s, and again. So that no error ends it,
        it catches whatever the fetch raises. At 2.5 s, in the middle of a fetch, the program cancels it and waits for
        its end.""",
    question="With asyncio: when does the poller stop?",
    choices=("At 2.5 s, at the cancel", "At 3 s, when the fetch would be over", "Never"),
    right=2,
    measured="the poller, which is cancelled at 2.5 s",
    measure=measure,
    expected={"gather": "runs on", "taskgroup": "runs on", "trio": "stops at 2.5 s"},
    answer="""Never, with asyncio: the handler catches the one CancelledError that there is, and the loop goes on. The
        program waits for ever, with TaskGroup too. With trio the handler catches a Cancelled as well, and the pause
        after it raises the next one: the poller stops at once.""",
    why=(
        """In asyncio a cancel happens once (edge-triggered): `task.cancel()` raises CancelledError at the `await` where
        the task is. Whoever catches it has ended the cancel; nobody asks again. Had it come during the pause, which is
        outside of the `try`, the poller would have stopped: so a test of this shutdown may well pass.""",
        """In trio a cancel is a state (level-triggered): once a cancel scope is cancelled, each checkpoint in it (an
        `await` that reaches one of trio's own functions) raises Cancelled, until the block of the scope is left. So
        the next `await` outside of the `try` ends the loop.""",
        """trio does not mend everything: if the pause stands within the `try` too, no checkpoint is left outside, and
        the loop turns without a wait, at full load of the processor. In both libraries the exceptions of a cancel are
        no `Exception`, so that `except Exception` lets them pass. Catch `Exception`, or raise the cancel again.""",
    ),
    horizon=8,
    columns=(CREATE_TASK, TASKGROUP, TRIO),
    over_at=STOP_S,
    over="the poller is cancelled",
)
