"""`loratory up --tls-cert --tls-key`: page, API, events and command line over HTTPS."""

import ssl
from pathlib import Path

import httpx
import pytest

from loratory import Client
from tests.acceptance.local_stack import LocalStack, cli
from tests.acceptance.test_images_folder import draw, wait_for
from tests.certificates import issue_all

pytestmark = pytest.mark.slow
KEY = "a-key-of-sixteen-characters"


def test_everything_works_over_https(tmp_path: Path) -> None:
    pems, folder = issue_all(tmp_path / "pems"), tmp_path / "mika"
    folder.mkdir()
    draw(folder / "one.png", 1)
    authority = pems / "authority.pem"
    options = ("--tls-cert", pems / "server.pem", "--tls-key", pems / "server.key", "--images", folder)
    stack = LocalStack(tmp_path / "data", workers=False, options=options, LORATORY_API_KEY=KEY)
    stack.address = stack.address.replace("http://", "https://")
    trusted = ssl.create_default_context(cafile=authority)
    try:
        stack.start()
        assert f"Loratory is at {stack.address}" in stack.output
        wait_for(lambda: "1 image imported" in stack.output, stack.output)

        listed = cli("datasets", "ls", "--url", stack.address, "--key", KEY, "--ca", authority)
        assert (listed.returncode, "mika" in listed.stdout) == (0, True), listed
        by_variables = cli("jobs", "ls", LORATORY_URL=stack.address, LORATORY_KEY=KEY, LORATORY_CA=str(authority))
        assert by_variables.returncode == 0, by_variables
        untrusted = cli("datasets", "ls", "--url", stack.address, "--key", KEY, timeout=60)
        assert untrusted.returncode == 1, untrusted
        assert "CERTIFICATE_VERIFY_FAILED" in untrusted.stderr.upper().replace(" ", "_"), untrusted.stderr

        with httpx.Client(base_url=stack.address, verify=trusted) as browser:
            opened = browser.post("/api/v1/session", json={"key": KEY})
            assert {"Secure", "HttpOnly"} <= set(opened.headers["set-cookie"].split("; "))
            assert browser.get("/api/v1/datasets").json()["total"] == 1
            headers = {"Origin": stack.address, "Sec-Fetch-Site": "same-origin"}
            assert browser.post("/api/v1/datasets", json={"name": "cats"}, headers=headers).status_code == 201
        with Client(stack.address, KEY, tls=trusted) as client:
            created = client.create_dataset("dogs")
            seen = next(frame for frame in client.watch() if frame.type.startswith("dataset."))
            assert seen.seq
            assert client.dataset("dogs").id == created.id
        with pytest.raises(httpx.HTTPError):
            httpx.get(stack.address.replace("https", "http"))
    finally:
        stack.stop()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--tls-cert", "a.pem"), "belong together"),
        (("--tls-cert", "a.pem", "--tls-key", "a.key"), "there is no file"),
    ],
)
def test_a_certificate_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    refused = cli("up", "--data", tmp_path / "data", "--port", "0", *options)
    assert (refused.returncode, reason in refused.stderr) == (2, True), refused
    assert not (tmp_path / "data").exists()
