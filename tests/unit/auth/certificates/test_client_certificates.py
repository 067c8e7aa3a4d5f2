"""Client certificates: whose certificate counts, and which names are allowed."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from umbel.auth import extra
from umbel.auth.authenticator import Authenticator, Place, Presented, Refusal
from umbel.auth.certificates import client_certificates
from umbel.auth.certificates.client_certificates import (
    CACHED_MAX,
    FORWARDED,
    NAME_MAX,
    Certificate,
    MtlsAuthenticator,
    problems,
    read,
)
from umbel.auth.certificates.forwarded_client_cert import CertificateNames
from umbel.auth.config_error import AuthConfigError
from umbel.config.schema.access.auth import MtlsAuth
from umbel.core.identity import Identity

KEY = ec.generate_private_key(ec.SECP256R1())
ALLOW = ("spiffe://Example.org/Batch", "spiffe://example.org/ns/*", "dns:batch.internal", "dns:*.workers.internal")


START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
NOON = (START + datetime.timedelta(hours=12)).timestamp()
"""A time at which the certificates are valid."""


def certificate(uris: Sequence[str] = (), dns: Sequence[str] = (), common_name: str = "nobody") -> bytes:
    """A certificate (DER) with these names, signed by itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    made = made.serial_number(1).not_valid_before(START).not_valid_after(START + datetime.timedelta(1))
    if uris or dns:
        names = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, uris)]
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return made.sign(KEY, SHA256()).public_bytes(Encoding.DER)


def made(*allow: str, wall: Callable[[], float] = lambda: NOON) -> MtlsAuthenticator:
    return MtlsAuthenticator("machines", MtlsAuth(kind="mtls", allow=allow or ALLOW), wall=wall)


def presented(der: bytes | None = None, forwarded: str | None = None, *, trusted: bool = False) -> Presented:
    return Presented({} if forwarded is None else {FORWARDED: forwarded}, {}, b"", der, trusted)


def sub_of(result: Identity | Refusal | None) -> str | None:
    return result.sub if isinstance(result, Identity) else None


async def test_the_matching_name_is_the_subject() -> None:
    machines: Authenticator = made()
    request = presented(certificate(["spiffe://other.org/x", "spiffe://example.org/Batch"], ["batch.internal"]))
    expected = Identity("mtls", "machines", "spiffe://example.org/Batch")
    assert machines.authenticate(request) == machines.authenticate(request) == expected
    assert (machines.name, machines.kind, machines.used(request)) == ("machines", "mtls", Place("tls"))
    assert machines.places == (Place("tls"), Place("header", FORWARDED))
    assert machines.challenge(None) == 'Certificate realm="machines"'
    assert not await machines.renew_keys(request)


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("spiffe://example.org/Batch", True),
        ("SPIFFE://EXAMPLE.ORG/Batch", True),
        ("spiffe://example.org/batch", False),
        ("spiffe://example.org/Batch/", False),
        ("spiffe://example.org/Batch/x", False),
        ("spiffe://example.org/ns/a", True),
        ("spiffe://EXAMPLE.org/ns/a/b?c#d", True),
        ("spiffe://example.org/ns/", False),
        ("spiffe://example.org/ns", False),
        ("spiffe://example.org/nsa", False),
        ("spiffe://example.org/NS/a", False),
        ("spiffe://example.org.evil/ns/a", False),
        ("spiffe://example.org/ns/../Batch", False),
        ("spiffe://example.org/ns/a/..", False),
        ("spiffe://example.org/ns/%2E%2e/a", False),
        ("spiffe://example.org/ns/./a", False),
        ("spiffe://example.org/ns/..a", True),
        ("spiffe://example.org/ns/..", False),
        ("spiffe://example.org/ns/%2e", False),
        ("spiffe://example.org/ns//a", False),
        ("spiffe://example.org/ns/a//b", False),
        ("spiffe://example.org/ns/a/", False),
        ("spiffe://example.org/ns/a%2Fb", False),
        ("spiffe://example.org/ns/..%2f..%2fBatch", False),
        ("spiffe://example.org/ns/a%5cb", False),
        ("spiffe://example.org/ns/a%00", False),
        ("spiffe://example.org/ns/a%0d%0ab", False),
        ("spiffe://example.org/ns/a%7F", False),
        ("spiffe://example.org/ns/a%", False),
        ("spiffe://example.org/ns/a%zz", False),
        ("spiffe://example.org/ns/a b", False),
        ("spiffe://example.org/ns/a\tb", False),
        ("spiffe://example.org/ns/a\r\nb", False),
        ("spiffe://example.org/ns/a\x00", False),
        ("spiffe://example.org/ns/<a>", False),
        ("spiffe://example.org/ns/a%20b", True),
        ("spiffe://example.org/ns/" + "a" * NAME_MAX, False),
        ("batch.internal", False),
        ("", False),
    ],
)
def test_a_uri_is_compared_exactly_but_for_scheme_and_host(uri: str, allowed: bool) -> None:
    machines = made()
    by_field = machines.authenticate(presented(None, f'URI="{uri}"', trusted=True))
    by_handshake = machines.authenticate(presented(certificate([uri])))
    assert sub_of(by_field) == sub_of(by_handshake) == (uri if allowed else None)
    assert allowed or (by_field == by_handshake and isinstance(by_field, Refusal))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("batch.internal", True),
        ("BATCH.Internal", True),
        ("a.batch.internal", False),
        ("a.workers.internal", True),
        ("A_1-b.Workers.internal", True),
        ("a.b.workers.internal", False),
        (".workers.internal", False),
        ("*.workers.internal", False),
        ("workers.internal", False),
        ("a.workers.internal.evil", False),
        ("spiffe://example.org/Batch", False),
    ],
)
def test_a_dns_name_is_compared_without_regard_to_case(name: str, allowed: bool) -> None:
    machines = made()
    by_field = machines.authenticate(presented(None, f'DNS="{name}"', trusted=True))
    by_handshake = machines.authenticate(presented(certificate([], [name])))
    assert sub_of(by_field) == sub_of(by_handshake) == (name.lower() if allowed else None)


