// All jobs: how far each is, and why it waits.
import { send, url } from "./api.js";
import { ago, count, duration, figure } from "./format.js";
import { html, useState } from "./lib.js";
import { progressOf } from "./live.js";
import { attempt, Bar, Empty, link, Loaded, Sentinel, Status, Waiting } from "./parts.js";
import { useList, useResource } from "./resource.js";

const FILTERS = [["", "all"], ["pending", "waiting"], ["running", "running"], ["completed", "done"], ["failed", "failed"], ["cancelled", "cancelled"]];
const ENDED = new Set(["completed", "failed", "cancelled"]);

export const Jobs = () => {
  const [status, setStatus] = useState("");
  const list = useList(`${url("jobs")}${status ? `?status=${status}` : ""}`, (fact) => fact.kind === "job" || fact.kind === "presence");
  return html`
    <div class="title">
      <h1>Jobs</h1>
      <${Workers} />
    </div>
    <div class="row tabs" role="group" aria-label="Show">
      ${FILTERS.map(([value, word]) => html`<button aria-pressed=${value === status} onClick=${() => setStatus(value)}>${word}</button>`)}
    </div>
    <${Loaded} data=${list.items} error=${list.error}>
      ${(items) => (items.length ? html`<${Rows} items=${items} more=${list.more} />` : html`<${None} status=${status} />`)}
    <//>
  `;
};

const None = ({ status }) =>
  status
    ? html`<${Empty} title="No such job">Nothing here right now.<//>`
    : html`<${Empty} title="No job yet">A job trains a LoRA. Open a <a href="#/datasets">data set</a> with pictures and press Train.<//>`;

const Rows = ({ items, more }) => html`
  <ul class="jobs">${items.map((job) => html`<${Row} key=${job.id} job=${job} />`)}</ul>
  <${Sentinel} reached=${more} />
`;

const Row = ({ job }) => {
  const now = nowOf(job);
  return html`
    <li class="panel job">
      <div class="row spread">
        <a class="name" href=${link("jobs", job.id)}>${job.name}</a>
        <${Buttons} job=${job} />
      </div>
      <div class="row">
        <${Status} of=${job} />
        <span class="muted">${job.dataset} v${job.version}${job.trigger && html` · <code>${job.trigger}</code>`} · ${ago(job.created_at)}</span>
      </div>
      <${Waiting} of=${job} />
      ${job.error && html`<p class="bad">${job.error}</p>`}
      ${now.steps > 0 &&
      html`
        ${job.status !== "completed" && html`<${Bar} share=${now.step / now.steps} label=${`Progress of ${job.name}`} />`}
        <div class="row spread figures muted">
          <span>${count(now.step)} / ${count(now.steps)} steps</span>
          <span>${job.status === "running" ? running(now) : ""}</span>
        </div>
      `}
    </li>
  `;
};

const running = ({ loss, eta, message }) =>
  [message, loss !== null && `loss ${figure(loss)}`, eta !== null && `${duration(eta)} left`].filter(Boolean).join(" · ");

/** Where a job is now: what its worker last told, else what is kept for sure. */
export function nowOf(job) {
  const told = job.status === "running" ? (progressOf(job.id).value ?? job.live?.progress ?? null) : null;
  return {
    // A frame says current_step as the seed's clients know it; the job's `live` is the trainer's own message.
    step: Math.max(job.step, told?.current_step ?? told?.step ?? 0),
    steps: job.steps ?? told?.total_steps ?? told?.steps ?? 0,
    loss: told?.loss ?? null,
    rate: told?.rate ?? null,
    eta: told?.eta ?? null,
    learningRate: told?.learning_rate ?? null,
    message: told?.message ?? "",
  };
}

export const Buttons = ({ job }) => {
  const ask = (verb) => attempt(() => send("POST", url("jobs", job.id, verb)));
  if (job.phase === "draft") {
    return html`<span class="row"><button class="primary" onClick=${() => ask("start")}>Start</button></span>`;
  }
  if (ENDED.has(job.status)) return null;
  return html`<button disabled=${job.phase === "cancelling"} onClick=${() => ask("cancel")}>Cancel</button>`;
};

/** Who is there to do the work. */
const Workers = () => {
  const { data } = useResource(url("status"), (fact) => fact.kind === "presence");
  if (!data) return null;
  const trainers = data.workers.filter((worker) => worker.service === "trainer");
  const words = trainers.map((worker) => `trainer ${worker.state}${worker.device ? ` on ${worker.device}` : ""}`);
  return html`<span class="muted">${words.join(" · ") || "no trainer connected"}</span>`;
};
