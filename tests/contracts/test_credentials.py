"""How clients prove who they are: nkeys, credentials files, passwords, certificates; and how these are rotated."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from contracts.errors import LoratoryError, SetupError, Unavailable
from contracts.events.datasets import DatasetCreated
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.migration import migrate
from contracts.wire.server import secret_files, user_keys
from contracts.wire.server.accounts import ROLES, SERVICES, Role
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.server.rotation import FAILURE, REQUEST, ask_for_rotation, rotate_offline, rotate_when_asked
from contracts.wire.service.bus import Bus, connect
from contracts.wire.service.connection import connect_service, credential_of
from contracts.wire.service.credentials import (
    CredentialsFile,
    Password,
    SeedFile,
    Tls,
    read_credentials_file,
    read_seed_file,
)
from contracts.wire.service.nkeys import Nkey, generate_nkey, parse_seed
from contracts.wire.service.settings import BusSettings, read_settings
from tests.certificates import client_tls, issue, issue_all, server_tls
from tests.conftest import NOW, append_events, last_sequence
from tests.contracts.cluster import Cluster
from tests.limits import WAIT

SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
"""From NATS's documentation, with the public key it has there."""
PUBLIC = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


# --- keys


def test_seeds_are_read_and_written_as_nats_does() -> None:
    key = parse_seed(f"{SEED}\n")
    assert (key.seed, key.public) == (SEED, PUBLIC)


def test_a_generated_key_survives_its_file(tmp_path: Path) -> None:
    key = generate_nkey()
    user_keys.store(tmp_path, {"trainer": key})
    file = user_keys.seed_file(tmp_path, "trainer")
    assert read_seed_file(file).public == key.public
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "hunter2", SEED[:-1], SEED[:-1] + "A", "S" * 58, Nkey(bytes(32)).public, SEED.lower(), "é"]
)
def test_what_is_no_seed_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "trainer.nk"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SetupError, match=r"trainer\.nk does not contain the seed of an nkey") as caught:
        read_seed_file(file)
    assert not text or text not in str(caught.value)


def test_a_missing_key_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"the key file .*nowhere cannot be read"):
        read_seed_file(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"damaged", b"", b"\xff\xfe"])
def test_a_damaged_key_of_ours_is_made_anew_and_the_others_are_kept(tmp_path: Path, content: bytes) -> None:
    before = user_keys.load_or_create(tmp_path)
    user_keys.seed_file(tmp_path, "catalog").write_bytes(content)

    after = user_keys.load_or_create(tmp_path)

    assert after.keys() == set(ROLES)
    assert [role for role in ROLES if after[role].public != before[role].public] == ["catalog"]
    assert read_seed_file(user_keys.seed_file(tmp_path, "catalog")).public == after["catalog"].public


def test_a_credentials_file_has_a_jwt_and_a_key(tmp_path: Path) -> None:
    file = tmp_path / "user.creds"
    jwt = f"-----BEGIN NATS USER JWT-----\neyJ0eXAi.x.y\n------END NATS USER JWT------\n\n{'*' * 10} IMPORTANT\n\n"
    file.write_text(f"{jwt}-----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n")
    found, key = read_credentials_file(file)
    assert (found, key.public) == ("eyJ0eXAi.x.y", PUBLIC)
    file.write_text(jwt)
    with pytest.raises(SetupError, match="is not a credentials file"):
        read_credentials_file(file)


# --- settings


def test_settings_say_how_to_log_in(tmp_path: Path) -> None:
    def credential(**settings: str) -> object:
        given = {"NATS_USER": "trainer", **settings}
        return credential_of(read_settings(BusSettings, {f"LORATORY_{name}": value for name, value in given.items()}))

    assert credential(NATS_NKEY_FILE="/k") == SeedFile(Path("/k"))
    assert credential(NATS_CREDENTIALS="/c") == CredentialsFile(Path("/c"))
    assert credential(NATS_PASSWORD="p") == Password("p")
    with pytest.raises(SetupError, match="set one of nats_nkey_file, nats_credentials and nats_password"):
        credential(NATS_NKEY_FILE="/k", NATS_PASSWORD="p")
    with pytest.raises(SetupError, match="nats_cert and nats_key belong together"):
        credential(NATS_NKEY_FILE="/k", NATS_CERT="/c")


async def test_an_old_client_with_a_password_is_refused_with_a_sentence(server: EmbeddedServer) -> None:
    sentence = r"as trainer within 1 s: .*Authorization.* does not accept the password"
    with pytest.raises(SetupError, match=f"(?i){sentence}"):
        await connect(server.url, "trainer", Password("p" + "x" * 40), "test", timeout=1)


