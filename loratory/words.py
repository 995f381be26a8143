"""A training as it is told to people. Pure."""

from typing import Any

from contracts.commands import ImportedFile
from loratory.answers import Frame, Imported

ENDS = {"job.succeeded": 0, "job.failed": 1, "job.cancelled": 4}
"""Facts that end a job, and the exit code of who followed it."""


def of_frame(frame: Frame) -> str | None:  # noqa: PLR0911 - one arm for each kind of fact
    """One line for what a person wants to know; nothing for the rest."""
    data = frame.data
    match frame.type:
        case "job.queued":
            return "queued"
        case "job.attempt_started":
            resumes = data.get("resumes", 0)
            return f"a trainer has taken it{f', and goes on at step {resumes}' if resumes else ''}"
        case "job.planned":
            return f"{data.get('steps')} steps on {data.get('device')} in {data.get('precision')}"
        case "job.checkpointed":
            return f"checkpoint at step {data.get('step')}"
        case "job.sampled":
            return f"samples at step {data.get('step')}" if data.get("index") == 0 else None
        case "job.interrupted" | "job.attempt_failed":
            return f"interrupted at step {data.get('step')}: {data.get('reason')}"
        case "job.succeeded":
            return f"done after {data.get('step')} steps"
        case "job.failed":
            return f"failed: {data.get('reason')}"
        case "job.cancelled":
            return "cancelled"
        case "stale":
            return "(the server's catalog is silent; what you see may be old)"
        case _:
            return None


def of_progress(data: dict[str, Any]) -> str:
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


def of_import(imported: Imported) -> list[str]:
    """What became of an upload: the counts, then every reason."""
    added, known, refused = (len(imported.of(outcome)) for outcome in ("added", "existing", "refused"))
    first = f"{added} pictures imported, {known} there already, {refused} refused, {imported.captions} captions read"
    if imported.others:
        first += f", {imported.others} other files passed over"
    if imported.outside:
        first += f", {imported.outside} links out of the folder not followed"
    return [
        first,
        *(f"  refused {_refusal(file)}" for file in imported.of("refused")),
        *(f"  {name}: {reason}" for name, reason in imported.unread),
    ]


def _refusal(file: ImportedFile) -> str:
    return f"{file.name}: {file.detail or file.reason}"
