"""Lab 3: what becomes of the second and third exception."""

from ..model import Lab, Run


def measure(run: Run) -> str:
    """Count the errors in the log."""
    return str(len(run.noted("log: ")))


LAB = Lab(
    number=3,
    package=__name__.rpartition(".")[2],
    title="Three fail, you see one",
    phenomenon="lost exceptions",
    story="""A page asks for the user's profile, and three parts wait for it. When it comes, at 1 s, all three fail: an
        upstream is down, and two parts have bugs. The handler logs each error that it gets, and answers 502.""",
    question="With asyncio.gather: how many of the three errors are in the log, in any form?",
    choices=("1", "3", "1, and 2 as “exception was never retrieved”"),
    right=0,
    measured="errors in the log, of three",
    measure=measure,
    expected={"gather": "1", "taskgroup": "3", "trio": "3"},
    answer="""One with gather. The other two are gone: asyncio does not log them either. All three with TaskGroup, and
        with a trio nursery: both raise an exception group.""",
    why=(
        """gather raises the first exception. It marks the others as retrieved, so not even asyncio's line “exception
        was never retrieved” appears. Here the log says that offers is down; the KeyError and the ZeroDivisionError are
        bugs, and stay unseen until the day on which they come first.""",
        """A nursery waits for all of its tasks, so it has all of their exceptions, and raises them as one
        ExceptionGroup. `except*` picks those of a type, and lets the rest go on: `except* ConnectionError` answers
        502, and a KeyError in the same group still reaches the error log.""",
        """What has not failed yet is cancelled at the first failure. So a bug that would come later is not seen in this
        request, but no exception that was raised is lost.""",
        """asyncio.TaskGroup is as good here. gather(…, return_exceptions=True) loses nothing, if each result is
        looked at: an exception that nobody looks at is one more value in a list.""",
    ),
    horizon=2,
)
