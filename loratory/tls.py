"""TLS of clients: which servers they trust."""

import ssl
from pathlib import Path

from contracts.errors import SetupError


def trusting(ca: Path) -> ssl.SSLContext:
    """Trusts servers with a certificate of these authorities only (PEM). SetupError: the file cannot be read."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise SetupError(f"{ca} cannot be read as certificates of authorities: {error}") from error


def trusting_exactly(cert: Path) -> ssl.SSLContext:
    """Trusts a server with this very certificate, whatever it is called: one that this process started itself."""
    context = trusting(cert)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
