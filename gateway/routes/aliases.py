"""Other words for the same in bodies, as clients of other programs of this kind send them, beside our own."""

from typing import Annotated

import msgspec
from msgspec import Meta

from contracts.all_errors import pointer_to
from contracts.errors import FieldError, Invalid, Rejected
from gateway.routes.shared import Body

DatasetRef = Annotated[str, Meta(min_length=1, max_length=1000)]
PresetRef = Annotated[str, Meta(min_length=1, max_length=200)]


def invalid_field(field: str, message: str) -> Invalid:
    """The error of one field of the body."""
    return Invalid(message, errors=msgspec.to_builtins([FieldError(pointer=pointer_to((field,)), message=message)]))


class DatasetAndPreset(Body, frozen=True):
    """A data set, by name or id: as `dataset`, `dataset_name` or `source_path`, exactly one of these.

    A preset, by name: as `preset` or `preset_name`.
    """

    dataset: DatasetRef | None = None
    dataset_name: DatasetRef | None = None
    source_path: DatasetRef | None = None
    preset: PresetRef | None = None
    preset_name: PresetRef | None = None

    def dataset_ref(self) -> str:
        """Invalid: none or several are given. Rejected: the path of a folder, as no folders of the server are read."""
        given = [text for text in (self.dataset, self.dataset_name, self.source_path) if text is not None]
        if len(given) != 1:
            raise invalid_field(
                "dataset", "name the data set by exactly one of `dataset`, `dataset_name` and `source_path`"
            )
        if self.source_path is not None and {"/", "\\"} & set(self.source_path):
            raise Rejected(
                "`source_path` is the name of a data set here: import the folder first, "
                "by `POST /api/v1/datasets/{dataset}/images` or `loratory datasets import`",
                reason="no-import-root",
            )
        return given[0]

    def preset_ref(self) -> str | None:
        """None if none is named. Invalid: both are given."""
        if self.preset is not None and self.preset_name is not None:
            raise invalid_field(
                "preset_name", "`preset` and `preset_name` are two words for the same; give one of them"
            )
        return self.preset or self.preset_name
