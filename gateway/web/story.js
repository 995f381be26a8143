// A fact in a few words. What has no words of its own here is still shown, by its type.
import { bytes, count, plural } from "./format.js";
import { html } from "./lib.js";

const WORDS = {
  "log.created": () => "The log begins",
  "log.restored": (fact) => (fact.voided ? `The log was restored; ${plural(fact.voided, "commit")} lost` : "The log was restored"),
  "log.voided": () => "A commit that is lost stood here",
  "dataset.created": (fact) => `Data set ${fact.name} made`,
  "dataset.renamed": (fact) => `Renamed to ${fact.name}`,
  "dataset.removed": () => "Data set removed",
  "dataset.image_added": (fact) => `Picture ${fact.ordinal} added, ${fact.width} × ${fact.height} ${fact.format}`,
  "dataset.image_refused": (fact) => `A file was refused: ${fact.detail}`,
  "dataset.images_removed": () => "Pictures removed",
  "dataset.image_erased": (fact) => `Picture ${fact.ordinal} erased for good`,
  "dataset.erased": () => "Data set erased for good",
  "dataset.tags_edited": (fact) => tagsEdited(fact),
  "dataset.caption_set": (fact) => `Caption of picture ${fact.ordinal} ${fact.caption ? "written" : "taken back"}`,
  "dataset.thresholds_set": (fact) => `Tags hold from ${fact.general} on, characters from ${fact.character}`,
  "dataset.version_frozen": (fact) => `Version ${fact.version} frozen, ${plural(fact.images, "picture")}`,
  "preset.saved": (fact) => `Preset ${fact.name} saved`,
  "preset.retired": () => "Preset retired",
  "job.created": (fact) => `Job ${fact.name} asked for on ${fact.dataset}, version ${fact.version}`,
  "job.edited": () => "Words about the job changed",
  "job.prioritised": (fact) => `Priority is now ${fact.priority}`,
  "job.removed": () => "Job removed",
  "job.planned": (fact) => `Planned: ${plural(fact.steps, "step")} on ${fact.device} in ${fact.precision}`,
  "job.checkpointed": (fact) => `Checkpoint at step ${count(fact.step)}, ${bytes(fact.size)}`,
  "job.sampled": (fact) => `Sample ${fact.index + 1} at step ${count(fact.step)}`,
  "job.succeeded": (fact) => `Done after ${plural(fact.step, "step")}: ${fact.artifacts.map((file) => file.name).join(", ")}`,
  "tagging.requested": (fact) => `Tagging with ${fact.model} asked for`,
  "tagging.model_loaded": () => "Tagging model loaded",
  "tagging.predicted": () => "Predictions recorded",
  "tagging.succeeded": (fact) => `${plural(fact.images, "picture")} tagged`,
};

/** Jobs and tagging runs move by the same rules and words. */
const OF_WORK = {
  queued: (fact) => `Queued, ${fact.priority} priority`,
  attempt_started: (fact) => (fact.resumes ? `${fact.worker} goes on from ${count(fact.resumes)}` : `${fact.worker} begins`),
  interrupted: (fact) => `Interrupted: ${fact.reason}`,
  attempt_failed: (fact) => `Attempt failed: ${fact.reason}`,
  cancel_requested: (fact) => `Cancel asked for${fact.reason ? `: ${fact.reason}` : ""}`,
  cancelled: () => "Cancelled",
  failed: (fact) => `Failed: ${fact.error ?? fact.reason ?? ""}`,
};

function tagsEdited({ asserted = [], rejected = [] }) {
  const parts = [asserted.length && `+ ${asserted.join(", ")}`, rejected.length && `− ${rejected.join(", ")}`];
  return `Tags ${parts.filter(Boolean).join(" ")}`;
}

export function storyOf(type, data) {
  const words = WORDS[type] ?? (/^(job|tagging)\./.test(type) ? OF_WORK[type.split(".")[1]] : undefined);
  return words ? words(data) : type;
}

export const Story = ({ of }) => html`<span title=${of.type}>${storyOf(of.type, of.data)}</span>`;
