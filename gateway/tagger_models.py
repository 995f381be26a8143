"""The tagger models that a user may ask for, and which one is used where none is named. Pure."""

from collections.abc import Iterable, Sequence

import msgspec

from contracts.errors import Rejected
from contracts.ids import WorkerId
from contracts.shipped_models import BUILT_IN_TAGGER, BUILT_IN_TAGGER_DESCRIPTION
from contracts.telemetry import Presence

HOW_TO_INSTALL = (
    "For other images install a WD tagger: put model.onnx and selected_tags.csv, as of SmilingWolf/wd-vit-tagger-v3, "
    "into a folder of the tagger's models folder; the folder's name is the model's"
)


class TaggerModel(msgspec.Struct, frozen=True, kw_only=True):
    """`description`: what the model is for, if we know. `is_default`: it is used where none is named."""

    name: str
    description: str
    is_default: bool
    workers: tuple[WorkerId, ...]


def offered_models(presences: Iterable[Presence]) -> tuple[TaggerModel, ...]:
    """Those that the connected taggers can load, by name. The default is the only one that was installed by a user."""
    workers: dict[str, list[WorkerId]] = {}
    for presence in presences:
        for model in presence.models:
            workers.setdefault(model, []).append(presence.worker)
    installed = [name for name in workers if name != BUILT_IN_TAGGER]
    return tuple(
        TaggerModel(
            name=name,
            description=BUILT_IN_TAGGER_DESCRIPTION if name == BUILT_IN_TAGGER else "",
            is_default=[name] == installed,
            workers=tuple(workers[name]),
        )
        for name in sorted(workers)
    )


def choose_model(asked: str | None, offered: Sequence[TaggerModel]) -> str:
    """The model of a run. Rejected: none of the connected taggers has it, or none is asked for and there is no default.

    While no tagger is connected any name is taken: the run waits for a tagger, which then knows.
    """
    names = [model.name for model in offered]
    if asked is not None:
        if offered and asked not in names:
            raise Rejected(f"there is no tagger model {asked!r}; installed: {', '.join(names)}", reason="unknown-model")
        return asked
    default = next((model.name for model in offered if model.is_default), None)
    if default is None:
        raise Rejected(_why_no_default(names), reason="no-default-model")
    return default


def _why_no_default(names: Sequence[str]) -> str:
    if not names:
        return "no tagger is connected, so there is no model to choose: name one (--model NAME), or try again later"
    if len(names) > 1:
        return f"several tagger models are installed; name one (--model NAME): {', '.join(names)}"
    return (
        f"name a model: the only one installed, {BUILT_IN_TAGGER!r}, {BUILT_IN_TAGGER_DESCRIPTION} "
        f"(for those: --model {BUILT_IN_TAGGER}). {HOW_TO_INSTALL} (then: --model NAME)"
    )
