"""The configuration of nats-server as text, for the embedded server and for the one of the compose file. Pure."""

from collections.abc import Mapping

import msgspec

from contracts.wire.server.permissions import ROLES, Role, permissions

MAX_PAYLOAD = 1 << 20
"""Bytes of one message. Commits are limited to 200 KiB, far below this; it bounds the results of queries."""
PING_INTERVAL_SECONDS = 4
MAX_UNANSWERED_PINGS = 2
"""Unanswered pings after which a client counts as gone. The default takes minutes, during which a blocked service keeps
receiving its share of requests although another instance would answer them."""
ACCOUNT = "LORATORY"
"""The account of all services; the server names a folder by it."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`host` and `port` of clients (-1: a free one), `store` the folder of streams; sizes in bytes.

    `durable`: each message is on disk before it is acknowledged. Without it a power cut may lose two minutes.
    `log_file` is rotated at `log_bytes`, keeping three old ones; none = stderr, as containers expect.
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
    """A whole `nats.conf`. nats-server itself expands a password that starts with `$` from that variable.

    `sync_interval: always`: with the default of two minutes a power cut loses acknowledged events. Ack format 2 breaks
    ordered consumers of nats-py 2.16, so it is off whatever a later server's default is.
    """
    lines = [
        f"server_name: {_quote(settings.name)}",
        f"host: {_quote(settings.host)}",
        f"port: {settings.port}",
        f"max_payload: {MAX_PAYLOAD}",
        f'ping_interval: "{PING_INTERVAL_SECONDS}s"',
        f"ping_max: {MAX_UNANSWERED_PINGS}",
        "feature_flags { js_ack_fc_v2: false }",
        "jetstream {",
        f"  store_dir: {_quote(settings.store)}",
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
        lines += [f"log_file: {_quote(settings.log_file)}", f"log_size_limit: {settings.log_bytes}", "log_max_num: 4"]
    return "\n".join(lines) + "\n"


def _user(role: Role, password: str) -> str:
    allowed = permissions(role)
    secret = password if password.startswith("$") else _quote(password)
    may_reply = '\n        allow_responses: { max: 1, expires: "2m" }' if allowed.may_reply else ""
    return (
        f"      {{ user: {role}, password: {secret}, permissions: {{\n"
        f"        publish: {{ allow: {_list(allowed.publish)} }}\n"
        f"        subscribe: {{ allow: {_list(allowed.subscribe)} }}{may_reply}\n"
        f"      }} }}"
    )


def _list(subjects: tuple[str, ...]) -> str:
    inner = "".join(f"\n          {_quote(subject)}" for subject in subjects)
    return f"[{inner}\n        ]"


def _quote(text: str) -> str:
    return msgspec.json.encode(text).decode()
