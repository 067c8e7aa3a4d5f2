"""X-Forwarded-Client-Cert: the names in the last element."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.auth.certificates.forwarded_client_cert import (
    ELEMENTS_MAX,
    SIZE_MAX,
    CertificateNames,
    names_of_last_element,
)

ENVOY = (
    'By=spiffe://gw.example/envoy;Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;'
    'Subject="/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client";URI=spiffe://a.example/client;DNS=a.example;DNS=b.example'
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "uris", "dns"),
    [
        (ENVOY, ("spiffe://a.example/client",), ("a.example", "b.example")),
        ("URI=spiffe://other," + ENVOY, ("spiffe://a.example/client",), ("a.example", "b.example")),
        (ENVOY + ", By=x;URI=spiffe://last", ("spiffe://last",), ()),
        (ENVOY + ",Hash=00", (), ()),
        ('Subject="a;URI=spiffe://admin;Y=",' + ENVOY, ("spiffe://a.example/client",), ("a.example", "b.example")),
        ("uri=a:1;Uri=b:2;dNS=c", ("a:1", "b:2"), ("c",)),
        ('URI="a://b?c=d,e;f";Subject=""', ("a://b?c=d,e;f",), ()),
        ("URI=a://b?c=d", ("a://b?c=d",), ()),
        (r'Subject="CN=a\"b\\,O=c\,d";URI="a\"\\b"', ('a"\\b',), ()),
        (r'Subject="CN=a\",URI=spiffe://admin";URI=spiffe://a', ("spiffe://a",), ()),
        ('Cert="-----BEGIN%20CERTIFICATE-----%0A";URI= ;DNS=a ;New=x', (), ("a",)),
        ('By="x" , URI="a" ;DNS=b', ("a",), ("b",)),
    ],
)
def test_the_last_element_has_the_names(value: str, uris: tuple[str, ...], dns: tuple[str, ...]) -> None:
    assert names_of_last_element(value) == CertificateNames(uris, dns)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "URI",
        "URI=a,",
        ",URI=a",
        "URI=a,,URI=b",
        "URI=a;",
        "URI=a;;DNS=b",
        "=a",
        "U RI=a",
        'URI="a',
        'URI="a\\"',
        'URI="a"b',
        'URI=a"b"',
        "URI=a\\b",
        "URI=a;b",
        'X=",' + ENVOY,
        'X="a"' + ENVOY,
        "URI=" + "a" * SIZE_MAX,
        ",".join(["URI=a"] * (ELEMENTS_MAX + 1)),
    ],
)
def test_a_malformed_element_makes_the_whole_value_malformed(value: str) -> None:
    assert names_of_last_element(value) is None


def test_as_many_elements_as_allowed_are_read() -> None:
    assert names_of_last_element(",".join(["URI=a"] * ELEMENTS_MAX)) == CertificateNames(("a",), ())
    assert names_of_last_element("URI=" + "a" * (SIZE_MAX - 4)) is not None


TEXTS = st.text(st.sampled_from('aU=",;\\ \t\n\xe9'), max_size=40)


@given(TEXTS)
def test_no_value_raises(value: str) -> None:
    names_of_last_element(value)


@given(TEXTS, TEXTS)
def test_a_client_cannot_change_the_element_that_a_proxy_appends(before: str, uri: str) -> None:
    """What a client sends is followed by a comma and the proxy's element; the result is that element or malformed."""
    quoted = uri.replace("\\", "\\\\").replace('"', '\\"')
    names = names_of_last_element(f'{before},By="gw";URI="{quoted}"')
    assert names is None or names == CertificateNames((uri,) if uri else (), ())
