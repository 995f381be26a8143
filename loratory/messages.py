"""Lines that the command line prints about trainings and imports. Pure."""

from typing import Any

from contracts.commands import ImportedFile
from loratory.responses import Frame, ImportSummary

EXIT_CODES = {"job.succeeded": 0, "job.failed": 1, "job.cancelled": 4}
"""Exit code of a command that followed a job, by the event that ended the job."""

FOLLOWED_EVENTS = EXIT_CODES.keys() | {
    "job.queued",
    "job.attempt_started",
    "job.planned",
    "job.checkpointed",
    "job.interrupted",
    "job.attempt_failed",
    "job.cancel_requested",
}


def describe_frame(frame: Frame) -> str | None:
    """One line for a frame while following a job; None for frames that are not shown."""
    if frame.type == "stale":
        return "(the catalog does not respond; the state shown may be out of date)"
    # Of the samples of one step only the first gets a line.
    if frame.type in FOLLOWED_EVENTS or (frame.type == "job.sampled" and frame.data.get("index") == 0):
        return frame.description or frame.type
    return None


def format_progress(data: dict[str, Any]) -> str:
    """`training  120/400  loss 0.1234  8.1 steps/s  35 s left`"""
    parts = [str(data.get("phase") or data.get("status", ""))]
    if data.get("total_steps"):
        parts.append(f"{data.get('current_step', 0)}/{data['total_steps']}")
    if data.get("loss") is not None:
        parts.append(f"loss {data['loss']:.4f}")
    if data.get("rate") is not None:
        parts.append(f"{data['rate']:.1f} steps/s")
    if data.get("eta") is not None:
        parts.append(f"{data['eta']:.0f} s left")
    if data.get("message"):
        parts.append(str(data["message"]))
    return "  ".join(parts)


def format_import(result: ImportSummary) -> list[str]:
    """The result of an import: counts first, then each skipped file with its reason."""
    added, existing, refused = (result.of(outcome) for outcome in ("added", "existing", "refused"))
    counts = f"{count(len(added), 'image')} imported, {len(existing)} already present, {len(refused)} skipped, "
    counts += f"{count(result.captions, 'caption')} read"
    if result.other_files:
        counts += f", {count(result.other_files, 'other file')} ignored"
    if result.outside_links:
        counts += f", {count(result.outside_links, 'link')} out of the folder not followed"
    reasons = [(file.name, _reason(file)) for file in refused] + list(result.unreadable)
    return [counts, *(["Skipped files:"] if reasons else []), *(f"  {name}: {reason}" for name, reason in reasons)]


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _reason(file: ImportedFile) -> str:
    return file.detail or file.reason or "refused"
