// Finished LoRAs: trigger, training data, key settings and files.
import { link } from "./address.js";
import { url } from "./api.js";
import { date, plural } from "./format.js";
import { html } from "./lib.js";
import { Downloads } from "./job.js";
import { samplePixelClass, sampleUrl } from "./samples.js";
import { EmptyState, Loaded, ScrollSentinel } from "./components.js";
import { MAX_ROWS, useList } from "./resource.js";

export const Loras = () => {
  const list = useList(`${url("jobs")}?status=completed`, (event) => event.aggregateKind === "job");
  return html`
    <div class="title"><h1>LoRAs</h1></div>
    <${Loaded} data=${list.items} error=${list.error}>
      ${(jobs) =>
        jobs.length
          ? html`<ul class="loras">${jobs.map((job) => html`<${Lora} key=${job.id} job=${job} />`)}</ul><${ScrollSentinel} onReach=${list.more} />`
          : html`<${EmptyState} title="No LoRAs yet">Open a <a href="#/datasets">data set</a> and click Train. Finished LoRAs appear here for download.<//>`}
    <//>
  `;
};

const Lora = ({ job }) => {
  const { adapter, base } = job.recipe;
  return html`
    <li class="panel lora">
      <${Preview} job=${job} />
      <div>
        <h2><a href=${link("jobs", job.id)}>${job.name}</a></h2>
        <p>${job.trigger ? html`Trigger: <code>${job.trigger}</code>` : html`<span class="muted">No trigger</span>`}</p>
        ${job.description && html`<p>${job.description}</p>`}
        <p class="muted">
          ${plural(job.images, "image")} of <a href=${link("datasets", job.dataset_id)}>${job.dataset}</a> v${job.version} ·
          ${" "}rank ${adapter.rank}, alpha ${adapter.alpha} · ${plural(job.step, "step")} on base model ${base.name ?? base.path} · ${date(job.ended_at)}
        </p>
        <${Downloads} job=${job} />
      </div>
    </li>
  `;
};

/** The first sample of the last sampled step. */
const Preview = ({ job }) => {
  const { items } = useList(job.samples ? url("jobs", job.id, "samples") : null, undefined, { first: MAX_ROWS });
  const [sample] = [...(items ?? [])].sort((one, other) => other.step - one.step || one.index - other.index);
  return sample
    ? html`<img class=${`preview ${samplePixelClass(job)}`} src=${sampleUrl(job, sample)} alt=${sample.prompt} loading="lazy" />`
    : html`<div class="preview"></div>`;
};
