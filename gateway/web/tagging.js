// Auto-tagging a data set: the button that starts a tagging run, and the progress of the newest run.
import { send, url } from "./api.js";
import { count, plural, sentence } from "./format.js";
import { html, useState } from "./lib.js";
import { progressOf } from "./live.js";
import { ProgressBar, runWithToast, Status, WaitingReason } from "./components.js";
import { useResource } from "./resource.js";

const END_STATUSES = new Set(["completed", "failed", "cancelled"]);

export const AutoTagButton = ({ dataset }) => {
  const { data } = useResource(url("tagging", "models"), (event) => event.aggregateKind === "presence");
  const models = data?.items ?? [];
  const [chosen, setChosen] = useState(null);
  const model = chosen ?? models.find((one) => one.is_default)?.name ?? "";
  const title = model ? `Let the model ${model} predict the tags of all images` : "Choose a model first";
  const startRun = () => runWithToast(() => send("POST", url("tagging", "runs"), { dataset: dataset.id, model }));
  return html`
    <span class="button-group">
      <button disabled=${!dataset.images || !model} title=${title} onClick=${startRun}>Auto-tag</button>
      ${models.length > 0 &&
      html`<select aria-label="Model" value=${model} onChange=${(event) => setChosen(event.target.value)}>
        ${!model && html`<option value="">Choose a model</option>`}
        ${models.map(({ name, description }) => html`<option value=${name}>${description ? `${name}: ${description}` : name}</option>`)}
      </select>`}
    </span>
  `;
};

/** The newest tagging run of this data set, unless it completed or was cancelled. */
export const TaggingRun = ({ dataset }) => {
  const address = `${url("tagging", "runs")}?dataset=${encodeURIComponent(dataset.id)}&limit=1`;
  const isAffectedBy = (event) => event.aggregateKind === "tagging" || event.aggregateKind === "presence";
  const { data } = useResource(address, isAffectedBy);
  const run = data?.items[0];
  if (!run || run.status === "completed" || run.status === "cancelled") return null;
  return html`<${RunProgress} run=${run} />`;
};

const RunProgress = ({ run }) => {
  const progress = progressOf(run.id).value;
  const done = Math.max(run.done, progress?.current_step ?? run.live?.progress?.done ?? 0);
  const cancel = () => runWithToast(() => send("POST", url("tagging", "runs", run.id, "cancel")));
  return html`
    <section class="panel" aria-label="Tagging run">
      <div class="row spread">
        <span><${Status} work=${run} /> Auto-tagging ${plural(run.total, "image")} with ${run.model} <${WaitingReason} work=${run} /></span>
        <span class="figures">
          ${count(done)} / ${count(run.total)}
          ${!END_STATUSES.has(run.status) && html` <button onClick=${cancel}>Cancel</button>`}
        </span>
      </div>
      ${run.error ? html`<p class="bad">${sentence(run.error)}</p>` : html`<${ProgressBar} fraction=${run.total ? done / run.total : 0} label="Auto-tagging" />`}
    </section>
  `;
};