async def test_a_refused_connect_ends_although_nats_py_lost_its_cancellation(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, cancelled = Bus._close, asyncio.Event()

    async def close_and_lose_cancellation(self: Bus, *arguments: object) -> None:
        if not cancelled.is_set():
            try:
                await asyncio.sleep(WAIT)
            except asyncio.CancelledError:
                cancelled.set()
        await close(self, *arguments)  # type: ignore[arg-type]  # as it was called

    user_keys.store(tmp_path, {"trainer": generate_nkey()})
    stranger = SeedFile(user_keys.seed_file(tmp_path, "trainer"))
    monkeypatch.setattr(Bus, "_close", close_and_lose_cancellation)
    with pytest.raises(SetupError, match="does not accept the nkey"):
        await connect(server.url, "trainer", stranger, "test", timeout=0.3)
    assert cancelled.is_set()


async def test_a_key_of_another_role_opens_only_that_role(server: EmbeddedServer) -> None:
    _, key = server.credentials("tagger")
    bus = await connect(server.url, "trainer", key, "test")
    await bus.publish("prog.train.j1")
    await bus.flush()
    assert bus.error_counts["not_permitted"] == 1
    await bus.close()


async def test_a_list_of_servers_is_tried_until_one_answers(server: EmbeddedServer) -> None:
    role, key = server.credentials("gateway")
    settings = BusSettings(nats_url=f"nats://127.0.0.1:1, {server.url}", nats_user=role, nats_nkey_file=key.path)
    async with await connect_service(settings, "test") as bus:
        assert bus.is_connected


@pytest.mark.parametrize("url", ["", ",", "nats://a:b:c", "nats://127.0.0.1:99999", "http://127.0.0.1:1"])
async def test_an_invalid_address_is_an_error(tmp_path: Path, url: str) -> None:
    user_keys.load_or_create(tmp_path)
    with pytest.raises(SetupError, match="NATS"):
        await connect(url, "trainer", SeedFile(user_keys.seed_file(tmp_path, "trainer")), "test", timeout=0.5)


@pytest.mark.slow
async def test_a_client_of_a_cluster_goes_on_with_another_server(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        bus = await connect(cluster.url, "admin", cluster.key("admin"), "test", timeout=WAIT)
        assert bus.connected_url is not None and bus.connected_url.port is not None
        await cluster.stop(bus.connected_url.port)
        async with asyncio.timeout(WAIT):
            while not bus.stats["reconnects"]:  # noqa: ASYNC110 - nats-py only counts
                await asyncio.sleep(0.05)
        await bus.flush()
        await bus.close()


# --- rotation


@asynccontextmanager
async def connected(server: EmbeddedServer, **options: Tls | None) -> AsyncIterator[dict[Role, Bus]]:
    buses = {role: await connect(server.url, *server.credentials(role), role, **options) for role in ROLES}  # type: ignore[arg-type]
    yield buses
    for bus in buses.values():
        await bus.close()


async def use(buses: dict[Role, Bus], stopped: asyncio.Event) -> int:
    """Appends and queries, one after the other, each of which must succeed."""
    count = 0
    while not stopped.is_set():
        await append_events(buses["catalog"], "dataset", f"d{count}", DatasetCreated(name="cats"))
        reply = await buses["gateway"].request("qry.catalog.get_job", str(count).encode(), timeout=WAIT)
        assert reply.data == str(count).encode()
        assert await last_sequence(EventLog(buses["trainer"])) > count
        count += 1
    return count


async def serve(catalog: Bus) -> None:
    async def answer(request: Msg) -> None:
        await request.respond(request.data)

    await catalog.subscribe("qry.catalog.*", cb=answer)
    await catalog.flush()


async def test_keys_are_rotated_without_a_lost_request(server: EmbeddedServer, tmp_path: Path) -> None:
    old = {role: server.credentials(role)[1].path.read_text() for role in ROLES}
    async with connected(server) as buses:
        await migrate(buses["admin"], at=NOW, lease=10)
        await serve(buses["catalog"])
        stopped = asyncio.Event()
        using = asyncio.create_task(use(buses, stopped))
        rotating = asyncio.create_task(rotate_when_asked(server.folder, server.rotate_keys, every=0.05))
        for turn in (1, 2):
            await ask_for_rotation(server.folder, timeout=WAIT)
            async with asyncio.timeout(WAIT):
                while any(bus.stats["reconnects"] < turn or not bus.is_connected for bus in buses.values()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        rotating.cancel()
        stopped.set()
        assert await using > 0
    for role in SERVICES:
        assert server.credentials(role)[1].path.read_text() != old[role]
        (tmp_path / role).write_text(old[role])
        with pytest.raises(SetupError, match="does not accept the nkey"):
            await connect(server.url, role, SeedFile(tmp_path / role), "test", timeout=0.3)


async def test_while_keys_are_rotated_old_and_new_ones_are_accepted(server: EmbeddedServer, tmp_path: Path) -> None:
    new = generate_nkey()
    user_keys.store(tmp_path, {"trainer": new})
    both = {role: (read_seed_file(server.credentials(role)[1].path).public,) for role in ROLES}
    await server._reload(both | {"trainer": (*both["trainer"], new.public)})
    for key in (server.credentials("trainer")[1], SeedFile(user_keys.seed_file(tmp_path, "trainer"))):
        async with await connect(server.url, "trainer", key, "test") as bus:
            await bus.publish("prog.train.j1")
            await bus.flush()
            assert not bus.error_counts


async def test_a_rotation_that_fails_says_why(server: EmbeddedServer) -> None:
    (server.folder / FAILURE).write_text("stale")
    asking = asyncio.create_task(ask_for_rotation(server.folder, timeout=WAIT))
    async with asyncio.timeout(WAIT):
        while not (server.folder / REQUEST).exists():  # noqa: ASYNC110 - a file of another task
            await asyncio.sleep(0.01)
    (server.folder / FAILURE).write_text("the disk is full")
    (server.folder / REQUEST).unlink()
    with pytest.raises(SetupError, match=r"^the disk is full$"):
        await asking
    with pytest.raises(SetupError, match="has not answered within"):
        await ask_for_rotation(server.folder, timeout=0.05)
    assert not (server.folder / REQUEST).exists()


async def test_keys_are_rotated_while_nothing_runs(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        before = server.credentials("catalog")[1].path.read_text()
    rotate_offline(tmp_path)
    async with EmbeddedServer(tmp_path) as server, await connect(server.url, *server.credentials("catalog"), "t"):
        assert server.credentials("catalog")[1].path.read_text() != before


def test_the_secrets_of_containers_are_rotated_in_two_steps(tmp_path: Path) -> None:
    secret_files.write_secrets(tmp_path)
    users, seed = tmp_path / "users" / "trainer.conf", tmp_path / "trainer"
    old, inode = read_seed_file(seed).public, seed.stat().st_ino
    assert users.read_text() == f"users: [ {{ nkey: {old} }} ]\n"
    secret_files.rotate(tmp_path)
    new = read_seed_file(tmp_path / "trainer.next").public
    assert users.read_text() == f"users: [ {{ nkey: {old} }}, {{ nkey: {new} }} ]\n"
    assert read_seed_file(seed).public == old
    secret_files.rotate(tmp_path)
    assert users.read_text() == f"users: [ {{ nkey: {new} }} ]\n"
    assert (read_seed_file(seed).public, seed.stat().st_ino) == (new, inode)
    assert not list(tmp_path.glob("*.next"))


# --- TLS


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    folder = issue_all(tmp_path / "tls")
    issue(folder, "stranger")
    return folder


@pytest.mark.slow
async def test_server_and_client_verify_each_other(certificates: Path, tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "nats", tls=server_tls(certificates)) as server:
        assert server.url.startswith("tls://")
        login = server.credentials("trainer")
        async with await connect(server.url, *login, "test", tls=client_tls(certificates)) as bus:
            await bus.flush()
        for refused in (
            client_tls(certificates, authority="stranger"),
            client_tls(certificates, "stranger"),
            Tls(ca=certificates / "authority.pem"),
            None,
        ):
            with pytest.raises(LoratoryError, match="no connection to NATS"):
                await connect(server.url, *login, "test", tls=refused, timeout=0.5)


async def test_nothing_is_sent_in_clear_where_tls_is_required(server: EmbeddedServer, certificates: Path) -> None:
    with pytest.raises(LoratoryError, match="the server offers no TLS, which the settings require"):
        await connect(server.url, *server.credentials("trainer"), "t", tls=client_tls(certificates), timeout=0.5)
    with pytest.raises(LoratoryError, match="the server offers no TLS"):
        url = server.url.replace("nats://", "tls://")
        await connect(url, *server.credentials("trainer"), "test", timeout=0.5)


@pytest.mark.slow
async def test_a_server_that_never_answers_the_handshake_is_given_up(certificates: Path) -> None:
    greeting = b'INFO {"server_id":"mute","version":"2.15.1","max_payload":1048576,"tls_required":true}\r\n'

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as mute:
        url = f"tls://127.0.0.1:{mute.sockets[0].getsockname()[1]}"
        with pytest.raises(Unavailable, match="no connection to NATS"):
            async with asyncio.timeout(WAIT):
                await connect(url, "trainer", Password("x"), "test", tls=client_tls(certificates), timeout=0.2)


async def test_missing_certificates_are_named(server: EmbeddedServer, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"the TLS files cannot be used \(.*nowhere\.pem\): No such file"):
        await connect(server.url, *server.credentials("trainer"), "t", tls=Tls(ca=tmp_path / "nowhere.pem"))


async def test_certificates_are_read_again_at_each_reconnect(certificates: Path, tmp_path: Path) -> None:
    async with (
        EmbeddedServer(tmp_path / "nats", tls=server_tls(certificates)) as server,
        connected(server, tls=client_tls(certificates)) as buses,
    ):
        await migrate(buses["admin"], at=NOW, lease=10)
        await serve(buses["catalog"])
        stopped = asyncio.Event()
        using = asyncio.create_task(use(buses, stopped))
        issue_all(certificates)
        await server.reload()
        for bus in buses.values():
            await bus.force_reconnect()
        async with asyncio.timeout(WAIT):
            while any(not bus.stats["reconnects"] or not bus.is_connected for bus in buses.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        stopped.set()
        assert await using > 0