def test_a_common_name_counts_for_nothing() -> None:
    refusal = made().authenticate(presented(certificate(common_name="batch.internal")))
    assert isinstance(refusal, Refusal)
    assert (refusal.error, refusal.outcome, refusal.reason) == (
        "invalid_token",
        "invalid",
        "No name of the client certificate is allowed here.",
    )


GOOD, OTHER = certificate([], ["batch.internal"]), certificate([], ["proxy.internal"])
FIELD = "URI=spiffe://other;DNS=proxy.internal,By=x;URI=spiffe://example.org/ns/client"


@pytest.mark.parametrize(
    ("der", "field", "trusted", "sub"),
    [
        (GOOD, None, False, "batch.internal"),
        (GOOD, FIELD, False, "batch.internal"),
        (OTHER, FIELD, True, "spiffe://example.org/ns/client"),
        (None, FIELD, True, "spiffe://example.org/ns/client"),
    ],
)
def test_the_field_of_a_trusted_proxy_counts_and_no_other(
    der: bytes | None, field: str | None, trusted: bool, sub: str
) -> None:
    assert sub_of(made().authenticate(presented(der, field, trusted=trusted))) == sub


@pytest.mark.parametrize(
    ("der", "field", "trusted"),
    [(None, None, False), (None, FIELD, False), (GOOD, None, True), (GOOD, "", True), (None, None, True)],
)
def test_a_proxy_without_the_field_and_a_client_without_a_certificate_present_none(
    der: bytes | None, field: str | None, trusted: bool
) -> None:
    """The certificate of a trusted proxy is the proxy's own, never the client's."""
    request = presented(der, field, trusted=trusted)
    assert made().authenticate(request) is made().used(request) is None


def test_the_field_is_the_place_behind_a_trusted_proxy() -> None:
    assert made().used(presented(GOOD, FIELD, trusted=True)) == Place("header", FORWARDED)


def test_a_malformed_field_is_refused_although_the_proxy_has_a_good_certificate() -> None:
    refusal = made().authenticate(presented(GOOD, FIELD + ',URI="', trusted=True))
    assert isinstance(refusal, Refusal)
    assert (refusal.error, refusal.outcome) == ("invalid_request", "invalid")


@pytest.mark.parametrize("der", [b"", b"\x30", GOOD[:-1], b"\xff" * 100, bytes(10_000)])
def test_a_certificate_that_cannot_be_read_is_refused(der: bytes) -> None:
    assert read(der) is None
    refusal = made().authenticate(presented(der))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "The client certificate cannot be read."


def test_a_certificate_is_parsed_once_and_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def counting(der: bytes) -> Certificate:
        parsed.append(der)
        return Certificate(CertificateNames((), (der.decode(),)), NOON, NOON)

    monkeypatch.setattr(client_certificates, "read", counting)
    machines = made()
    assert sub_of(machines.authenticate(presented(b"batch.internal"))) == "batch.internal"
    for _ in range(3):
        assert sub_of(machines.authenticate(presented(b"other"))) is None
        assert sub_of(machines.authenticate(presented(b"batch.internal"))) == "batch.internal"
    assert parsed == [b"batch.internal", b"other"]
    for number in range(CACHED_MAX + 5):
        machines.authenticate(presented(b"%d" % number))
    assert len(machines._verdicts.entries) == CACHED_MAX


@pytest.mark.parametrize(
    ("after_start", "refusal"),
    [
        (-1.0, Refusal("The client certificate is not valid yet.")),
        (0.0, None),
        (86_400.0, None),
        (86_400.5, Refusal("The client certificate has expired.", outcome="expired")),
        (1e9, Refusal("The client certificate has expired.", outcome="expired")),
    ],
)
def test_the_validity_period_is_compared_for_each_request(after_start: float, refusal: Refusal | None) -> None:
    now = NOON
    machines = made(wall=lambda: now)
    assert sub_of(machines.authenticate(presented(GOOD))) == "batch.internal"
    now = START.timestamp() + after_start
    found = machines.authenticate(presented(GOOD))
    assert found == refusal or (refusal is None and sub_of(found) == "batch.internal")
    assert machines.authenticate(presented(OTHER)) == Refusal("No name of the client certificate is allowed here.")


def test_a_certificate_that_has_expired_is_refused_at_the_first_request() -> None:
    found = made(wall=lambda: NOON + 1e6).authenticate(presented(GOOD))
    assert isinstance(found, Refusal)
    assert found.outcome == "expired"


def test_a_missing_library_is_a_mistake_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    section = MtlsAuth(kind="mtls", allow=ALLOW)
    assert list(problems(section)) == []
    extra.is_installed.cache_clear()
    monkeypatch.setitem(sys.modules, extra.CERTIFICATES, None)  # Its import raises ImportError then.
    try:
        assert list(problems(section)) == [
            (
                ("kind",),
                "client certificates need a library that is not installed; install it with: pip install 'umbel[auth]'",
            )
        ]
        with pytest.raises(AuthConfigError, match="kind: client certificates need a library"):
            made()
    finally:
        extra.is_installed.cache_clear()
