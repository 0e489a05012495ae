"""Certificates that `p2pfed init` would not make, but a bank might bring."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from p2pfed.core.identity import Identity
from p2pfed.net.tls import VALID_FROM, VALID_UNTIL, write_pem
from tests.net.nodes import Bank

PEM = serialization.Encoding.PEM


def authority_and_leaf(directory: Path) -> tuple[Bank, Path]:
    """A bank whose certificate is an authority's, and the PEM file of a leaf which that authority issued."""
    root_key, root = _certificate("authority", None, None, authority=True)
    _write(directory / "authority.pem", root, root_key)
    leaf_key, leaf = _certificate("leaf", root, root_key, authority=False)
    _write(directory / "leaf.pem", leaf, leaf_key)
    return Bank("authority", Identity.generate(), directory / "authority.pem"), directory / "leaf.pem"


def expired(path: Path) -> None:
    """Write a self-made certificate that ran out long ago."""
    key, certificate = _certificate("old", None, None, authority=False, until=VALID_FROM + datetime.timedelta(days=1))
    _write(path, certificate, key)


def _write(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_pem(path, certificate.public_bytes(PEM) + private)


def _certificate(name, issuer, issuer_key, *, authority, until=VALID_UNTIL):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer_key or key
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return key, certificate
