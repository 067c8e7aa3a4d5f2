"""TLS contexts for upstreams: trust, client certificates, and errors of files."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import certifi
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from umbel.upstream.pool.tls import client_context


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(ca: trustme.CA, tmp_path: Path) -> dict[str, str]:
    identity = ca.issue_cert("client.example")
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    ca.cert_pem.write_to_path(paths["ca"])
    identity.cert_chain_pems[0].write_to_path(paths["cert"])
    identity.private_key_pem.write_to_path(paths["key"])
    return {name: str(path) for name, path in paths.items()}


def test_a_client_context_verifies_certificate_and_name() -> None:
    context = client_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_a_configured_ca_replaces_the_systems_trust(files: dict[str, str]) -> None:
    context = client_context(ca=files["ca"])
    assert [each["subject"] for each in context.get_ca_certs()] == [
        each["subject"] for each in client_context(ca=files["ca"]).get_ca_certs()
    ]
    assert context.cert_store_stats()["x509_ca"] == 1


def test_no_environment_variable_changes_trust_or_leaks_keys(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = client_context().get_ca_certs(binary_form=True)
    ours = ssl.PEM_cert_to_DER_cert(Path(files["ca"]).read_text())
    monkeypatch.setenv("SSL_CERT_FILE", files["ca"])
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    context = client_context()
    assert context.get_ca_certs(binary_form=True) == usual
    assert ours not in context.get_ca_certs(binary_form=True)
    assert context.keylog_filename is None


def test_without_system_certificates_those_of_certifi_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = ssl.DefaultVerifyPaths(None, None, "X", str(tmp_path / "none.pem"), "Y", str(tmp_path / "none"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: nothing)
    expected = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    expected.load_verify_locations(cafile=certifi.where())
    assert client_context().cert_store_stats() == expected.cert_store_stats()


def test_a_client_certificate_is_loaded(files: dict[str, str]) -> None:
    client_context(cert=files["cert"], key=files["key"])


def broken(files: dict[str, str], tmp_path: Path, what: str) -> dict[str, str]:
    path = tmp_path / "broken.pem"
    path.write_text("this is no PEM")
    return {**files, what: str(path)}


@pytest.mark.parametrize("what", ["ca", "cert", "key"])
def test_a_missing_file_is_reported_in_one_sentence(files: dict[str, str], tmp_path: Path, what: str) -> None:
    path = str(tmp_path / "nowhere.pem")
    with pytest.raises(ValueError, match=f"^{what}: {path} cannot be read: no such file or directory$"):
        client_context(**{**files, what: path})


@pytest.mark.parametrize("what", ["ca", "cert", "key"])
def test_a_directory_is_reported_in_one_sentence(files: dict[str, str], tmp_path: Path, what: str) -> None:
    with pytest.raises(ValueError, match=f"^{what}: "):
        client_context(**{**files, what: str(tmp_path)})


@pytest.mark.parametrize("what", ["ca", "cert", "key"])
def test_a_file_without_pem_is_reported_in_one_sentence(files: dict[str, str], tmp_path: Path, what: str) -> None:
    with pytest.raises(ValueError, match="PEM form"):
        client_context(**broken(files, tmp_path, what))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_reported_in_one_sentence(files: dict[str, str]) -> None:
    Path(files["key"]).chmod(0)
    with pytest.raises(ValueError, match=r"^key: .* cannot be read: permission denied$"):
        client_context(**files)


def test_a_key_of_another_certificate_is_reported_in_one_sentence(ca: trustme.CA, files: dict[str, str]) -> None:
    ca.issue_cert("other.example").private_key_pem.write_to_path(files["key"])
    with pytest.raises(ValueError, match=r"^key: .* does not belong to the certificate in "):
        client_context(**files)


def test_an_encrypted_key_is_reported_without_asking_for_a_pass_phrase(files: dict[str, str]) -> None:
    key = serialization.load_pem_private_key(Path(files["key"]).read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    Path(files["key"]).write_bytes(encrypted)
    with pytest.raises(ValueError, match="unencrypted key"):
        client_context(**files)
