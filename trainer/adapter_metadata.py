"""The metadata and the file name of a finished adapter. Pure."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from contracts.events.jobs import JobCreated
from contracts.queries.datasets import ManifestEntry
from contracts.recipe import BuiltinBase
from trainer.messages import AdapterMetadata


def build_metadata(job_id: str, job: JobCreated, version: int, entries: Sequence[ManifestEntry]) -> AdapterMetadata:
    """Metadata for the file header. Uses the name at creation: later edits must not change the file's bytes.

    `version`: number of the version of the data set that `entries` are from.
    """
    base = job.recipe.base
    return AdapterMetadata(
        adapter_name=safe_file_stem(job.name),
        job_id=job_id,
        dataset_name=job.dataset,
        dataset_version=version,
        base_name=base.name if isinstance(base, BuiltinBase) else re.split(r"[\\/]", base.path.rstrip("\\/"))[-1],
        trigger=job.trigger or None,
        tag_frequency={repeats: tag_frequency(some) for repeats, some in _published_captions(entries).items()},
    )


def _published_captions(entries: Iterable[ManifestEntry]) -> dict[int, list[str]]:
    """By repeats. Captions written by people are private, and the file may be published."""
    captions: defaultdict[int, list[str]] = defaultdict(list)
    for entry in entries:
        if not entry.written:
            captions[entry.repeats].append(entry.caption)
    return captions


def tag_frequency(captions: Iterable[str]) -> dict[str, int]:
    """The number of captions with each comma-separated part, as in kohya's `ss_tag_frequency`."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update({part.strip() for part in caption.split(",")} - {""})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def safe_file_stem(name: str) -> str:
    """A file name valid on every file system: letters, digits, `-`, `_`, `.`; at most 80 characters."""
    normalized = unicodedata.normalize("NFC", name)
    stem = re.sub(r"[^\w.-]+", "-", normalized).strip("-._")[:80].rstrip("-._")
    return stem or "lora"


def unique_stem(stem: str, job_id: str) -> str:
    """The file stem with a part of the job's id, for when another job's file already has the plain name."""
    return f"{stem}-{job_id[-6:].lower()}"
