"""The trainer's rules: what an attempt starts from, what its file says of itself and how it is called. Pure."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from contracts.events import AnyFact, JobCheckpointed, JobCreated, JobEdited, JobSampled, JobSucceeded
from contracts.queries import ManifestEntry
from contracts.recipe import BuiltinBase
from trainer.messages import Facts

History = Iterable[tuple[AnyFact, int]]


def created(history: History) -> tuple[JobCreated, int]:
    """What was asked, and the sequence it stands at."""
    return next((fact, sequence) for fact, sequence in history if isinstance(fact, JobCreated))


def name_of(history: History) -> str:
    """The job's name as it was last edited."""
    name = ""
    for fact, _ in history:
        match fact:
            case JobCreated(name=given) | JobEdited(name=str(given)):
                name = given
            case _:
                pass
    return name


def checkpoints(history: History) -> list[JobCheckpointed]:
    """From the newest to the oldest: where the first cannot be read, the next one may do."""
    kept = {fact.step: fact for fact, _ in history if isinstance(fact, JobCheckpointed)}
    return [kept[step] for step in sorted(kept, reverse=True)]


def sampled(history: History) -> set[tuple[int, int]]:
    """(step, index) of the samples that are kept."""
    return {(fact.step, fact.index) for fact, _ in history if isinstance(fact, JobSampled)}


def succeeded(history: History) -> JobSucceeded | None:
    return next((fact for fact, _ in history if isinstance(fact, JobSucceeded)), None)


def facts_for(job_id: str, asked: JobCreated, entries: Sequence[ManifestEntry]) -> Facts:
    """What the file will say about itself. Of the job's name as it was created: later edits must not change bytes."""
    base = asked.recipe.base
    return Facts(
        adapter_name=file_stem(asked.name),
        job_id=job_id,
        dataset_name=asked.dataset,
        dataset_version=asked.version,
        base_name=base.name if isinstance(base, BuiltinBase) else re.split(r"[\\/]", base.path.rstrip("\\/"))[-1],
        trigger=asked.trigger or None,
        # Captions that somebody wrote are private, and a file goes round the world.
        tag_frequency=frequency(entry.caption for entry in entries if not entry.written),
    )


def frequency(captions: Iterable[str]) -> dict[str, int]:
    """How many captions hold each of their comma-separated parts, as kohya counts `ss_tag_frequency`."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update({part.strip() for part in caption.split(",")} - {""})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def file_stem(name: str) -> str:
    """A name every file system takes: letters, digits, `-`, `_`, `.`; at most 80 signs."""
    plain = unicodedata.normalize("NFC", name)
    stem = re.sub(r"[^\w.-]+", "-", plain).strip("-._")[:80].rstrip("-._")
    return stem or "lora"


def published(stem: str, job_id: str, taken: bool) -> str:
    """The file's name among the finished ones; another job's file of that name is never written over."""
    return f"{stem}-{job_id[-6:].lower()}" if taken else stem
