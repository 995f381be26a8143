"""Facts told to people: one sentence each, without private text. Pure."""

from collections.abc import Sequence

from pyroaring import BitMap

from contracts import events as e
from contracts.events import AnyFact, TaggingPredicted, TagsEdited

LISTED = 8
"""So many tags or labels are named; the rest are counted."""


def words_of(fact: AnyFact) -> str:
    """What happened, in words."""
    return _of_dataset(fact) or _of_images(fact) or _of_work(fact) or _of_job(fact) or _of_rest(fact)


def _of_dataset(fact: AnyFact) -> str:  # noqa: PLR0911 - one arm for each kind of fact
    match fact:
        case e.DatasetCreated(name=name):
            return f"the data set {name!r} was created"
        case e.DatasetRenamed(name=name):
            return f"the data set was renamed to {name!r}"
        case e.DatasetRemoved():
            return "the data set was removed"
        case e.DatasetErased():
            return "the data set was erased for good"
        case e.ThresholdsSet(general=general, character=character):
            return f"thresholds were set to {general:g} (general) and {character:g} (character)"
        case e.VersionFrozen(version=version, images=images):
            return f"version {version} was frozen with {_count(images, 'image')}"
        case _:
            return ""


def _of_images(fact: AnyFact) -> str:  # noqa: PLR0911 - one arm for each kind of fact
    match fact:
        case e.ImageAdded(ordinal=ordinal, width=width, height=height, format=form):
            return f"image {ordinal} was added ({form}, {width} x {height})"
        case e.ImageRefused(reason=reason, detail=detail):
            return f"a file was refused: {detail or reason}"
        case e.ImagesRemoved(images=images):
            return f"{_images(len(BitMap.deserialize(images)))} removed"
        case e.ImageErased(ordinal=ordinal):
            return f"image {ordinal} was erased for good"
        case TagsEdited():
            return _edited(fact)
        case e.CaptionSet(ordinal=ordinal, caption=caption, source=source):
            return f"the caption of image {ordinal} was " + (
                "taken back" if caption is None else f"set by {_by(source)}"
            )
        case _:
            return ""


def _of_work(fact: AnyFact) -> str:  # noqa: PLR0911 - one arm for each kind of fact
    match fact:
        case e.Queued(priority=priority):
            return f"it was queued with {priority} priority"
        case e.AttemptStarted(worker=worker, resumes=resumes):
            return f"{worker} began an attempt" + (f" and goes on after {resumes}" if resumes else "")
        case e.Interrupted(step=step, reason=reason):
            return f"the attempt was interrupted after {step}: {reason}"
        case e.AttemptFailed(step=step, reason=reason):
            return f"the attempt failed after {step}: {reason}"
        case e.CancelRequested(reason=reason):
            return "it was asked to stop" + (f": {reason}" if reason else "")
        case e.Cancelled(step=step):
            return "it was cancelled" + (f" after {step}" if step else "")
        case e.Failed(code=code, reason=reason):
            return f"it failed ({code}): {reason}"
        case _:
            return ""


def _of_job(fact: AnyFact) -> str:  # noqa: PLR0911 - one arm for each kind of fact
    match fact:
        case e.JobCreated(name=name, dataset=dataset, version=version):
            return f"the job {name!r} was drawn up, on version {version} of {dataset!r}"
        case e.JobEdited():
            changed = [word for word in ("name", "description", "labels") if getattr(fact, word) is not None]
            return f"its {' and '.join(changed)} changed"
        case e.JobPrioritised(priority=priority):
            return f"its priority became {priority}"
        case e.JobRemoved():
            return "the job was removed"
        case e.JobPlanned(steps=steps, device=device, precision=precision):
            return f"{steps} steps were planned, on {device} in {precision}"
        case e.JobCheckpointed(step=step, size=size):
            return f"a checkpoint of {size} bytes was kept at step {step}"
        case e.JobSampled(step=step, index=index):
            return f"sample {index} was rendered at step {step}"
        case e.JobSucceeded(step=step, artifacts=artifacts):
            return f"it was completed after {step} steps, with {_count(len(artifacts), 'file')}"
        case _:
            return ""


def _of_rest(fact: AnyFact) -> str:  # noqa: PLR0911 - one arm for each kind of fact
    match fact:
        case e.TaggingRequested(model=model, count=count):
            return f"{model!r} was asked to look at {_count(count, 'image')}"
        case e.TaggingModelLoaded(provider=provider):
            return f"the model was loaded on {provider}"
        case TaggingPredicted():
            return _predicted(fact)
        case e.TaggingSucceeded(images=images, unreadable=unreadable):
            return f"{_count(images, 'image')} looked at, {unreadable} of them unreadable"
        case e.PresetSaved(name=name):
            return f"the preset {name!r} was saved"
        case e.PresetRetired():
            return "the preset was retired"
        case e.LogCreated():
            return "the log was begun"
        case e.LogRestored(voided=voided):
            return f"the log was restored, with {_count(voided, 'place')} whose commit was lost"
        case e.LogVoided(reason=reason):
            return f"a commit was lost: {reason}"
        case _:  # a fact that has no words yet is told by its type
            return str(type(fact).__struct_config__.tag).replace(".", ": ", 1).replace("_", " ")


def _edited(fact: TagsEdited) -> str:
    who = "an import" if fact.source == "import" else "a person"
    parts = [f"added {_listed(fact.asserted)}"] if fact.asserted else []
    parts += [f"rejected {_listed(fact.rejected)}"] if fact.rejected else []
    return f"{who} {' and '.join(parts)} on {_count(len(BitMap.deserialize(fact.images)), 'image')}"


def _predicted(fact: TaggingPredicted) -> str:
    if len(fact.images) != 1:
        return f"predictions for {_count(len(fact.images), 'image')}"
    (image,) = fact.images
    if image.unreadable is not None:
        return f"image {image.ordinal} could not be read: {image.unreadable}"
    seen = sorted(image.predictions, key=lambda prediction: -prediction.probability)
    return f"seen in image {image.ordinal}: {_listed([f'{one.tag} {one.probability:g}' for one in seen]) or 'nothing'}"


def _listed(words: Sequence[str]) -> str:
    more = len(words) - LISTED
    return ", ".join(words[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _images(number: int) -> str:
    return "1 image was" if number == 1 else f"{number} images were"


def _by(source: str) -> str:
    return "an import" if source == "import" else "a person"
