// One job: its recipe, progress, results and history.
import { link } from "./address.js";
import { url } from "./api.js";
import { bytes, count, decimal, duration, plural, sentence, time } from "./format.js";
import { html } from "./lib.js";
import { EmptyState, Loaded, ProgressBar, Status, WaitingReason } from "./components.js";
import { currentProgress, JobButtons } from "./jobs.js";
import { LossPlot } from "./loss-plot.js";
import { MAX_ROWS, useList, useResource } from "./resource.js";
import { Samples } from "./samples.js";

export const Job = ({ id }) => {
  const { data, error } = useResource(url("jobs", id), (event) => event.aggregateId === id || event.aggregateKind === "presence");
  return html`<${Loaded} data=${data} error=${error}>${(job) => html`<${LoadedJob} job=${job} />`}<//>`;
};

const LoadedJob = ({ job }) => html`
  <p class="crumbs"><a href=${link("jobs")}>Jobs</a></p>
  <div class="title">
    <h1>${job.name}</h1>
    <div class="row"><${Status} work=${job} /><${JobButtons} job=${job} /></div>
  </div>
  <p class="lead">
    ${job.version && `${plural(job.images, "image")} of `}<a href=${link("datasets", job.dataset_id)}>${job.dataset}</a>${job.version && `, version ${job.version}`}${job.captions_lost > 0 && ` · ${plural(job.captions_lost, "image")} without a lost caption`}
    ${job.trigger && html` · Trigger: <code>${job.trigger}</code>`}${job.preset && html` · Preset: ${job.preset}`}
  </p>
  ${job.description && html`<p class="job-description">${job.description}</p>`}
  <${WaitingReason} work=${job} />
  ${job.error && html`<p class="bad">${sentence(job.error)}</p>`}
  <${Stats} job=${job} />
  ${job.artifacts.length > 0 && html`<${Downloads} job=${job} />`}
  ${arrange(job.ended_at, html`<${Samples} key="samples" job=${job} />`, html`<${LossPlot} key="loss" job=${job} />`)}
  <div class="columns">
    <${Recipe} job=${job} />
    <div>
      <${Attempts} job=${job} />
      <${Checkpoints} job=${job} />
      <${History} job=${job} />
    </div>
  </div>
`;

/** While the job runs, the loss comes first; afterwards, the samples. */
const arrange = (hasEnded, samples, loss) => (hasEnded ? [samples, loss] : [loss, samples]);

