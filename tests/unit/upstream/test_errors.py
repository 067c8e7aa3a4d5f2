"""Errors of attempts: kinds, httpx types, and names of RFC 9209."""

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
def test_every_error_is_an_upstream_error_an_httpx_exception_and_has_a_kind(cls: type[UpstreamError]) -> None:
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
def test_a_failed_connect_has_an_error_name_of_rfc_9209(number: int, proxy_error: str) -> None:
    error = errors.connect_failed(OSError(number, "why"), "here")
    assert (error.kind, error.proxy_error) == (Kind.CONNECT, proxy_error)
    assert "here" in error.detail


def test_a_connect_error_names_its_address_once() -> None:
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
