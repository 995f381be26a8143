// Having a model look at the pictures: the button, and how far it is.
import { send, url } from "./api.js";
import { plural } from "./format.js";
import { html, useState } from "./lib.js";
import { progressOf } from "./live.js";
import { attempt, Bar, Status, Waiting } from "./parts.js";
import { useResource } from "./resource.js";

const DEFAULT_MODEL = "demo";
const ENDED = new Set(["completed", "failed", "cancelled"]);

export const TagWithModel = ({ dataset }) => {
  const { data } = useResource(url("tagging", "models"), (fact) => fact.kind === "presence");
  const names = (data?.items ?? []).map((one) => one.name);
  const [model, setModel] = useState(DEFAULT_MODEL);
  const start = () => attempt(() => send("POST", url("tagging", "runs"), { dataset: dataset.id, model }));
  return html`
    <span class="joined">
      <button disabled=${!dataset.images} onClick=${start}>Tag with model</button>
      ${names.length > 1 &&
      html`<select aria-label="Model" value=${model} onChange=${(event) => setModel(event.target.value)}>
        ${names.map((name) => html`<option>${name}</option>`)}
      </select>`}
    </span>
  `;
};

/** The newest run over this data set, while it matters. */
export const TaggingRun = ({ dataset }) => {
  const address = `${url("tagging", "runs")}?dataset=${encodeURIComponent(dataset.id)}&limit=1`;
  const { data } = useResource(address, (fact) => fact.kind === "tagging" || fact.kind === "presence");
  const run = data?.items[0];
  if (!run || run.status === "completed" || run.status === "cancelled") return null;
  return html`<${Run} run=${run} />`;
};

const Run = ({ run }) => {
  const told = progressOf(run.id).value;
  const done = Math.max(run.done, told?.current_step ?? run.live?.progress?.done ?? 0);
  return html`
    <section class="panel" aria-label="Tagging run">
      <div class="row spread">
        <span><${Status} of=${run} /> ${run.model} tags ${plural(run.total, "picture")} <${Waiting} of=${run} /></span>
        <span class="figures">
          ${done} / ${run.total}
          ${!ENDED.has(run.status) &&
          html` <button onClick=${() => attempt(() => send("POST", url("tagging", "runs", run.id, "cancel")))}>Cancel</button>`}
        </span>
      </div>
      ${run.error ? html`<p class="bad">${run.error}</p>` : html`<${Bar} share=${run.total ? done / run.total : 0} label="Tagging" />`}
    </section>
  `;
};
