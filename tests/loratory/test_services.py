"""What each service is told, and how often one may die."""

from pathlib import Path

from loratory.folder import DataFolder
from loratory.services import MOST_DEATHS, SERVICES, WITHIN, Deaths, Place, Service, settings, told

GIVEN = {
    "PATH": "/bin",
    "LORATORY_API_KEY": "a key of sixteen",
    "LORATORY_MODELS": "/models",
    "LORATORY_URL": "http://elsewhere",
    "LORATORY_NATS_URL": "nats://elsewhere",
}
BUS = {"NATS_URL": "nats://here:1", "NATS_USER": "u", "NATS_PASSWORD": "p"}


def environment(service: Service) -> dict[str, str]:
    return settings(service, DataFolder(Path("/data")), bus=BUS, given=GIVEN, at=Place("127.0.0.1", 8000))


def ours(service: Service) -> dict[str, str]:
    return {
        name.removeprefix("LORATORY_"): v for name, v in environment(service).items() if name.startswith("LORATORY_")
    }


def test_every_service_gets_the_bus_the_blobs_and_its_health_file() -> None:
    for service in SERVICES:
        wanted = {**BUS, "BLOBS": "/data/blobs", "HEALTH_FILE": f"/data/run/{service}.json"}
        assert wanted.items() <= ours(service).items()


def test_only_the_gateway_hears_the_key() -> None:
    assert [service for service in SERVICES if "API_KEY" in ours(service)] == ["gateway"]


def test_settings_of_the_user_go_on_only_where_they_are_not_the_stacks_own() -> None:
    trainer = ours("trainer")
    assert [service for service in SERVICES if "MODELS" in ours(service)] == ["tagger"]
    assert trainer["NATS_URL"] == "nats://here:1"
    assert "URL" not in trainer
    assert environment("trainer")["PATH"] == "/bin"


def test_lives_come_ever_slower_and_end() -> None:
    deaths = Deaths()
    pauses = [deaths.another(now=float(second)) for second in range(MOST_DEATHS)]
    assert pauses[:3] == [0.2, 0.4, 0.8]
    assert pauses[-1] == 10.0
    assert deaths.another(now=float(MOST_DEATHS)) is None


def test_who_dies_seldom_always_gets_another_life() -> None:
    deaths = Deaths()
    assert {deaths.another(now=number * WITHIN) for number in range(3 * MOST_DEATHS)} == {0.2}


def test_an_end_is_told_in_words() -> None:
    assert told(2, "no such base") == "exit code 2: no such base"
    assert told(-9, "half a li") == "SIGKILL"
