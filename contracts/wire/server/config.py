"""The configuration of nats-server as text, for the embedded server and for the one of the compose file. Pure."""

from collections.abc import Callable, Iterable

import msgspec

from contracts.wire.server.accounts import ROLES, STORE, Role, Share, account_of, permissions, shares

MAX_PAYLOAD = 1 << 20
"""Bytes of one message. Commits are limited to 200 KiB, far below this; it bounds the results of queries."""
PING_INTERVAL_SECONDS = 4
MAX_UNANSWERED_PINGS = 2
"""Unanswered pings after which a client counts as gone. The default takes minutes, during which a blocked service keeps
receiving its share of requests although another instance would answer them."""

Users = Callable[[Role], str]
"""The lines of the configuration that name the users of a role's account: `render_users`, or an `include`."""


class ServerTls(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files of the server: its certificate with key, and the authority of clients' certificates.

    With `ca` only clients whose certificate it signed may connect.
    """

    cert: str
    key: str
    ca: str | None = None


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
    tls: ServerTls | None = None


def render_config(settings: ServerSettings, users: Users) -> str:
    """A whole `nats.conf`.

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
        *(_tls(settings.tls) if settings.tls else ()),
        "jetstream {",
        f"  store_dir: {_quote(settings.store)}",
        f"  sync_interval: {'always' if settings.durable else _quote('2m')}",
        f"  max_file_store: {settings.max_file_store}",
        f"  max_memory_store: {settings.max_memory_store}",
        "}",
        "system_account: SYS",
        "accounts {",
        "  SYS {}",
        *(line for role in ROLES for line in _account(role, users(role))),
        "}",
    ]
    if settings.log_file:
        lines += [f"log_file: {_quote(settings.log_file)}", f"log_size_limit: {settings.log_bytes}", "log_max_num: 4"]
    return "\n".join(lines) + "\n"


def render_users(public_keys: Iterable[str]) -> str:
    """Users of one account, by their public nkeys: several while keys are rotated. All have the same permissions."""
    return f"users: [ {', '.join(f'{{ nkey: {key} }}' for key in public_keys)} ]"


def _tls(files: ServerTls) -> list[str]:
    verify = [f"  ca_file: {_quote(files.ca)}", "  verify: true"] if files.ca else []
    return ["tls {", f"  cert_file: {_quote(files.cert)}", f"  key_file: {_quote(files.key)}", *verify, "}"]


def _account(role: Role, users: str) -> list[str]:
    allowed = permissions(role)
    return [
        f"  {account_of(role)} {{",
        *(["    jetstream: enabled"] if role == STORE else []),
        f"    {users}",
        "    default_permissions: {",
        *_list("publish: { allow", map(_quote, allowed.publish), " }"),
        *_list("subscribe: { allow", map(_quote, allowed.subscribe), " }"),
        "    }",
        *_list("exports", (_export(share) for share in shares() if share.provider == role)),
        *_list("imports", (_import(share) for share in shares() if role in share.consumers)),
        "  }",
    ]


def _export(share: Share) -> str:
    many = ", response_type: stream" if share.has_many_replies else ""
    accounts = ", ".join(map(account_of, share.consumers))
    return f"{{ {share.kind}: {_quote(share.subject)}, accounts: [{accounts}]{many} }}"


def _import(share: Share) -> str:
    to = "" if share.local_subject == share.subject else f", to: {_quote(share.local_subject)}"
    return f"{{ {share.kind}: {{ account: {account_of(share.provider)}, subject: {_quote(share.subject)} }}{to} }}"


def _list(name: str, items: Iterable[str], end: str = "") -> list[str]:
    return [f"    {name}: [", *(f"      {item}" for item in items), f"    ]{end}"]


def _quote(text: str) -> str:
    return msgspec.json.encode(text).decode()
