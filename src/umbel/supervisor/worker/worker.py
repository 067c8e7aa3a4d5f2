"""The worker process: loads the application and serves it on the sockets that the master has bound.

Run as ``python -m umbel.supervisor.worker.worker CHANNEL TITLE``, where ``CHANNEL`` is an inherited descriptor. The
worker starts no process and binds nothing.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
from contextlib import suppress
from types import FrameType

import trio
from hypercorn.config import Config
from hypercorn.utils import LifespanFailureError
from setproctitle import setproctitle

from ...core.errors import ConfigError
from ...logs import WORKER_VARIABLE, Redactor, crashes_on_stderr, mark_shown, safe_traceback
from ...net.exception_groups import unwrapped
from ...server.lifespan import LifespanTooSlowError, running_lifespan
from ...server.limits.server_limits import Limits
from ...server.process import gc_tuning
from ..control import messages
from ..master.exit_status import (
    WORKER_BOOT_FAILED,
    WORKER_CRASHED,
    WORKER_LOAD_FAILED,
    WORKER_MISCONFIGURED,
    WORKER_ORPHANED,
)
from .app_loader import AppImportError, config_error_of, load_app
from .orphan_watch import OrphanWatch
from .worker_server import LoadedApp, WorkerServer

_REPORT_S = 1.0
_IGNORED_SIGNALS = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
"""A terminal sends these signals to the whole process group; only the master acts on them."""


def main() -> None:
    """Serve, and exit with a status of ``exit_status.py``."""
    faulthandler.enable()
    for number in _IGNORED_SIGNALS:
        # A handler and not SIG_IGN, which processes that the application starts would inherit.
        signal.signal(number, _ignore)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        sock.set_inheritable(False)
        first = sock.makefile("rb", buffering=0).readline()
        if not first:
            sys.exit(WORKER_ORPHANED)
        start = messages.decode_master_message(first)
        assert isinstance(start, messages.Start)
        os.environ[WORKER_VARIABLE] = str(start.slot)
        OrphanWatch(sock.fileno(), start.orphan_grace).start()
        setproctitle(f"umbel: worker {start.slot} [{start.app or start.config}]")
        sys.exit(_load_and_run(start, sock))


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


def _load_and_run(start: messages.Start, sock: socket.socket) -> int:
    try:
        loaded = _load(start)
    except ConfigError as error:
        return _report_failure(sock, WORKER_MISCONFIGURED, str(error))
    except AppImportError as error:
        return _report_failure(sock, WORKER_LOAD_FAILED, str(error))
    except BaseException as error:  # noqa: BLE001 - an import may raise anything, SystemExit too
        if not isinstance(error, SystemExit) or error.code != WORKER_MISCONFIGURED:
            return _report_failure(sock, WORKER_LOAD_FAILED, _error_text(error), safe_traceback(error))
        if isinstance(error.__cause__, ConfigError):  # As ``umbel.asgi`` exits, which any server may import.
            return _report_failure(sock, WORKER_MISCONFIGURED, str(error.__cause__))
        return _report_failure(sock, WORKER_MISCONFIGURED, _error_text(error), safe_traceback(error))
    server = WorkerServer(start, loaded)
    with crashes_on_stderr() as console:
        # The master prints what keeps a worker from getting ready, once for all workers.
        console.hold()
        server.on_ready = console.release
        try:
            if start.check_only:
                trio.run(_check, loaded)
            else:
                gc_tuning.apply()
                trio.run(server.run, sock.dup())
        except BaseException as error:  # noqa: BLE001 - nothing after this can report what ended the process
            cause = unwrapped(error)
            if server.is_ready:
                if not mark_shown(cause):
                    sys.stderr.write(safe_traceback(cause))
                return WORKER_CRASHED
            if isinstance(cause, LifespanFailureError) and (found := config_error_of(loaded.app)) is not None:
                return _report_failure(sock, WORKER_MISCONFIGURED, str(found))
            # The message of the application is enough; for any other failure the traceback is sent.
            complete = isinstance(cause, LifespanTooSlowError) or (
                isinstance(cause, LifespanFailureError) and cause.__cause__ is None
            )
            shown = console.take_held()
            return _report_failure(
                sock, WORKER_BOOT_FAILED, _error_text(cause), shown or ("" if complete else safe_traceback(cause))
            )
    return server.status


def _load(start: messages.Start) -> LoadedApp:
    """Load the application, and put the inherited descriptors in the place of its addresses."""
    secure, insecure = ([f"fd://{number}" for number in numbers] for numbers in (start.secure, start.insecure))
    settings = Config.from_mapping(start.server)
    settings.bind = secure or insecure
    if secure:
        settings.insecure_bind = insecure
    app = load_app(start.app, start.config, start.routes)
    carries_limits = isinstance(getattr(app, "limits", None), Limits)
    return LoadedApp(app, settings, None if carries_limits else start.limits)


async def _check(loaded: LoadedApp) -> None:
    """Start the application and stop it."""
    async with running_lifespan(loaded.app, loaded.settings, {}):
        pass


def _report_failure(sock: socket.socket, status: int, reason: str, trace: str = "") -> int:
    """Send the reason of a failed start to the master, without an event loop; return ``status``."""
    text = messages.TEXT_CHARS_MAX
    sock.settimeout(_REPORT_S)
    with suppress(OSError):  # The master has ended.
        sock.sendall(messages.encode(messages.Failed(reason=reason[-text:], traceback=trace[-text:])))
    return status


def _error_text(error: BaseException) -> str:
    lifespan_failed = isinstance(error, LifespanFailureError | LifespanTooSlowError)
    return Redactor().text(str(error) if lifespan_failed else f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
