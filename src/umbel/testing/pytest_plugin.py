"""pytest plug-in: the fixture ``umbel_gateway``, and trio's virtual clock for the tests that use it.

An async test that uses the fixture runs in trio on an autojump clock. With pytest-trio, that plug-in runs the test, so
its fixtures work too; without it, this one does. Other tests are left alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import trio

    from .client import GatewayClient

FIXTURE = "umbel_gateway"


@pytest.fixture
def umbel_gateway() -> Callable[..., AbstractAsyncContextManager[GatewayClient]]:
    """``umbel.testing.gateway``; the test runs in virtual time."""
    # Imported here: pytest imports this module for every session.
    from .memory_gateway import gateway

    return gateway


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: Iterable[pytest.Item]) -> None:
    """Have pytest-trio, if it is there, run the tests with the fixture in virtual time."""
    if config.pluginmanager.has_plugin("trio"):
        for item in items:
            if _is_ours(item):
                # In front of the marker of pytest-trio's own trio_mode, because the first marker with ``run`` counts.
                item.add_marker(pytest.mark.trio(run=run_in_virtual_time), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test with the fixture, unless pytest-trio does; None leaves the test to other plug-ins."""
    if not _is_ours(pyfuncitem):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    run_in_virtual_time(partial(pyfuncitem.obj, **arguments))
    return True


def _is_ours(item: pytest.Item) -> bool:
    return (
        isinstance(item, pytest.Function)
        and FIXTURE in item.fixturenames
        and inspect.iscoroutinefunction(item.obj)  # Not one that pytest-trio has wrapped.
    )


def run_in_virtual_time(
    test: Callable[..., Awaitable[Any]], *args: Any, clock: trio.abc.Clock | None = None, **options: Any
) -> Any:
    """``trio.run`` on an autojump clock, unless ``clock`` is given.

    A single exception is raised without the groups of pytest-trio's nurseries around it. So pytest shows the assertion
    that failed, and knows ``pytest.skip`` and ``xfail(raises=…)``.
    """
    import trio
    from trio.testing import MockClock

    from ..net.exception_groups import unwrapped

    __tracebackhide__ = True
    try:
        return trio.run(test, *args, clock=clock or MockClock(autojump_threshold=0), **options)
    except BaseExceptionGroup as error:
        failure = unwrapped(error)
    try:
        # Here, and not in the ``except`` block, so that the group does not become the context of its member.
        raise failure
    finally:
        del failure
