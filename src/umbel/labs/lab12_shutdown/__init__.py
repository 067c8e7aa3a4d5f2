"""Lab 12: the order in which a server ends."""

from ..model import CREATE_TASK, TASKGROUP, TRIO, Lab, Run

LINES = 3


def measure(run: Run) -> str:
    """Count the lines that are missing in the log."""
    return str(LINES - len(run.noted("written")))


LAB = Lab(
    number=12,
    package=__name__.rpartition(".")[2],
    title="Stop, but finish",
    phenomenon="shutdown with work, a slow reader, and log lines that wait to be written",
    story="""A server works on three requests when it is told to stop, at 3 s: a page has been answered, a report takes
        until 5.5 s, and a client that reads slowly would take a minute. Requests get 3 s to end. Each one leaves a line
        in the access log, which is written in the background; the disk takes 1 s for a line.""",
    question="With asyncio.create_task and asyncio.run: how many of the three lines are missing in the log?",
    choices=("0", "1", "2"),
    right=2,
    measured="access log lines that are missing, of three",
    measure=measure,
    expected={"gather": "2", "taskgroup": "0", "trio": "0"},
    answer="""Two: the report has been answered and the slow reader cut, both as they should be, but their lines are in
        tasks that nobody waits for. asyncio.run cancels them when the program ends, without a message. With TaskGroup
        and with trio no line is missing, and the server stops 1.5 s later.""",
    why=(
        """Work in the background must still belong to somebody. Here the writer of the log is a task of an outer block,
        and the requests are tasks of an inner one. So the order of the end stands in the indentation: the inner block
        ends first, all its requests have left their lines by then, and the outer block ends when they are written.""",
        """TaskGroup is as good here, with the same two blocks. trio is shorter: the grace period is a deadline of the
        inner block, which may be set later (`server.cancel_scope.deadline = …`), and the end of a channel ends its
        reader. With plain tasks one line that waits for `tasks` would do, but nothing fails where it is missing.""",
        """One nursery for both would be wrong: its deadline would cut the writer together with the slow reader, as
        `asyncio.timeout` around one TaskGroup would. And no wait may be without bound: the slow reader is cut after
        3 s. The writer needs a limit as well, which this program leaves out.""",
        """Umbel stops in this order: report not ready, accept nothing new, let requests end, cancel the rest with a
        reason, close the pools, write the logs, for which it takes at most 2 s. Lines that are still not written then
        are counted.""",
    ),
    horizon=9,
    columns=(CREATE_TASK, TASKGROUP, TRIO),
    ends=True,
)
