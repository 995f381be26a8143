// All jobs: their progress, and why pending ones wait.
import { link } from "./address.js";
import { send, url } from "./api.js";
import { ago, count, decimal, duration, sentence } from "./format.js";
import { html, useState } from "./lib.js";
import { progressOf } from "./live.js";
import { mergeProgress } from "./progress.js";
import { EmptyState, Loaded, ProgressBar, runWithToast, ScrollSentinel, Status, WaitingReason } from "./components.js";
import { useList, useResource } from "./resource.js";

const FILTERS = [["", "All"], ["pending", "Pending"], ["running", "Running"], ["completed", "Completed"], ["failed", "Failed"], ["cancelled", "Cancelled"]];
const END_STATUSES = new Set(["completed", "failed", "cancelled"]);

export const Jobs = () => {
  const [status, setStatus] = useState("");
  const isAffectedBy = (event) => event.aggregateKind === "job" || event.aggregateKind === "presence";
  const list = useList(`${url("jobs")}${status ? `?status=${status}` : ""}`, isAffectedBy);
  return html`
    <div class="title">
      <h1>Jobs</h1>
      <${Trainers} />
    </div>
    <div class="row tabs" role="group" aria-label="Show">
      ${FILTERS.map(([value, label]) => html`<button aria-pressed=${value === status} onClick=${() => setStatus(value)}>${label}</button>`)}
    </div>
    <${Loaded} data=${list.items} error=${list.error}>
      ${(jobs) => (jobs.length ? html`<${JobList} jobs=${jobs} more=${list.more} />` : html`<${NoJobs} status=${status} />`)}
    <//>
  `;
};

const NoJobs = ({ status }) =>
  status
    ? html`<${EmptyState} title=${`No ${status} jobs`}>Choose All to see every job.<//>`
    : html`<${EmptyState} title="No jobs yet">A job trains a LoRA. Open a <a href="#/datasets">data set</a> with images and click Train.<//>`;

const JobList = ({ jobs, more }) => html`
  <ul class="jobs">${jobs.map((job) => html`<${JobRow} key=${job.id} job=${job} />`)}</ul>
  <${ScrollSentinel} onReach=${more} />
`;

const JobRow = ({ job }) => {
  const progress = currentProgress(job);
  return html`
    <li class="panel job">
      <div class="row spread">
        <a class="name" href=${link("jobs", job.id)}>${job.name}</a>
        <${JobButtons} job=${job} />
      </div>
      <div class="row">
        <${Status} work=${job} />
        <span class="muted">Data set ${job.dataset}${job.version && ` v${job.version}`}${job.trigger && html` · Trigger: <code>${job.trigger}</code>`} · created ${ago(job.created_at)}</span>
      </div>
      <${WaitingReason} work=${job} />
      ${job.error && html`<p class="bad">${sentence(job.error)}</p>`}
      ${progress.steps > 0 &&
      html`
        ${job.status !== "completed" && html`<${ProgressBar} fraction=${progress.step / progress.steps} label=${`Progress of ${job.name}`} />`}
        <div class="row spread figures muted">
          <span>${count(progress.step)} / ${count(progress.steps)} steps</span>
          <span>${job.status === "running" ? formatProgress(progress) : ""}</span>
        </div>
      `}
    </li>
  `;
};

const formatProgress = ({ loss, eta, message }) =>
  [message, loss !== null && `loss ${decimal(loss)}`, eta !== null && `${duration(eta)} left`].filter(Boolean).join(" · ");

export const currentProgress = (job) => mergeProgress(job, progressOf(job.id).value);

export const JobButtons = ({ job }) => {
  const post = (action) => runWithToast(() => send("POST", url("jobs", job.id, action)));
  if (job.phase === "draft") {
    return html`<span class="row"><button class="primary" onClick=${() => post("start")}>Start</button></span>`;
  }
  if (END_STATUSES.has(job.status)) return null;
  return html`<button disabled=${job.phase === "cancelling"} onClick=${() => post("cancel")}>Cancel</button>`;
};

/** The connected trainers and their states. */
const Trainers = () => {
  const { data } = useResource(url("status"), (event) => event.aggregateKind === "presence");
  if (!data) return null;
  const trainers = data.workers.filter((worker) => worker.service === "trainer");
  const labels = trainers.map((trainer) => `Trainer ${trainer.state}${trainer.device ? ` on ${trainer.device}` : ""}`);
  return html`<span class="muted">${labels.join(" · ") || "No trainer connected"}</span>`;
};
