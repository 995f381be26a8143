"""`loratory keys …`: the keys that services sign their commits with."""

from pathlib import Path

from contracts.errors import SetupError
from contracts.events.service_keys import SigningService
from contracts.wire.log.service_keys import write_key
from loratory.cli.output import write_line
from loratory.data_folder import DataFolder
from loratory.services import SIGNING_KEYS


def rotate(service: SigningService, *, data: Path) -> None:
    """Write a new signing key for a service, which replaces the one before without interrupting anything.

    The catalog changes to it within seconds, a worker before its next job. What was signed before stays valid.

    :param data: The data folder of `loratory up` on this machine.
    """
    file = DataFolder(data) / SIGNING_KEYS[service]
    if not file.is_file():
        raise SetupError(f"{data} has no signing key of the {service}; is it a data folder that was used before?")
    write_key(file)
    write_line(f"{service}: a new signing key is in {file}")
