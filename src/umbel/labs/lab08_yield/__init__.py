"""Lab 8: a generator that yields within a block of tasks."""

from ..model import CREATE_TASK, TASKGROUP, TRIO, Column, Lab, Run

CHANNEL = Column("channel", "trio, as a channel", "trio", "with_channel")


def measure(run: Run) -> str:
    """Say what the consumer gets when a feed fails."""
    (consumer,) = run.named("consumer")
    if run.noted("502"):
        return "the error"
    return "a cancel" if consumer.how == "cancelled" else "nothing"


LAB = Lab(
    number=8,
    package=__name__.rpartition(".")[2],
    title="Yield across a nursery",
    phenomenon="an async generator that yields within a block of tasks (PEP 789)",
    story="""An async generator merges two feeds, each of which is a task of the generator. The consumer saves each
        value, which takes 3 s, and has an `except` for the error of a feed around its loop. At 2.5 s, while the first
        value is being saved, one feed fails.""",
    question="The generator holds its tasks in a TaskGroup. What does the consumer get?",
    choices=("The error of the feed", "Nothing before the value is saved, then the error", "A cancel, and no error"),
    right=2,
    measured="what the consumer gets when a feed fails",
    measure=measure,
    expected={"gather": "nothing", "taskgroup": "a cancel", "trio": "a cancel", "channel": "the error"},
    answer="""A cancel, with TaskGroup and with a nursery of trio alike: the consumer's own save is cancelled by a block
        of tasks that the consumer cannot see, and its `except` never runs. With plain tasks it gets nothing, and goes
        on without the feed. With a channel in place of the generator it gets the error.""",
    why=(
        """A block of tasks cancels the task that has entered it. A generator runs in the task of its consumer. So while
        the generator is suspended at a `yield` within its block, everything that the consumer does is within that
        block. When a feed fails, the cancel reaches the save, leaves the loop, and nobody is at the end of the block to
        turn it back into the error. PEP 789 describes this, and proposes that such a `yield` be an error.""",
        """trio has no rule against it, and is wrong here too. It says more: the reason of the cancel names the failed
        feed, and the corrupted nursery is noticed and reported. asyncio cancels without a reason; the error only
        reaches the log, when the generator is collected.""",
        """The channel form is the same generator beneath `@trio.as_safe_channel`. It runs in a task of its own, and its
        values come through a channel. `async with` now shows where its tasks begin and end: the save is cancelled
        there, and the error is raised there. The rule: no `yield` within a nursery, a TaskGroup or a timeout, unless
        the generator is a context manager (`@asynccontextmanager`) or a fixture of pytest-trio.""",
        """trio's own warning advises `async with aclosing(...)`. That closes the generator at once, so the error does
        arrive, but together with a GeneratorExit that no `except*` expects. It is no replacement for the channel.""",
    ),
    horizon=6,
    columns=(CREATE_TASK, TASKGROUP, TRIO, CHANNEL),
)
