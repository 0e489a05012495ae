"""Mutual TLS 1.3 between members: one pinned certificate each, no authority, no host names.

A certificate is trusted because the manifest lists its exact bytes. Self-made ones are valid from 2024 to 2049: their
lifetime is governed by the manifest, and a bank whose clock is months off can still connect.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from asyncio import sslproto
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from p2pfed import newfile
from p2pfed.core.consortium import Manifest
from p2pfed.core.types import NodeId
from p2pfed.errors import NotPermitted, StateCorrupt, UsageError
from p2pfed.net import limits

VALID_FROM = datetime(2024, 1, 1, tzinfo=UTC)
VALID_UNTIL = datetime(2049, 12, 31, tzinfo=UTC)


@dataclass(frozen=True)
class Pins:
    """The certificates (DER) of a manifest's members, both ways round."""

    by_member: dict[NodeId, tuple[bytes, ...]]
    by_certificate: dict[bytes, NodeId]
    unreadable: tuple[NodeId, ...]
    """Members of whose certificates OpenSSL can read none: nobody can talk to them until the manifest changes."""

    @property
    def certificates(self) -> list[bytes]:
        """All of them."""
        return list(self.by_certificate)


def pins_of(manifest: Manifest, blocked: frozenset[NodeId] = frozenset()) -> Pins:
    """The pins of every member that is not blocked. A certificate two members list belongs to neither."""
    by_member: dict[NodeId, tuple[bytes, ...]] = {}
    owners: dict[bytes, set[NodeId]] = {}
    for node, member in manifest.by_id.items():
        certificates = readable(member.certificates)
        for der in certificates:
            owners.setdefault(der, set()).add(node)
        if node not in blocked:
            by_member[node] = certificates
    shared = {der for der, nodes in owners.items() if len(nodes) > 1}
    by_member = {node: tuple(der for der in ders if der not in shared) for node, ders in by_member.items()}
    return Pins(
        by_member={node: certificates for node, certificates in by_member.items() if certificates},
        by_certificate={der: node for node, certificates in by_member.items() for der in certificates},
        unreadable=tuple(node for node, certificates in by_member.items() if not certificates),
    )


def readable(certificates: Iterable[str]) -> tuple[bytes, ...]:
    """Those of `certificates` (base64) that OpenSSL can read, as DER."""
    return tuple(der for text in certificates if _is_certificate(der := base64.b64decode(text)))


def _is_certificate(der: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except ssl.SSLError:
        return False
    return True


def make_certificate(name: str, key_type: Literal["ed25519", "p256"] = "ed25519") -> bytes:
    """A new private key and its self-signed certificate for `name`, as PEM; P-256 is for hosts in FIPS mode."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ed25519.Ed25519PrivateKey.generate() if key_type == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signing_only = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(VALID_FROM)
        .not_valid_after(VALID_UNTIL)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(signing_only, critical=True)
        .add_extension(both_ends, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, None if key_type == "ed25519" else hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem) + private


def write_pem(path: Path, pem: bytes) -> None:
    """Write a private key and certificate, mode 0600, flushed to disk; raises UsageError if the file exists."""
    try:
        newfile.write_once(path, pem, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists; a TLS key is never overwritten: move it away first") from None


def certificate_of(path: Path) -> bytes:
    """The certificate (DER) in a PEM file; raises NotPermitted if others may read the key beside it, StateCorrupt."""
    _check_private(path)
    text = path.read_text(errors="replace")
    start, end = text.find(ssl.PEM_HEADER), text.find(ssl.PEM_FOOTER)
    if start < 0 or end < start:
        raise StateCorrupt(f"{path} holds no certificate; restore it from a backup")
    try:
        return ssl.PEM_cert_to_DER_cert(text[start : end + len(ssl.PEM_FOOTER)])
    except ValueError:
        raise StateCorrupt(f"the certificate in {path} is damaged; restore it from a backup") from None


def bound_buffers() -> None:
    """Let every TLS connection of this process begin with a read buffer of `limits.TLS_BUFFER`."""
    sslproto.SSLProtocol.max_size = limits.TLS_BUFFER


def receive_into(transport: asyncio.BaseTransport, shared: memoryview) -> None:
    """Let an open TLS connection receive into `shared` instead of a buffer of its own, as others of its loop do.

    What is received lies there only until asyncio has handed it to OpenSSL, which it does in the same step.
    """
    connection = transport._ssl_protocol  # type: ignore[attr-defined]  # asyncio has no public way
    connection._ssl_buffer = connection._ssl_buffer_view = shared
    connection.max_size = min(connection.max_size, len(shared))  # it would make itself a larger one


def server_context(pem: Path, certificates: Iterable[bytes]) -> ssl.SSLContext:
    """Accepts only clients that hold the key of one of `certificates` (DER)."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, pem, certificates)
    context.num_tickets = 0  # a resumed session would outlive a revocation
    return context


def client_context(pem: Path, certificates: Iterable[bytes]) -> ssl.SSLContext:
    """Connects only to a server that holds the key of one of `certificates` (DER), under whatever host name."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, pem, certificates)


def _context(protocol: int, pem: Path, certificates: Iterable[bytes]) -> ssl.SSLContext:
    _check_private(pem)
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a pinned leaf counts, whoever issued it
    try:
        context.load_cert_chain(pem)
    except ssl.SSLError as error:
        problem = f"{pem} is not a key with its certificate ({error.reason}); restore it from a backup"
        raise StateCorrupt(problem) from None
    for certificate in certificates:
        context.load_verify_locations(cadata=certificate)
    return context


def _check_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise StateCorrupt(f"{path} is missing: `p2pfed init` makes it, or restore it from a backup") from None
    except OSError as error:
        raise StateCorrupt(f"{path} cannot be read: {error.strerror}; restore it from a backup") from None
    if mode & 0o077:
        raise NotPermitted(f"{path} can be read by others (mode {mode & 0o777:04o}): chmod 600 {path}")
