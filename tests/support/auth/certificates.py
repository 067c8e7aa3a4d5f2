"""An authority that certifies services by URIs. (trustme certifies DNS names and addresses only.)"""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Authority:
    """An authority.

    Args:
        folder: where its files are written.
        name: the beginning of their names.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issued = 0
        usage = x509.KeyUsage(*(each in ("sign", "crl") for each in _USES))
        certificate = (
            self._builder(self._subject, self._key.public_key(), expired=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, SHA256())
        )
        self.file = folder / f"{name}.pem"
        """The certificate of the authority."""
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, uri: str, *, expired: bool = False) -> Path:
        """Issue a certificate for a URI; return the file with certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        self._issued += 1
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{self._name} {self._issued}")])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        certificate = (
            self._builder(subject, key.public_key(), expired=expired)
            .add_extension(names, critical=False)
            .sign(self._key, SHA256())
        )
        file = self._folder / f"{self._name}-{self._issued}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
        return file

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool) -> x509.CertificateBuilder:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * day)
            .not_valid_after(now - day if expired else now + day)
        )


_USES = ("digital", "commitment", "encipherment", "data", "agreement", "sign", "crl", "encipher_only", "decipher_only")
"""The key usages in the order of ``x509.KeyUsage``."""


def client_context(server_authority: Path, certificate: Path | None = None) -> ssl.SSLContext:
    """TLS of a client that trusts an authority, and presents a certificate if one is given."""
    context = ssl.create_default_context(cafile=str(server_authority))
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context
