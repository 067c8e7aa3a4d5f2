"""Lab 9: what cancels do to a connection pool."""

from ..model import GATHER, TASKGROUP, TRIO, Column, Lab, Run

UMBEL = Column("umbel", "trio, Umbel's pool", "trio", "with_umbel")


def measure(run: Run) -> str:
    """Say whether the pool still gives connections at the end."""
    return "alive" if run.noted("200") else "dead"


LAB = Lab(
    number=9,
    package=__name__.rpartition(".")[2],
    title="The pool that died of cancellation",
    phenomenon="a library that is not safe under cancels",
    story="""A gateway keeps one `httpx.AsyncClient`, whose pool may open two connections. A page needs ten calls. A new
        connection takes 500 ms. Ten clients, one after the other, ask for the page and hang up after 300 ms, so their
        calls are cancelled. Then one client comes who makes a single call, and waits.""",
    question="What does the last client get, with httpx 0.28 and its own pool?",
    choices=("An answer, with trio only", "An answer, with all three", "No answer, with all three"),
    right=2,
    measured="the pool, after ten pages were cancelled",
    measure=measure,
    expected={"gather": "dead", "taskgroup": "dead", "trio": "dead", "umbel": "alive"},
    answer="""No answer: after 5 s httpx gives up with PoolTimeout. The pool has no request at all, yet both of its
        connections count as in use. It stays so until the process is restarted, and a nursery does not help: the fault
        is in the pool.""",
    why=(
        """httpx's pool is that of httpcore (here 1.0.9). When a cancelled request ends, the pool hands its place at
        once to the next request in the queue, and makes a connection object for it. If that request is being cancelled
        in the same moment, it leaves, and the object stays: nobody will connect it, and it counts for ever. One page
        with more calls than connections, cancelled while connections are opened, is enough for asyncio; with trio it
        depends on the order in which tasks run, and may take a few pages. It is known as encode/httpcore#1093.""",
        """Structured concurrency makes cancels common: each deadline, each failed sibling, each lost hedge and each
        client that hangs up is one. That is right only if everything below is safe under cancels. What a library must
        do: change its state without an `await` in between, and undo in `finally` what it has begun.""",
        """Umbel has a pool of its own for this reason, `umbel.upstream.Pool`, which can be given to httpx as its
        transport, as the fourth program does. Its tests cancel requests at every checkpoint, one after the other, and
        require after each that no connection and no place is left taken.""",
        """The network of this lab is a model, in which opening a connection is a sleep; the pools are the real ones.
        With real sockets the moments must meet by chance, which under load they do.""",
    ),
    horizon=10,
    columns=(GATHER, TASKGROUP, TRIO, UMBEL),
)
