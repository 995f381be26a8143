"""Events of the keys that services sign their commits with; each aggregate is one key. Signed by the root key."""

from typing import Literal

from contracts.definitions import union_in
from contracts.events.base import Event

SigningService = Literal["catalog", "tagger", "trainer"]
"""The services that append to the log."""


class ServiceKeyRootEstablished(Event, frozen=True, tag="service-key.root_established"):
    """The workshop's root key, signed with itself; its private half is in `keys.db`. `replaces`: the lost one's id."""

    public_key: str
    """Ed25519 (RFC 8032), 32 bytes in hex."""
    replaces: str = ""

    def describe(self) -> str:
        return "Replaced the lost root key" if self.replaces else "Established the root key"


class ServiceKeyRegistered(Event, frozen=True, tag="service-key.registered"):
    """From here on commits signed with this key are those of this service. Again, when it writes a newer schema."""

    service: SigningService
    public_key: str
    """Ed25519 (RFC 8032), 32 bytes in hex."""
    schema: int = 1
    """The newest schema of events that the service writes (`contracts.evolution`)."""

    def describe(self) -> str:
        return f"Registered a signing key of the {self.service}"


class ServiceKeyRetired(Event, frozen=True, tag="service-key.retired"):
    """From here on nothing signed with this key is accepted; commits before stay as they are."""

    def describe(self) -> str:
        return "Retired a signing key"


ServiceKeyEvent = union_in(__name__, Event)
