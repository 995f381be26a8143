"""The environment of each service, and why one ended."""

import errno
from pathlib import Path

from contracts.wire.service.credentials import SeedFile
from loratory.data_folder import DataFolder
from loratory.services import SERVICES, Service, bus_settings, exit_reason, reporter, service_environment

GIVEN = {
    "PATH": "/bin",
    "LORATORY_API_KEY": "a key of sixteen",
    "LORATORY_MODELS": "/models",
    "LORATORY_URL": "http://elsewhere",
    "LORATORY_NATS_URL": "nats://elsewhere",
}
BUS = bus_settings("nats://here:1", "trainer", SeedFile(Path("/k")))


def environment(service: Service) -> dict[str, str]:
    return service_environment(service, DataFolder(Path("/data")), given=GIVEN, settings=BUS)


def own_settings(service: Service) -> dict[str, str]:
    return {
        name.removeprefix("LORATORY_"): v for name, v in environment(service).items() if name.startswith("LORATORY_")
    }


def test_every_service_gets_the_bus_the_blobs_and_its_health_file() -> None:
    for service in SERVICES:
        expected = {**BUS, "BLOBS": "/data/blobs", "HEALTH_FILE": f"/data/run/{service}.json"}
        assert expected.items() <= own_settings(service).items()


def test_only_the_gateway_receives_the_key() -> None:
    assert [service for service in SERVICES if "API_KEY" in own_settings(service)] == ["gateway"]


def test_settings_of_the_user_are_forwarded_only_if_the_stack_does_not_set_them() -> None:
    trainer = own_settings("trainer")
    assert [service for service in SERVICES if "MODELS" in own_settings(service)] == ["tagger"]
    assert trainer["NATS_URL"] == "nats://here:1"
    assert "URL" not in trainer
    assert environment("trainer")["PATH"] == "/bin"
    assert own_settings("tagger")["MODELS"] == "/models"


def test_taggers_and_bases_have_a_folder_in_the_data_folder_unless_the_user_names_another() -> None:
    def folders(given: dict[str, str]) -> tuple[str, str]:
        services: tuple[Service, ...] = ("tagger", "trainer")
        tagger, trainer = (
            service_environment(name, DataFolder(Path("/data")), given=given, settings=BUS) for name in services
        )
        return tagger["LORATORY_MODELS"], trainer["LORATORY_BASES"]

    assert folders({}) == ("/data/models", "/data/bases")
    assert folders({"LORATORY_MODELS": "/m", "LORATORY_BASES": "/b"}) == ("/m", "/b")


def test_onnxruntime_settings_and_the_log_level_reach_their_services() -> None:
    given = {"LORATORY_PROVIDERS": "CUDAExecutionProvider", "LORATORY_LOG_LEVEL": "debug", "LORATORY_DECODERS": "3"}
    by_service = {
        name: service_environment(name, DataFolder(Path("/data")), given=given, settings={}) for name in SERVICES
    }
    assert all(environ["LORATORY_LOG_LEVEL"] == "debug" for environ in by_service.values())
    assert [name for name in SERVICES if "LORATORY_PROVIDERS" in by_service[name]] == ["tagger"]
    assert [name for name in SERVICES if "LORATORY_DECODERS" in by_service[name]] == ["catalog", "tagger"]


def test_a_report_that_cannot_be_printed_is_dropped() -> None:
    printed: list[str] = []
    reporter(printed.append, "nats")("ready")
    assert printed == ["nats      ready"]

    def print_to_full_disk(_line: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    reporter(print_to_full_disk, "nats")("ready")


def test_an_end_is_explained_by_its_sentence_its_exit_code_or_its_signal() -> None:
    assert exit_reason(2, "no such base") == "it ended because no such base"
    assert exit_reason(75, "there is no room for archive.db") == "it ended because there is no room for archive.db"
    assert exit_reason(1, "KeyError: 'x'") == "it ended with exit code 1: KeyError: 'x'"
    assert exit_reason(0) == "it ended with exit code 0"
    assert exit_reason(-15, "half a li") == "it was killed by SIGTERM"
    assert exit_reason(-9, "half a li") == "it was killed by SIGKILL, as when memory runs out"
    assert exit_reason(-99) == "it was killed by signal 99"
