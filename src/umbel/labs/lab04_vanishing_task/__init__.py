"""Lab 4: a task that nothing refers to."""

from ..model import CREATE_TASK, TASKGROUP, TRIO, Lab, Run


def measure(run: Run) -> str:
    """Count the mails."""
    return str(len(run.noted("mail: ")))


LAB = Lab(
    number=4,
    package=__name__.rpartition(".")[2],
    title="The vanishing task",
    phenomenon="unreferenced tasks and the garbage collector",
    story="""A shop starts a mailer in the background, which confirms each order by mail. Five orders come, one each
        second. Before the third one Python's garbage collector runs, as it does now and then in any program.""",
    question="With asyncio.create_task(mailer(…)), its result not kept: how many of the five orders get their mail?",
    choices=("5", "2", "0"),
    right=1,
    measured="mails sent, for five orders",
    measure=measure,
    expected={"gather": "2", "taskgroup": "5", "trio": "5"},
    answer="""Two. Then the collector destroys the mailer while it waits, with no exception in the program. It cannot
        happen to a task in a TaskGroup, and in trio the mistake cannot be written: a task needs a nursery.""",
    why=(
        """The event loop of asyncio keeps only weak references to tasks (the documentation of create_task says so).
        A task that waits is held by what it waits for, mostly a timer or a socket. This mailer waits for a queue that
        only the mailer itself uses: the two hold each other, and nothing holds them. That is garbage.""",
        """A short test does not find it, because the collector runs only after many new objects. In production it runs
        at any time. The only trace is a line of asyncio's logger: “Task was destroyed but it is pending!”.""",
        """A TaskGroup holds its tasks, as a nursery does, and so is as good here. With create_task, the program must
        keep the task until it is done; ruff's rule RUF006 finds calls that do not. In trio, the runner holds every
        task, and each task has a parent that waits for it: if the mailer failed, the shop would get the exception.""",
    ),
    columns=(CREATE_TASK, TASKGROUP, TRIO),
    horizon=6,
)
