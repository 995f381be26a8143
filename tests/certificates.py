"""Certificates for the bus: an authority, and what it signs for the server and its clients; as PEM files."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from contracts.wire.server.config import ServerTls
from contracts.wire.service.credentials import Tls


def issue_all(folder: Path) -> Path:
    """`authority`, and by it `server` and `client`. Again: a new authority, under which old ones are worth nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    issue(folder, "authority")
    for name in ("server", "client"):
        issue(folder, name, "authority")
    return folder


def issue(folder: Path, name: str, issuer: str | None = None) -> None:
    """`NAME.pem` and `NAME.key`, signed by `issuer` (None: by itself, as an authority)."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, issuer_name = key, subject
    if issuer is not None:
        signer = serialization.load_pem_private_key((folder / f"{issuer}.key").read_bytes(), None)  # type: ignore[assignment]
        issuer_name = x509.load_pem_x509_certificate((folder / f"{issuer}.pem").read_bytes()).subject
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(key_usage(is_authority=issuer is None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


def key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def server_tls(folder: Path) -> ServerTls:
    return ServerTls(cert=str(folder / "server.pem"), key=str(folder / "server.key"), ca=str(folder / "authority.pem"))


def client_tls(folder: Path, name: str = "client", authority: str = "authority") -> Tls:
    return Tls(ca=folder / f"{authority}.pem", cert=folder / f"{name}.pem", key=folder / f"{name}.key")
