"""The connection of a service to the bus, from its settings."""

from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.credentials import Credential, CredentialsFile, Password, SeedFile, Tls
from contracts.wire.service.settings import BusSettings


async def connect_service(settings: BusSettings, name: str) -> Bus:
    """Reconnects for ever. SetupError: there is no connection within CONNECT_TIMEOUT_SECONDS, or a file is wrong."""
    return await connect(settings.nats_url, settings.nats_user, credential_of(settings), name, tls=tls_of(settings))


def credential_of(settings: BusSettings) -> Credential:
    if settings.nats_nkey_file is not None:
        return SeedFile(settings.nats_nkey_file)
    if settings.nats_credentials is not None:
        return CredentialsFile(settings.nats_credentials)
    return Password(settings.nats_password)


def tls_of(settings: BusSettings) -> Tls | None:
    """None: TLS is used if the server or the address demands it, with the authorities of the system."""
    if settings.nats_ca is None and settings.nats_cert is None:
        return None
    return Tls(ca=settings.nats_ca, cert=settings.nats_cert, key=settings.nats_key)
