"""The worker process: loads the application and serves it on the sockets that the master has bound.

Run as ``python -m umbel.supervisor.worker.worker CHANNEL TITLE``. ``CHANNEL`` is the inherited descriptor of the
worker's end of the channel; ``TITLE`` is the process title until the application is known.

Theory
======

The problem. The process runs foreign code from the first import on: it may raise anything, block for any time, or call
``sys.exit``. The master must learn in any case why a worker did not get ready, and the worker must end when the master
does. Between ``start`` and the event loop nothing reads the channel. So each phase has its own means::

    phase            a stop comes as               a failure is reported by             the master's end is noticed by
    await ``start``  SIGTERM (default action)      a traceback on stderr, status 1      end of the channel: status 70
    load             SIGTERM (default action)      ``failed``                           OrphanWatch
    start lifespan   ``drain`` or SIGTERM (cancel) ``failed``, after ``trio.run``       end of the channel, OrphanWatch
    serve            ``drain`` or SIGTERM (drain)  a text on stderr, status 1           end of the channel, OrphanWatch

``failed`` is sent at most once, by a blocking send of at most one second, and only before the worker was ready. The
master prints the traceback of a failed start once for all workers that fail alike. Therefore the worker does not print
its crashes before it is ready (``console.hold``): ``failed`` carries the text of a crash. If the worker gets ready, it
prints the text itself.

``check_only`` in ``start`` (``umbel check --app``): after loading, only the lifespan runs, startup and then shutdown.
Nothing reads the channel, so a stop is SIGTERM with its default action, and only OrphanWatch notices the master's end.
A shutdown that fails is reported by ``failed`` too.

Statuses of a failed start, after ``start`` was received: 78 for a ConfigError that loading or the recorder raises, or
that the application keeps from its failed lifespan (``config_error_of``), and for an application that calls
``sys.exit(78)`` at its import, as ``umbel.asgi`` does; 4 for any other failure of loading; 3 for anything else that
fails before the worker is ready, such as the lifespan. A crash of a ready worker is 1.

Signals. SIGINT and the other signals of ``_IGNORED_SIGNALS`` do nothing here: a terminal sends some of them to the
whole process group, and only the master acts on them. SIGABRT makes ``faulthandler`` write the stacks; the master sends
it before SIGKILL to a worker that hangs or is not ready in time.

OrphanWatch is a thread, and it starts before any foreign code runs: it ends the process some time after its master
(``orphan_grace`` and a second) even if the application blocks the event loop or its import for ever.

Invariants: the worker starts no process and binds no socket; every way out of ``main`` is an exit with a status; no
failure is reported twice.
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

from ...config.loading.file_rules import serve_without_key_files
from ...core.diagnostics.request_console import requests_on_stderr
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
from .app_loader import AppImportError, config_error_of, load_app, missing_keys_of
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
"""Signals of which a terminal sends some to the whole process group. Only the master acts on them."""


def main() -> None:
    """Receive ``start``, load and serve the application, and exit with a ``WORKER_*`` status of ``exit_status.py``."""
    faulthandler.enable()
    for number in _IGNORED_SIGNALS:
        # Not SIG_IGN: processes that the application starts would inherit it.
        signal.signal(number, _ignore)
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        sock.set_inheritable(False)
        first = sock.makefile("rb", buffering=0).readline()
        if not first:
            sys.exit(WORKER_ORPHANED)
        start = messages.decode_master_message(first)
        assert isinstance(start, messages.Start)
        os.environ[WORKER_VARIABLE] = str(start.slot)
        if not start.needs_key_files:
            serve_without_key_files()
        OrphanWatch(sock.fileno(), start.orphan_grace).start()  # Before any foreign code, which may block for ever.
        setproctitle(f"umbel: worker {start.slot} [{start.app or start.config}]")
        sys.exit(_load_and_run(start, sock))


def _ignore(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


def _load_and_run(start: messages.Start, sock: socket.socket) -> int:
    """Load the application and run the server; report a failed start to the master. Returns the exit status."""
    try:
        gc_tuning.prepare()
        loaded = _load(start)
    except ConfigError as error:
        return _report_failure(sock, WORKER_MISCONFIGURED, str(error))
    except AppImportError as error:
        return _report_failure(sock, WORKER_LOAD_FAILED, str(error))
    except BaseException as error:  # noqa: BLE001 - an import may raise anything, SystemExit too
        if not isinstance(error, SystemExit) or error.code != WORKER_MISCONFIGURED:
            return _report_failure(sock, WORKER_LOAD_FAILED, _error_text(error), safe_traceback(error))
        if isinstance(error.__cause__, ConfigError):  # Raised by the import of ``umbel.asgi``.
            return _report_failure(sock, WORKER_MISCONFIGURED, str(error.__cause__))
        return _report_failure(sock, WORKER_MISCONFIGURED, _error_text(error), safe_traceback(error))
    server = WorkerServer(start, loaded)
    with crashes_on_stderr() as console, requests_on_stderr(start.shows_requests):
        # The master prints the reason of a failed start once for all workers, so this process prints no crash until
        # it is ready.
        console.hold()
        server.on_ready = console.release
        try:
            if start.check_only:
                trio.run(_check, loaded)
            else:
                gc_tuning.apply()
                trio.run(server.run, sock.dup())
        except BaseException as error:  # noqa: BLE001 - the last place that can report why the process ends
            cause = unwrapped(error)
            if server.is_ready:
                if not mark_shown(cause):
                    sys.stderr.write(safe_traceback(cause))
                return WORKER_CRASHED
            if isinstance(cause, ConfigError):  # Required log files cannot be opened.
                return _report_failure(sock, WORKER_MISCONFIGURED, str(cause))
            if isinstance(cause, LifespanFailureError) and (found := config_error_of(loaded.app)) is not None:
                return _report_failure(sock, WORKER_MISCONFIGURED, str(found))
            if missing := missing_keys_of(loaded.app):
                return _report_failure(sock, WORKER_BOOT_FAILED, missing, lacks_keys=True)
            # A message that the application itself gave (lifespan.startup.failed) needs no traceback.
            complete = isinstance(cause, LifespanTooSlowError) or (
                isinstance(cause, LifespanFailureError) and cause.__cause__ is None
            )
            shown = console.take_held()
            return _report_failure(
                sock, WORKER_BOOT_FAILED, _error_text(cause), shown or ("" if complete else safe_traceback(cause))
            )
    return server.status


def _load(start: messages.Start) -> LoadedApp:
    """Load the application, with Hypercorn's settings in which the inherited descriptors replace the addresses."""
    secure, insecure = ([f"fd://{number}" for number in numbers] for numbers in (start.secure, start.insecure))
    settings = Config.from_mapping(start.server)
    settings.bind = secure or insecure
    if secure:
        settings.insecure_bind = insecure
    app = load_app(start.app, start.config, start.routes)
    carries_limits = isinstance(getattr(app, "limits", None), Limits)
    return LoadedApp(app, settings, None if carries_limits else start.limits)


async def _check(loaded: LoadedApp) -> None:
    """Run the application's lifespan: startup, then shutdown."""
    async with running_lifespan(loaded.app, loaded.settings, {}):
        pass


def _report_failure(sock: socket.socket, status: int, reason: str, trace: str = "", *, lacks_keys: bool = False) -> int:
    """Send ``failed`` to the master by a blocking send of at most ``_REPORT_S``; return ``status``."""
    text = messages.TEXT_CHARS_MAX
    sock.settimeout(_REPORT_S)
    with suppress(OSError):  # The master has ended.
        failed = messages.Failed(reason=reason[-text:], traceback=trace[-text:], lacks_keys=lacks_keys)
        sock.sendall(messages.encode(failed))
    return status


def _error_text(error: BaseException) -> str:
    """Return a redacted line for an error: the application's own message, or the type and text."""
    lifespan_failed = isinstance(error, LifespanFailureError | LifespanTooSlowError)
    return Redactor().text(str(error) if lifespan_failed else f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
