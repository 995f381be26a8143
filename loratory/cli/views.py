"""How jobs, data sets, images and presets are shown: sections of labels and values. Pure."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec

from contracts.commands.datasets import TextCounts
from contracts.events.base import ReadAs
from contracts.queries.datasets import DatasetView, EditExample, EditPreview, ImageChange, ImageView, TextSettingsView
from contracts.queries.jobs import AttemptView
from contracts.recipe import Recipe
from contracts.wording import count, size_of
from loratory.cli.output import Fields, format_value
from loratory.responses import Job

RECIPE_TITLES = {"sampling": "Samples", "save": "Checkpoints"}
"""Titles of the parts of a recipe that are not called by the name of their field."""
TEMPLATES = {
    1: "trigger, then the caption, or the tags where there is none",
    2: "trigger, tags, caption",
    3: "trigger, caption, tags",
}
ALWAYS_SHOWN = frozenset(("rank", "alpha", "lr", "count", "name", "path", "resolution", "batch_size", "every"))
"""Fields of a recipe that are shown even at their defaults."""


def job_sections(job: Job) -> dict[str, Fields]:
    waiting = job.live.waiting.sentence if job.live and job.live.waiting else None
    error = f"{job.error} ({job.error_code})" if job.error and job.error_code else job.error
    lost = f", {job.captions_lost} without a lost caption" if job.captions_lost else ""
    version = "" if job.images is None else f", version {job.version} ({count(job.images, 'image')}{lost})"
    phase = "" if job.phase == job.status else f" ({job.phase})"
    return {
        f"Job {job.id}": {
            "Name": job.name,
            "Status": f"{job.status}{phase}",
            "Waiting": waiting,
            "Error": error,
            "Data set": f"{job.dataset}{version}",
            "Trigger": job.trigger,
            "Preset": job.preset,
            "Mode": job.mode,
            "Priority": job.priority,
            "Labels": job.labels,
            "Description": job.description,
        },
        "Progress": {
            "Step": f"{job.step} of {job.steps}" if job.steps else job.step or None,
            "Device": ", ".join(filter(None, (job.device, job.precision))),
            "Checkpoints": job.checkpoints or None,
            "Samples": job.samples or None,
            "Created": f"{_utc(job.created_at)} by {job.actor}",
            "Started": _utc(job.started_at),
            "Ended": _utc(job.ended_at),
        },
        "Attempts": {f"{number}": _attempt(attempt) for number, attempt in enumerate(job.attempts, 1)},
        "Recipe": recipe_fields(job.recipe),
        "Files": {
            artifact.name: f"{artifact.format}, {size_of(artifact.size)}, sha256 {artifact.digest}"
            for artifact in job.artifacts
        },
    }


def _attempt(attempt: AttemptView) -> str:
    resumed = f", resumed after step {attempt.resumes}" if attempt.resumes else ""
    ended = f", {attempt.ended}" if attempt.ended else ", running"
    reason = f": {attempt.reason}" if attempt.reason else ""
    return f"worker {attempt.worker}, started {_utc(attempt.started_at)}{resumed}{ended}{reason}"


def recipe_fields(recipe: Recipe) -> dict[str, object]:
    """One line for each part of a recipe: its type, the important fields, and what differs from the defaults."""
    values = {name: getattr(recipe, name) for name in recipe.__struct_fields__}
    parts = {name: value for name, value in values.items() if isinstance(value, msgspec.Struct)}
    fields: dict[str, object] = {RECIPE_TITLES.get(name, name.title()): _part(part) for name, part in parts.items()}
    fields["Length"] = f"{recipe.length.count} {type(recipe.length).__struct_config__.tag}"
    fields["Other"] = _pairs(_shown_fields(recipe, exclude={"seed", *parts}))
    return fields | {"Seed": recipe.seed}


def _part(part: msgspec.Struct) -> str:
    tag = type(part).__struct_config__.tag
    return ", ".join(filter(None, (str(tag) if tag else "", _pairs(_shown_fields(part))))) or "default"


def _shown_fields(part: msgspec.Struct, exclude: Collection[str] = ()) -> dict[str, Any]:
    values = {field.name: (getattr(part, field.name), field.default) for field in msgspec.structs.fields(part)}
    return {
        name: value
        for name, (value, default) in values.items()
        if name not in exclude and (value != default or (name in ALWAYS_SHOWN and value))
    }


def _pairs(values: dict[str, Any]) -> str:
    """`batch size 4, prompts 3`: texts are only counted."""
    return ", ".join(
        f"{name.replace('_', ' ')} {len(value) if isinstance(value, tuple) else format_value(value)}"
        for name, value in values.items()
    )


def dataset_sections(dataset: DatasetView) -> dict[str, Fields]:
    return {
        f"Data set {dataset.name}": {
            "Id": dataset.id,
            "Description": dataset.description,
            "Images": dataset.images,
            "Tagged": dataset.tagged,
            "Captioned": dataset.captioned,
            "Skipped files": dataset.refused,
            "Auto-tag threshold": f"above {dataset.thresholds.get('general', 1):g} "
            f"(characters: above {dataset.thresholds.get('character', 1):g})",
            "Latest version": dataset.latest_version,
            "Created": _utc(dataset.created_at),
            "Changed": _utc(dataset.changed_at),
            "ETag": dataset.etag,
        }
    }


def image_sections(image: ImageView) -> dict[str, Fields]:
    return {
        f"Image {image.id}": {
            "File name": image.name,
            "Data set": f"{image.dataset} (image {image.ordinal})",
            "Format": f"{image.format}, {image.width} x {image.height}, {size_of(image.size)}"
            + (", animated" if image.animated else ""),
            "Erased": "yes" if image.erased else None,
            "Key": "missing" if image.key_missing else None,
            "Added": _utc(image.created_at),
            "ETag": image.etag,
        },
        "Tags and caption": {
            "Tags": [tag.tag for tag in image.tags],
            "Rejected": image.rejected,
            "Suggestions": [tag.tag for tag in image.suggestions],
            "Rating": image.rating,
            "Caption": image.caption,
            "Caption from": image.caption_source,
            "Repeats": None if image.repeats == 1 else image.repeats,
            "Training text": image.training_text,
        },
        "Content": {"Picture": image.picture, "Source": image.source, "Thumbnail": image.thumbnail, "Mask": image.mask},
    }


READ_AS: dict[ReadAs, str] = {"auto": "tags or captions, by a rule", "tags": "tags", "caption": "captions"}


def text_settings_sections(view: TextSettingsView) -> dict[str, Fields]:
    style = view.style
    return {
        f"Training texts of {view.dataset}": {
            "Trigger": view.trigger or "none",
            "Template": f"{view.template} ({TEMPLATES.get(view.template, 'of a newer Loratory')})",
            "Words in tags": f"separated by {style.words}",
            "Kept as they are": style.keep,
            "Parentheses": "escaped" if style.escape else "as they are",
            "Between tags": repr(style.separator),
            "Imported texts": READ_AS[view.read_as],
        }
    }


def preview_sections(preview: EditPreview) -> dict[str, Fields]:
    """What an edit of many images would change."""
    summary = {"Selected": preview.selected, "Would change": preview.changed, "Would stay": preview.unchanged}
    examples: Fields = {one.image: _decisions(one) for one in preview.examples}
    tags: Fields = {f"{effect.tag} {effect.decision}": count(effect.images, "image") for effect in preview.tags}
    return {f"Edit of {preview.dataset}": summary, "Tags": tags, "Examples": examples}


def texts_sections(counts: TextCounts, new_tags: Sequence[str] = (), *, dry_run: bool = False) -> dict[str, Fields]:
    """How many texts became what, or would become."""
    return {
        "Texts that would be read" if dry_run else "Texts read": {
            "Images": counts.selected,
            "Tags": counts.tags,
            "Captions": counts.captions,
            "Changed": counts.changed,
            "With decisions that stay": counts.kept or None,
            "Without a text": counts.without_text or None,
            "Cannot be read any more": counts.without_key or None,
            "Too long for the log": counts.too_long or None,
            "Not encrypted from then on": new_tags or None,
        }
    }


def _decisions(example: EditExample) -> str:
    signs = {"+": example.asserted, "-": example.rejected, "~": example.withdrawn}
    return ", ".join(f"{sign}{tag}" for sign, tags in signs.items() for tag in tags)


def image_change(change: ImageChange) -> str:
    """`+cat, -dog, order, caption`: what changed of an image between two versions."""
    others = [word for word, holds in (("order", change.tags_reordered), ("caption", change.caption_changed)) if holds]
    return ", ".join([*(f"+{tag}" for tag in change.tags_added), *(f"-{tag}" for tag in change.tags_removed), *others])


def _utc(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else None
