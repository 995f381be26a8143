"""Plain-English descriptions of events: one past-tense sentence each, without private text. Pure.

File names and captions are sealed in events and never appear here. Data set names, tags, triggers and the reasons of
failures are not private text.
"""

import struct
from collections.abc import Sequence

from contracts import events as e
from contracts.events import AnyEvent, Ordinals, TaggingPredicted, TagsEdited

MAX_LISTED = 8
"""Maximum number of tags or file names in one sentence; the rest are counted."""

_TaggingAttempt = e.TaggingAttemptStarted | e.TaggingInterrupted | e.TaggingAttemptFailed | e.TaggingCancelled
_NO_RUNS, _WITH_RUNS = 12346, 12347
"""Cookies of the two serialised forms of a Roaring bitmap (https://github.com/RoaringBitmap/RoaringFormatSpec)."""


def describe(event: AnyEvent) -> str:
    """What happened, as a sentence without a full stop: `Added tags 1girl, solo to 12 images`."""
    return (
        _dataset_event(event)
        or _image_event(event)
        or _attempt_event(event)
        or _job_event(event)
        or _tagging_event(event)
        or _preset_or_log_event(event)
        or describe_type(str(type(event).__struct_config__.tag))
    )


def describe_type(event_type: str) -> str:
    """The fallback for an event type without a sentence of its own: `job.queued` → `Job: queued`."""
    return event_type.replace(".", ": ", 1).replace("_", " ").capitalize()


def _dataset_event(event: AnyEvent) -> str:  # noqa: PLR0911 - one arm for each event type
    match event:
        case e.DatasetCreated(name=name):
            return f"Created data set {name!r}"
        case e.DatasetRenamed(name=name):
            return f"Renamed the data set to {name!r}"
        case e.DatasetRemoved():
            return "Removed the data set"
        case e.DatasetErased():
            return "Permanently erased the data set"
        case e.ThresholdsSet(general=general, character=character):
            return f"Set the auto-tag thresholds: general above {general:g}, character above {character:g}"
        case e.VersionFrozen(version=version, images=images):
            return f"Froze version {version} with {_count(images, 'image')}"
        case _:
            return ""


def _image_event(event: AnyEvent) -> str:  # noqa: PLR0911 - one arm for each event type
    match event:
        case e.ImageAdded(ordinal=ordinal, width=width, height=height, format=format_):
            return f"Added image {ordinal} ({format_}, {width} x {height})"
        case e.ImageRefused(reason=reason, detail=detail):
            return f"Skipped a file: {detail or reason}"
        case e.ImagesRemoved(images=images):
            return f"Removed {_images(images)}"
        case e.ImageErased(ordinal=ordinal):
            return f"Permanently erased image {ordinal}"
        case TagsEdited():
            return _tag_edit(event)
        case e.CaptionSet(ordinal=ordinal, caption=None):
            return f"Cleared the caption of image {ordinal}"
        case e.CaptionSet(ordinal=ordinal, source=source):
            return _by(source, f"set the caption of image {ordinal}")
        case _:
            return ""


def _attempt_event(event: AnyEvent) -> str:  # noqa: PLR0911 - one arm for each event type
    """What jobs and tagging runs have in common; completed units are steps of a job and images of a tagging run."""
    tagging = isinstance(event, _TaggingAttempt | e.TaggingFailed)
    work = "Tagging" if tagging else "Training"
    match event:
        case e.Queued(priority=priority):
            return f"Queued with {priority} priority"
        case e.AttemptStarted(worker=worker, resumes=resumes):
            resuming = f" (resuming {_after(resumes, tagging=tagging)})" if resumes else ""
            return f"{work} started on worker {worker}{resuming}"
        case e.Interrupted(step=step, reason=reason):
            return f"{work} interrupted {_after(step, tagging=tagging)}: {reason}"
        case e.AttemptFailed(step=step, reason=reason):
            return f"{work} attempt failed {_after(step, tagging=tagging)}: {reason}"
        case e.CancelRequested(reason=reason):
            return "Cancellation requested" + (f": {reason}" if reason else "")
        case e.Cancelled(step=step):
            return f"{work} cancelled" + (f" {_after(step, tagging=tagging)}" if step else "")
        case e.Failed(code=code, reason=reason):
            return f"{work} failed ({code}): {reason}"
        case _:
            return ""


