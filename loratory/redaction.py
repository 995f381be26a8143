"""Removes secrets, and what identifies a person or a machine, from texts for a bug report. Pure."""

import re
from collections.abc import Iterable, Mapping

REMOVED = "(removed)"
MIN_SECRET_CHARACTERS = 6
"""Shorter values are not searched for in texts, where they would be found by accident; they are removed as values."""
SECRET_NAME = re.compile(
    r"KEY|PASSWORD|PASSWD|PASSPHRASE|SECRET|SEED|TOKEN|CREDENTIAL|CREDS|AUTH|COOKIE|OTLP_HEADERS", re.IGNORECASE
)
_SECRET_WORDS = "(?:api[_-]?key|password|passwd|passphrase|secret|seed|token|credential|authorization|cookie)"  # noqa: S105 - a pattern
PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, flags), replacement)
    for pattern, replacement, flags in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", REMOVED, re.DOTALL),
        (r"\bS[ACNOUX][A-Z2-7]{56}\b", REMOVED, 0),  # seeds of NATS' nkeys
        (r"\beyJ[\w-]{10,}(\.[\w-]+){1,2}", REMOVED, 0),  # JSON web tokens
        (r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bhf_[0-9A-Za-z]{20,}|\bgh[opsu]_[0-9A-Za-z]{20,}", REMOVED, 0),
        (r"(?<!\w)(\w{1,20}://)[^/\s@\"'\\]+@", rf"\1{REMOVED}@", 0),  # user and password in a URL
        (r"\b(bearer|basic)(\s+)[\w.~+/=-]{6,}", rf"\1\2{REMOVED}", re.IGNORECASE),
        (
            rf"""((?<![\w-])[\w-]{{0,40}}{_SECRET_WORDS}s?\\?["']?\s*[:=]\s*)(\\?"[^"]*"|'[^']*'|[^\s,;}}]+)""",
            rf'\1"{REMOVED}"',
            re.IGNORECASE,
        ),
        (r"/(?:home|Users)/[^/\s\"'\\:]+", "~", 0),
        (r"[A-Za-z]:\\+Users\\+[^\\\s\"']+", "~", 0),
    )
)


class Redactor:
    """`redact(text)` without these secrets, and without everything that looks like one.

    `names` replaces texts by others, such as the home folder by `~`.
    """

    def __init__(self, *, secrets: Iterable[str], names: Mapping[str, str]) -> None:
        found = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS}
        replacements = {text: name for text, name in names.items() if text} | dict.fromkeys(found, REMOVED)
        self._replacements = sorted(replacements.items(), key=lambda item: -len(item[0]))  # the longest first

    def redact(self, text: str) -> str:
        for found, replacement in self._replacements:
            text = text.replace(found, replacement)
        for pattern, replacement in PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def setting(self, name: str, value: str) -> str:
        """The value of a variable; of a secret one only that it is set."""
        return f"(set, {len(value)} characters)" if is_secret(name) else self.redact(value)


def is_secret(name: str) -> bool:
    """Is the value of a variable of this name a secret? Those that end in `_FILE` name a file."""
    return SECRET_NAME.search(name) is not None and not name.endswith("_FILE")