const Stats = ({ job }) => {
  const progress = currentProgress(job);
  const isFinished = job.ended_at && job.started_at;
  const stats = [
    ["Step", progress.steps ? `${count(progress.step)} / ${count(progress.steps)}` : count(progress.step)],
    ["Loss", decimal(progress.loss)],
    ["Learning rate", decimal(progress.learningRate)],
    ["Speed", progress.rate ? `${decimal(progress.rate)} steps/s` : "–"],
    isFinished
      ? ["Duration", duration((new Date(job.ended_at) - new Date(job.started_at)) / 1000)]
      : ["Time left", progress.eta === null ? "–" : duration(progress.eta)],
    ["Device", job.device ? `${job.device}, ${job.precision}` : "–"],
  ];
  const shown = job.ended_at ? stats.filter(([, value]) => value !== "–") : stats;
  return html`
    ${progress.steps > 0 && !job.ended_at && html`<${ProgressBar} fraction=${progress.step / progress.steps} label="Progress" />`}
    <dl class="stats">${shown.map(([label, value]) => html`<div><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>
    ${progress.message && html`<p class="muted">${progress.message}</p>`}
  `;
};

export const Downloads = ({ job }) => html`
  <section class="panel downloads" aria-label="Downloads">
    ${job.artifacts.map(
      (file) => html`
        <a class="button" href=${url("jobs", job.id, "artifacts", file.name)} download>
          ↓ Download for ${file.format === "kohya" ? "ComfyUI, A1111, Forge" : "diffusers"}
          <small class="muted">${file.name} · ${bytes(file.size)}</small>
        </a>
      `,
    )}
  </section>
`;

const Attempts = ({ job }) => {
  if (!job.attempts.length) return null;
  const row = (attempt, index) => html`
    <tr>
      <td>${index + 1}</td><td>${attempt.worker}</td><td>${count(attempt.resumes)}</td>
      <td>${attempt.ended ?? "running"}${attempt.reason && html`<br /><small class="muted">${attempt.reason}</small>`}</td>
    </tr>
  `;
  return html`
    <h2>Attempts</h2>
    <table>
      <thead><tr><th>#</th><th>Worker</th><th>From step</th><th>Outcome</th></tr></thead>
      <tbody>${job.attempts.map(row)}</tbody>
    </table>
  `;
};

const Checkpoints = ({ job }) => {
  const isAffectedBy = (event) => event.aggregateId === job.id && event.type === "job.checkpointed";
  const { items } = useList(url("jobs", job.id, "checkpoints"), isAffectedBy, { first: MAX_ROWS });
  if (!items?.length) return null;
  const row = (checkpoint) => html`<tr><td>${count(checkpoint.step)}</td><td>${bytes(checkpoint.size)}</td><td>${time(checkpoint.at)}</td></tr>`;
  return html`
    <h2>Checkpoints</h2>
    <div class="scroll">
      <table>
        <thead><tr><th>Step</th><th>Size</th><th>Saved at</th></tr></thead>
        <tbody>${items.map(row)}</tbody>
      </table>
    </div>
  `;
};

const History = ({ job }) => {
  const options = { first: MAX_ROWS, cursorParameter: "after" };
  const { items, error } = useList(url("jobs", job.id, "events"), (event) => event.aggregateId === job.id, options);
  const line = (event) => html`
    <li key=${`${event.sequence}.${event.index}`}><time>${time(event.time)}</time> <span title=${event.type}>${event.description}</span></li>
  `;
  return html`
    <h2>History</h2>
    <${Loaded} data=${items} error=${error}>
      ${(events) =>
        events.length
          ? html`<ol class="timeline">${events.map(line)}</ol>`
          : html`<${EmptyState} title="No events yet">Events appear here as they happen.<//>`}
    <//>
  `;
};

const toLabel = (name) => name.replaceAll("_", " ");

const formatValue = (value) => {
  if (value === null) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return "none"; // only empty arrays come here; others are shown as a list
  return typeof value === "number" ? decimal(value) : value;
};

/** The recipe as a tree: each nested struct is a section titled with its type, the plain fields are under "general". */
const Recipe = ({ job }) => {
  const { version: _, ...recipe } = job.recipe;
  const entries = Object.entries(recipe);
  const sections = entries.filter(([, value]) => value && typeof value === "object" && !Array.isArray(value));
  const plainFields = entries.filter((entry) => !sections.includes(entry));
  return html`
    <section aria-label="Recipe">
      <h2>Recipe</h2>
      <div class="recipe">
        ${sections.map(([name, { type, ...fields }]) => html`<${RecipeSection} name=${name} type=${type} fields=${Object.entries(fields)} />`)}
        <${RecipeSection} name="general" fields=${plainFields} />
      </div>
    </section>
  `;
};

const RecipeSection = ({ name, type, fields }) => html`
  <div class="recipe-section">
    <h3>${toLabel(name)}${type && html` <span>${toLabel(type)}</span>`}</h3>
    <dl>${fields.map(([field, value]) => html`<${RecipeField} name=${field} value=${value} />`)}</dl>
  </div>
`;

const MAX_LIST_LINES = 6; // longer lists are collapsed

const RecipeField = ({ name, value }) => {
  const isList = Array.isArray(value) && value.length > 0;
  const isLong = isList && value.length > MAX_LIST_LINES;
  return html`
    <div class=${isList ? "list" : ""}>
      <dt>${toLabel(name)}</dt>
      ${!isList && html`<dd>${formatValue(value)}</dd>`}
      ${isList && !isLong && value.map((line) => html`<dd>${line}</dd>`)}
      ${isLong && html`<dd><${CollapsedList} lines=${value} /></dd>`}
    </div>
  `;
};

const CollapsedList = ({ lines }) => html`
  <details>
    <summary>Show all ${lines.length}</summary>
    ${lines.map((line) => html`<p>${line}</p>`)}
  </details>
`;
