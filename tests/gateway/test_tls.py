"""The certificate of the gateway: what is refused, and its renewal while it is used."""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from contracts.errors import SetupError
from gateway.http.tls import Certificate
from gateway.settings import Settings, refuse_unsafe
from tests.certificates import issue_all


@pytest.fixture
def pems(tmp_path: Path) -> Path:
    return issue_all(tmp_path / "pems")


@contextlib.asynccontextmanager
async def listening(certificate: Certificate) -> AsyncIterator[int]:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=certificate.context) as server:
        yield server.sockets[0].getsockname()[1]


async def serial_at(port: int, authority: Path) -> int:
    """Of the certificate that a client gets, who trusts this authority."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context(cafile=authority))
    encoded = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    del reader
    return x509.load_der_x509_certificate(encoded).serial_number


def serial_of(cert: Path) -> int:
    return x509.load_pem_x509_certificate(cert.read_bytes()).serial_number


async def test_a_renewed_certificate_is_taken_for_new_connections(pems: Path, tmp_path: Path) -> None:
    cert, key, authority = pems / "server.pem", pems / "server.key", pems / "authority.pem"
    certificate = Certificate(cert, key)
    async with listening(certificate) as port:
        first = await serial_at(port, authority)
        assert first == serial_of(cert)
        certificate.reload_if_changed()
        assert await serial_at(port, authority) == first

        renewed = issue_all(tmp_path / "renewed")
        shutil.copy(renewed / "server.pem", cert)  # its key is still the old one
        certificate.reload_if_changed()
        assert await serial_at(port, authority) == first
        shutil.copy(renewed / "server.key", key)
        certificate.reload_if_changed()
        assert await serial_at(port, renewed / "authority.pem") == serial_of(cert) != first

        key.unlink()
        certificate.reload_if_changed()
        assert await serial_at(port, renewed / "authority.pem") == serial_of(cert)


def test_files_that_are_no_certificate_and_its_key_are_refused(pems: Path) -> None:
    cert, key = pems / "server.pem", pems / "server.key"
    with pytest.raises(SetupError, match="cannot be read"):
        Certificate(cert, pems / "nowhere.key")
    with pytest.raises(SetupError, match="not a certificate and its private key"):
        Certificate(cert, pems / "client.key")
    with pytest.raises(SetupError, match="not a certificate and its private key"):
        Certificate(key, key)
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(pem, pkcs8, encryption))
    with pytest.raises(SetupError, match="without a password"):
        Certificate(cert, key)


@pytest.mark.parametrize("settings", [Settings(tls_cert=Path("a.pem")), Settings(tls_key=Path("a.key"))])
def test_a_certificate_needs_its_key_and_a_key_its_certificate(settings: Settings) -> None:
    with pytest.raises(SetupError, match="belong together"):
        refuse_unsafe(settings)


@pytest.mark.parametrize("origin", ["*", "studio.example", "https://studio.example/", "https://", "ftp://x", "null"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    refuse_unsafe(Settings(cors_origins=("https://studio.example:8443", "http://[::1]:3000", "http://LOCALHOST")))
    with pytest.raises(SetupError, match="LORATORY_CORS_ORIGINS"):
        refuse_unsafe(Settings(cors_origins=(origin,)))
