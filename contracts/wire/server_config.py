"""The configuration of nats-server as text, the same for the embedded one and for the one of a compose file. Pure."""

from collections.abc import Mapping

import msgspec

from contracts.wire.permissions import ROLES, Role, permissions

MAX_PAYLOAD = 1 << 20
"""Bytes of one message. Commits are refused at 200 KiB long before this; it bounds answers to queries."""
PING_SECONDS = 4
PINGS = 2
"""A client that left so many pings unanswered is gone. By default that takes minutes, and a service that stands still
is given its share of all requests meanwhile, though another answers beside it."""


ACCOUNT = "LORATORY"
"""The account of all services; the server names a folder by it."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`host` and `port` of clients (-1: a free one), `store` the folder of streams; sizes in bytes.

    `durable`: each message is on disk before it is acknowledged. Without, a power cut may take two minutes.
    `log_file` is rotated at `log_bytes`, three old ones are kept; none = stderr, as containers want it.
    """

    store: str
    host: str = "127.0.0.1"
    port: int = -1
    name: str = "loratory"
    max_file_store: int = 16 << 30
    max_memory_store: int = 64 << 20
    durable: bool = True
    log_file: str | None = None
    log_bytes: int = 8 << 20


def render_config(settings: ServerSettings, passwords: Mapping[Role, str]) -> str:
    """A whole `nats.conf`. A password that starts with `$` is left to nats-server, which reads that variable.

    `sync_interval: always`: with the default of two minutes a power cut loses acknowledged events. Ack format 2 breaks
    ordered consumers of nats-py 2.16, so it is off whatever a later server's default is.
    """
    lines = [
        f"server_name: {_quoted(settings.name)}",
        f"host: {_quoted(settings.host)}",
        f"port: {settings.port}",
        f"max_payload: {MAX_PAYLOAD}",
        f'ping_interval: "{PING_SECONDS}s"',
        f"ping_max: {PINGS}",
        "feature_flags { js_ack_fc_v2: false }",
        "jetstream {",
        f"  store_dir: {_quoted(settings.store)}",
        f"  sync_interval: {'always' if settings.durable else '2m'}",
        f"  max_file_store: {settings.max_file_store}",
        f"  max_memory_store: {settings.max_memory_store}",
        "}",
        "system_account: SYS",
        "accounts {",
        "  SYS {}",
        f"  {ACCOUNT} {{",
        "    jetstream: enabled",
        "    users: [",
        *(_user(role, passwords[role]) for role in ROLES),
        "    ]",
        "  }",
        "}",
    ]
    if settings.log_file:
        lines += [
            f"log_file: {_quoted(settings.log_file)}",
            f"log_size_limit: {settings.log_bytes}",
            "log_max_num: 4",
        ]
    return "\n".join(lines) + "\n"


def _user(role: Role, password: str) -> str:
    allowed = permissions(role)
    secret = password if password.startswith("$") else _quoted(password)
    answers = '\n        allow_responses: { max: 1, expires: "2m" }' if allowed.answers else ""
    return (
        f"      {{ user: {role}, password: {secret}, permissions: {{\n"
        f"        publish: {{ allow: {_listed(allowed.publish)} }}\n"
        f"        subscribe: {{ allow: {_listed(allowed.subscribe)} }}{answers}\n"
        f"      }} }}"
    )


def _listed(subjects: tuple[str, ...]) -> str:
    inner = "".join(f"\n          {_quoted(subject)}" for subject in subjects)
    return f"[{inner}\n        ]"


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()