def _job_event(event: AnyEvent) -> str:  # noqa: PLR0911 - one arm for each event type
    match event:
        case e.JobCreated(name=name, dataset=dataset, version=version):
            return f"Created job {name!r} on version {version} of data set {dataset!r}"
        case e.JobEdited():
            changed = [field for field in ("name", "description", "labels") if getattr(event, field) is not None]
            return f"Changed the {_enumerate(changed)} of the job"
        case e.JobPrioritised(priority=priority):
            return f"Changed the priority to {priority}"
        case e.JobRemoved():
            return "Removed the job"
        case e.JobPlanned(steps=steps, epochs=epochs, device=device, precision=precision):
            return f"Planned {_count(steps, 'step')} ({_count(epochs, 'epoch')}) on {device} in {precision}"
        case e.JobCheckpointed(step=step, size=size):
            return f"Saved a checkpoint at step {step} ({_size(size)})"
        case e.JobSampled(step=step, index=index):
            return f"Rendered sample {index + 1} at step {step}"
        case e.JobSucceeded(step=step, artifacts=artifacts):
            files = _listed([artifact.name for artifact in artifacts])
            return f"Training completed after {_count(step, 'step')}" + (f": {files}" if files else "")
        case _:
            return ""


def _tagging_event(event: AnyEvent) -> str:
    match event:
        case e.TaggingRequested(model=model, count=count):
            return f"Requested tagging of {_count(count, 'image')} with model {model!r}"
        case e.TaggingModelLoaded(provider=provider):
            return f"Loaded the tagging model on {provider}"
        case TaggingPredicted():
            return _prediction(event)
        case e.TaggingSucceeded(images=images, unreadable=unreadable):
            return f"Tagging completed: {_count(images, 'image')}" + (
                f", {unreadable} unreadable" if unreadable else ""
            )
        case _:
            return ""


def _preset_or_log_event(event: AnyEvent) -> str:
    match event:
        case e.PresetSaved(name=name):
            return f"Saved preset {name!r}"
        case e.PresetRetired():
            return "Retired the preset"
        case e.LogCreated():
            return "Created the event log"
        case e.LogRestored(voided=voided):
            return "Restored the event log" + (f"; {_count(voided, 'commit')} could not be recovered" if voided else "")
        case e.LogVoided(reason=reason):
            return f"Lost a commit: {reason}"
        case _:
            return ""


def _tag_edit(event: TagsEdited) -> str:
    """`Added tags sitting, grass and rejected tag sky on 1 image`."""
    images = _images(event.images)
    added, rejected = _tags(event.asserted), _tags(event.rejected)
    match added, rejected:
        case "", "":
            return _by(event.source, f"left the tags of {images} unchanged")
        case added, "":
            return _by(event.source, f"added {added} to {images}")
        case "", rejected:
            return _by(event.source, f"rejected {rejected} on {images}")
        case _:
            return _by(event.source, f"added {added} and rejected {rejected} on {images}")


def _prediction(event: TaggingPredicted) -> str:
    if len(event.images) != 1:
        return f"Predicted tags for {_count(len(event.images), 'image')}"
    (image,) = event.images
    if image.unreadable is not None:
        return f"Could not read image {image.ordinal}: {image.unreadable}"
    by_probability = sorted(image.predictions, key=lambda prediction: -prediction.probability)
    tags = _listed([f"{prediction.tag} {prediction.probability:g}" for prediction in by_probability])
    return f"Predicted {'tags' if tags else 'no tags'} for image {image.ordinal}" + (f": {tags}" if tags else "")


def _by(source: str, action: str) -> str:
    """The actor is shown beside the sentence; only an import is named in it."""
    return f"The import {action}" if source == "import" else action[0].upper() + action[1:]


def _after(completed: int, *, tagging: bool) -> str:
    return f"after {_count(completed, 'image')}" if tagging else f"after step {completed}"


def _tags(tags: Sequence[str]) -> str:
    return f"tag{'' if len(tags) == 1 else 's'} {_listed(tags)}" if tags else ""


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _enumerate(names: Sequence[str]) -> str:
    """`name, description and labels`."""
    *first, last = names or ["details"]
    return f"{', '.join(first)} and {last}" if first else last


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _size(size: int) -> str:
    """Bytes in decimal units, three digits: `12.3 MB`."""
    scaled, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if scaled < 1000:
            break
        scaled, unit = scaled / 1000, larger
    return f"{scaled:.3g} {unit}"


def _images(images: Ordinals) -> str:
    number = _cardinality(images)
    return "some images" if number is None else _count(number, "image")


def _cardinality(ordinals: Ordinals) -> int | None:
    """How many ordinals a serialised Roaring bitmap holds, from its header alone; None if it is not one.

    Not with pyroaring: only the catalog has that dependency.
    """
    try:
        (cookie,) = struct.unpack_from("<I", ordinals)
        if cookie == _NO_RUNS:
            (containers,) = struct.unpack_from("<I", ordinals, 4)
            start = 8
        elif cookie & 0xFFFF == _WITH_RUNS:
            containers = (cookie >> 16) + 1
            start = 4 + (containers + 7) // 8  # one bit a container: is it a run?
        else:
            return None
        header = struct.unpack_from(f"<{2 * containers}H", ordinals, start)  # (key, cardinality - 1) of each container
    except struct.error:
        return None
    return int(sum(header[1::2]) + containers)
