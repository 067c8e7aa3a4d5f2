from __future__ import annotations

import errno
import ssl

import httpx
import pytest

from umbel.core.errors import UpstreamError
from umbel.core.failure_kinds import KINDS, Kind
from umbel.core.model import Failure
from umbel.upstream import errors

CLASSES = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, UpstreamError) and each is not UpstreamError
]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_one_of_ours_and_one_of_httpx_and_has_a_kind(cls: type[UpstreamError]) -> None:
    error = cls("what happened")
    assert isinstance(error, httpx.TransportError)
    assert error.kind is not Kind.INTERNAL
    assert str(error) == error.detail == "what happened"
    assert Failure.from_error(error).status == KINDS[error.kind].status


@pytest.mark.parametrize(
    ("number", "proxy_error"),
    [
        (errno.ECONNREFUSED, "connection_refused"),
        (errno.ETIMEDOUT, "connection_timeout"),
        (errno.EHOSTUNREACH, "destination_ip_unroutable"),
        (errno.ENETUNREACH, "destination_ip_unroutable"),
        (errno.ENOENT, "destination_unavailable"),
        (errno.EMFILE, "connection_limit_reached"),
        (errno.EPROTO, "connection_refused"),
    ],
)
def test_connect_says_in_the_words_of_rfc_9209_why_it_failed(number: int, proxy_error: str) -> None:
    error = errors.connect_failed(OSError(number, "why"), "here")
    assert (error.kind, error.proxy_error) == (Kind.CONNECT, proxy_error)
    assert "here" in error.detail


def test_an_address_is_named_once_though_trio_names_it_too() -> None:
    trios = OSError(errno.ECONNREFUSED, "Error connecting to ('127.0.0.1', 81): Connection refused")
    assert errors.connect_failed(trios, "127.0.0.1:81").detail == "cannot connect to 127.0.0.1:81: Connection refused"
    assert errors.connect_failed(OSError("odd"), "here").detail == "cannot connect to here: OSError"


def test_a_tls_alert_and_any_other_tls_error_are_distinguished() -> None:
    alert = ssl.SSLError(1, "x")
    alert.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    assert errors.tls_failed(alert, "x").proxy_error == "tls_alert_received"
    alert.reason = "WRONG_VERSION_NUMBER"
    assert errors.tls_failed(alert, "x").proxy_error == "tls_protocol_error"
    assert errors.tls_failed(None, "x").proxy_error == "tls_protocol_error"
