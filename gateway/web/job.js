// One job: what it was asked, how it goes, what came out.
import { url } from "./api.js";
import { bytes, count, duration, figure, plural, time } from "./format.js";
import { html } from "./lib.js";
import { Bar, Empty, link, Loaded, Status, Waiting } from "./parts.js";
import { Buttons, nowOf } from "./jobs.js";
import { LossPlot } from "./plot.js";
import { MOST, useList, useResource } from "./resource.js";
import { Samples } from "./samples.js";
import { Story } from "./story.js";

export const Job = ({ id }) => {
  const { data, error } = useResource(url("jobs", id), (fact) => fact.thing === id || fact.kind === "presence");
  return html`<${Loaded} data=${data} error=${error}>${(job) => html`<${Opened} job=${job} />`}<//>`;
};

const Opened = ({ job }) => html`
  <p class="crumbs"><a href=${link("jobs")}>Jobs</a></p>
  <div class="title">
    <h1>${job.name}</h1>
    <div class="row"><${Status} of=${job} /><${Buttons} job=${job} /></div>
  </div>
  <p class="lead">
    ${plural(job.images, "picture")} of <a href=${link("datasets", job.dataset_id)}>${job.dataset}</a>, version ${job.version}
    ${job.trigger && html`, called by <code>${job.trigger}</code>`}${job.preset && html`, preset ${job.preset}`}
  </p>
  ${job.description && html`<p class="said">${job.description}</p>`}
  <${Waiting} of=${job} />
  ${job.error && html`<p class="bad">${job.error}</p>`}
  <${Figures} job=${job} />
  ${job.artifacts.length > 0 && html`<${Artifacts} job=${job} />`}
  ${inOrder(job.ended_at, html`<${Samples} key="samples" job=${job} />`, html`<${LossPlot} key="loss" job=${job} />`)}
  <div class="columns">
    <${Recipe} job=${job} />
    <div>
      <${Attempts} job=${job} />
      <${Checkpoints} job=${job} />
      <${Timeline} job=${job} />
    </div>
  </div>
`;

/** While it runs, the loss comes first; afterwards, what came out. */
const inOrder = (ended, samples, loss) => (ended ? [samples, loss] : [loss, samples]);

const Figures = ({ job }) => {
  const now = nowOf(job);
  const cells = [
    ["Step", `${count(now.step)} / ${now.steps ? count(now.steps) : "?"}`],
    ["Loss", figure(now.loss)],
    ["Learning rate", figure(now.learningRate)],
    ["Speed", now.rate ? `${figure(now.rate)} steps/s` : "–"],
    ["Left", now.eta === null ? "–" : duration(now.eta)],
    ["Device", job.device ? `${job.device}, ${job.precision}` : "–"],
  ];
  if (job.ended_at && job.started_at) cells[4] = ["Took", duration((new Date(job.ended_at) - new Date(job.started_at)) / 1000)];
  const shown = job.ended_at ? cells.filter(([, value]) => value !== "–") : cells;
  return html`
    ${now.steps > 0 && !job.ended_at && html`<${Bar} share=${now.step / now.steps} label="Progress" />`}
    <dl class="stats">${shown.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    ${now.message && html`<p class="muted">${now.message}</p>`}
  `;
};

export const Artifacts = ({ job }) => html`
  <section class="panel downloads" aria-label="Downloads">
    ${job.artifacts.map(
      (file) => html`
        <a class="button" href=${url("jobs", job.id, "artifacts", file.name)} download>
          ↓ ${file.format === "kohya" ? "For ComfyUI, A1111, Forge" : "For diffusers"}
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
      <td>${attempt.ended ?? "open"}${attempt.reason && html`<br /><small class="muted">${attempt.reason}</small>`}</td>
    </tr>
  `;
  return html`
    <h2>Attempts</h2>
    <table>
      <thead><tr><th>#</th><th>Worker</th><th>From step</th><th>Ended</th></tr></thead>
      <tbody>${job.attempts.map(row)}</tbody>
    </table>
  `;
};

const Checkpoints = ({ job }) => {
  const { items } = useList(url("jobs", job.id, "checkpoints"), (fact) => fact.thing === job.id && fact.type === "job.checkpointed", { first: MOST });
  if (!items?.length) return null;
  const row = (one) => html`<tr><td>${count(one.step)}</td><td>${bytes(one.size)}</td><td>${time(one.at)}</td></tr>`;
  return html`
    <h2>Checkpoints</h2>
    <div class="scroll">
      <table>
        <thead><tr><th>Step</th><th>Size</th><th>At</th></tr></thead>
        <tbody>${items.map(row)}</tbody>
      </table>
    </div>
  `;
};

const Timeline = ({ job }) => {
  const { items, error } = useList(url("jobs", job.id, "events"), (fact) => fact.thing === job.id, { first: MOST, by: "after" });
  return html`
    <h2>What happened</h2>
    <${Loaded} data=${items} error=${error}>
      ${(events) =>
        events.length
          ? html`<ol class="timeline">${events.map((event) => html`<li key=${`${event.sequence}.${event.index}`}><time>${time(event.time)}</time> <${Story} of=${event} /></li>`)}</ol>`
          : html`<${Empty} title="Nothing yet">Events appear here as they happen.<//>`}
    <//>
  `;
};

const words = (name) => name.replaceAll("_", " ");

const shown = (value) => {
  if (value === null) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return "none"; // with something in it, it is a list
  return typeof value === "number" ? figure(value) : value;
};

/** The recipe's tree: branches as groups named by their type, leaves as name and value. */
const Recipe = ({ job }) => {
  const entries = Object.entries(job.recipe);
  const branches = entries.filter(([, value]) => value && typeof value === "object" && !Array.isArray(value));
  const leaves = entries.filter((entry) => !branches.includes(entry));
  return html`
    <section aria-label="Recipe">
      <h2>Recipe</h2>
      <div class="recipe">
        ${branches.map(([name, { type, ...fields }]) => html`<${Branch} name=${name} type=${type} fields=${Object.entries(fields)} />`)}
        <${Branch} name="general" fields=${leaves} />
      </div>
    </section>
  `;
};

const MANY = 6; // more lines of one field than that are folded

const Leaf = ({ name, value }) => {
  const many = Array.isArray(value) && value.length > 0;
  return html`
    <div class=${many ? "many" : ""}>
      <dt>${words(name)}</dt>
      ${!many && html`<dd>${shown(value)}</dd>`}
      ${many && value.length <= MANY && value.map((each) => html`<dd>${each}</dd>`)}
      ${many && value.length > MANY && html`<dd><${Folded} lines=${value} /></dd>`}
    </div>
  `;
};

const Folded = ({ lines }) => html`
  <details>
    <summary>All ${lines.length}</summary>
    ${lines.map((line) => html`<p>${line}</p>`)}
  </details>
`;

const Branch = ({ name, type, fields }) => html`
  <div class="branch">
    <h3>${words(name)}${type && html` <span>${words(type)}</span>`}</h3>
    <dl>${fields.map(([field, value]) => html`<${Leaf} name=${field} value=${value} />`)}</dl>
  </div>
`;
