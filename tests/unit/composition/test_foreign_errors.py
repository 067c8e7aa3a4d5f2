"""Failure kinds of the exceptions of httpx transports."""

from __future__ import annotations

import httpx
import pytest

from tests.support.composition.composing import compose
from umbel.core.failure_kinds import Kind

CALL = 'calls.c = { upstream = "u", path = "/c" }\n'


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("x"), Kind.CONNECT),
        (httpx.ReadTimeout("x"), Kind.TIMEOUT),
        (httpx.WriteTimeout("x"), Kind.TIMEOUT),
        (httpx.ReadError("x"), Kind.RESET),
        (httpx.WriteError("x"), Kind.RESET),
        (httpx.RemoteProtocolError("x"), Kind.MALFORMED),
        (httpx.DecodingError("x"), Kind.MALFORMED),
        (httpx.UnsupportedProtocol("x"), Kind.INTERNAL),
    ],
    ids=repr,
)
async def test_each_httpx_exception_has_a_kind_and_is_not_in_the_answer(
    error: Exception, kind: Kind, autojump_clock
) -> None:
    async def fail(request: httpx.Request) -> httpx.Response:
        raise error

    ran = await compose(CALL, fail)
    failure = ran.outcomes["c"].failure
    assert (failure.kind, failure.detail, failure.public) == (kind, f"{type(error).__name__}: x", "")
    assert ran.recorder.logged == [], "none of them is a bug of ours"
