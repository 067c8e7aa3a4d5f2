"""Lab 2: what a server does for clients that have hung up."""

from ..model import Lab, Run

AT_S = 5


def measure(run: Run) -> str:
    """Count the calls that still run."""
    return str(len(run.running(AT_S)))


LAB = Lab(
    number=2,
    package=__name__.rpartition(".")[2],
    title="The client hung up",
    phenomenon="work for clients that have left",
    story="""Twenty clients ask for a page. Each page makes five upstream calls of 8 s. After 1 s all clients lose
        patience and close their connections. Clients and server are in one process, with real sockets.""",
    question="With asyncio's server: how many of the 100 calls still run at 5 s, four seconds after the clients left?",
    choices=("0", "20", "100"),
    right=2,
    measured=f"calls that still run {AT_S} s after the start",
    measure=measure,
    expected={"gather": "100", "taskgroup": "100", "trio": "0"},
    answer="""All 100 with gather and with TaskGroup: the server sees the connections close, and ends nothing.
        None with trio, where a task beside each page waits for the close and cancels the page.""",
    why=(
        """Clients that wait too long try again. So a server that works on for those who left is busiest when it is
        slowest: each retry adds a page, and none takes one away.""",
        """What ran: the server of the first two programs is asyncio.start_server, which runs a handler for each
        connection and ends none at its close. uvicorn does the same, alone and as gunicorn's worker (a test holds this
        with uvicorn 0.54 and gunicorn 27): an application gets http.disconnect if it asks for it, and a handler that
        awaits a call does not ask. TaskGroup changes nothing, because nothing has failed: its tasks belong to the
        page, and nobody ends the page.""",
        """trio.serve_tcp ends no handler either. What ends the page is `watch`, a task in the same nursery as the
        page, which cancels the nursery when the connection closes. The cancel reaches all that the page has started, at
        any depth, and `serve` returns when all of it has ended. Umbel's server does this for every handler and every
        configured route.""",
        """The same can be written with TaskGroup, by cancelling the task of the page, if the server is yours and all
        that the page starts is in groups. With gather or create_task somewhere below, that part runs on as in
        lab 1.""",
    ),
    horizon=6,
    over_at=1,
    over="all clients have hung up",
    grace=0.05,
)
