"""Lab 11: what becomes of hedges that lose, and how many there are."""

from ..model import CREATE_TASK, TASKGROUP, TRIO, Column, Lab, Run

BUDGET = Column("budget", "trio, and a budget", "trio", "with_budget")
ANSWERED_S = 2


def measure(run: Run) -> str:
    """Count the calls, and say until when the last one runs."""
    calls = [bar for bar in run.bars if bar.name.startswith("call")]
    last = max(bar.end if bar.end is not None else run.horizon for bar in calls)
    return f"{len(calls)}, until {last:g} s"


LAB = Lab(
    number=11,
    package=__name__.rpartition(".")[2],
    title="Hedge, and lose politely",
    phenomenon="the work of hedged calls that lose, and their number",
    story="""An upstream works on four calls at a time, for 1 s each; more calls wait there. Eight requests arrive at
        once, so that four are answered at 1 s and four at 2 s. The gateway hedges: a request that has no answer after
        0.4 s makes a second call, after 0.8 s a third one, and takes the answer that is first.""",
    question="All requests are answered at 2 s. With asyncio.create_task: until when does the upstream work for them?",
    choices=("Until 2 s", "Until 4 s", "Until 6 s"),
    right=2,
    measured="calls made for eight requests, and until when the last one runs",
    measure=measure,
    expected={
        "gather": "24, until 6 s",
        "taskgroup": "24, until 2 s",
        "trio": "24, until 2 s",
        "budget": "11, until 2 s",
    },
    answer="""Until 6 s: each request has made three calls, and two of them lose. Nobody reads their answers, but the
        upstream works for 4 s more, in which it serves no other request. With TaskGroup and with trio the losers are
        cancelled at the first answer. A budget keeps most of them from being made at all.""",
    why=(
        """A hedged request begins with its first call, and should be over at its first answer. A TaskGroup or a nursery
        does not end before all of its calls have ended. So it must cancel the losers, or the request would wait for
        them, and everybody would see that. TaskGroup is as good here; in trio it is one line, since a nursery has a
        scope to cancel. For plain tasks the same loop with `task.cancel()` would do, but nothing fails without it.""",
        """Cancelling is not enough. The upstream is slow because it has too much to do; hedges and retries then give it
        three times as much. That is a retry storm, and it comes at the worst moment, with asyncio and trio alike.""",
        """A budget bounds the extra calls by those under way: here a fifth of them, or three if that is more, as Envoy
        does. The program uses the one of Umbel (`umbel.policy`), in which all retries and hedges of an upstream share
        one budget: `retry_budget`, by default 20 %.""",
        """The upstream is a model, which drops a cancelled call at once. Over HTTP a cancel closes the connection, and
        the upstream has to notice that.""",
    ),
    horizon=7,
    columns=(CREATE_TASK, TASKGROUP, TRIO, BUDGET),
    over_at=ANSWERED_S,
    over="all requests are answered",
)
