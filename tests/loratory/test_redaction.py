"""What is removed from texts for a bug report, and what stays."""

import pytest

from loratory.redaction import REMOVED, Redactor

SEED = "SUA" + "B2C3D4E5F6G7H2J3K4L5M6N7P2Q3R4S5T6U7V2W3X4Y5Z6A7B2C3D4E5"[:55]
REDACTOR = Redactor(
    secrets=["the-api-key-of-this-test", "short"], names={"/mnt/disk/me/data": "(data)", "myhost": "(host)"}
)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("the key is the-api-key-of-this-test.", "the-api-key-of-this-test"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ('{"authorization": "Bearer abc.def-ghi", "x": 1}', "abc.def-ghi"),
        ("nats://catalog:hunter2@127.0.0.1:4222", "hunter2"),
        ("s3://AKIAIOSFODNN7EXAMPLE@bucket", "AKIAIOSFODNN7EXAMPLE"),
        ("LORATORY_NATS_PASSWORD=hunter2", "hunter2"),
        ("password: hunter2, user: me", "hunter2"),
        ('{"nats_password":"hunter2","user":"me"}', "hunter2"),
        ('{"nats_password": "hunter 2 \u2603"}', "hunter 2"),
        ("{'secret': 'hunter2'}", "hunter2"),
        (r'{"exception": "{\"api_key\": \"hunter2\"}"}', "hunter2"),
        (f"loaded {SEED} from a file", SEED),
        ("token eyJhbGciOiJFZDI1NTE5In0.eyJqdGkiOiJBIn0.c2lnbmF0dXJl", "c2lnbmF0dXJl"),
        ("-----BEGIN NATS PRIVATE KEY-----\nabc\n-----END NATS PRIVATE KEY-----", "abc"),
        (r"x -----BEGIN PRIVATE KEY-----\nabcdef", "abcdef"),
        ("using hf_abcdefghijklmnopqrstuvwxyz", "hf_abcdef"),
        ("/home/alice/loratory/run", "alice"),
        ("/Users/alice/loratory/run", "alice"),
        (r"C:\\Users\\alice\\loratory", "alice"),
        ("/mnt/disk/me/data/logs/catalog.log", "/mnt/disk/me"),
        ("trainer/myhost-AB12CD", "myhost"),
    ],
)
def test_a_secret_is_removed_wherever_it_is(text: str, secret: str) -> None:
    redacted = REDACTOR.redact(text)
    assert secret not in redacted
    assert REDACTOR.redact(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        '{"event":"attempt_started","level":"info","request_id":"01JD3Q7ZEXAMPLE0000000000A","resumes":0}',
        "nats://127.0.0.1:4222",
        'loratory_jobs{class="train",state="queued"} 3.0',
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "a short word",
    ],
)
def test_everything_else_stays(text: str) -> None:
    assert REDACTOR.redact(text) == text


def test_a_secret_setting_shows_only_that_it_is_set() -> None:
    assert REDACTOR.setting("LORATORY_API_KEY", "x") == "(set, 1 characters)"
    assert REDACTOR.setting("AWS_SECRET_ACCESS_KEY", "x" * 40) == "(set, 40 characters)"
    assert REDACTOR.setting("LORATORY_API_KEY_FILE", "/home/alice/key") == "~/key"
    assert REDACTOR.setting("LORATORY_NATS_URL", "nats://me:hunter2@bus") == f"nats://{REMOVED}@bus"
