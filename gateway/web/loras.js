// Finished LoRAs: what each was taught, the word that calls it, and its files.
import { url } from "./api.js";
import { date, plural } from "./format.js";
import { html } from "./lib.js";
import { Artifacts } from "./job.js";
import { grainOf, sampleFile } from "./samples.js";
import { Empty, link, Loaded, Sentinel } from "./parts.js";
import { MOST, useList } from "./resource.js";

export const Loras = () => {
  const list = useList(`${url("jobs")}?status=completed`, (fact) => fact.kind === "job");
  return html`
    <div class="title"><h1>LoRAs</h1></div>
    <${Loaded} data=${list.items} error=${list.error}>
      ${(jobs) =>
        jobs.length
          ? html`<ul class="loras">${jobs.map((job) => html`<${Lora} key=${job.id} job=${job} />`)}</ul><${Sentinel} reached=${list.more} />`
          : html`<${Empty} title="No LoRA yet">They appear here when a <a href="#/jobs">job</a> is done, ready to download.<//>`}
    <//>
  `;
};

const Lora = ({ job }) => {
  const { adapter, base } = job.recipe;
  return html`
    <li class="panel lora">
      <${LastSample} job=${job} />
      <div>
        <h2><a href=${link("jobs", job.id)}>${job.name}</a></h2>
        <p>${job.trigger ? html`Call it with <code>${job.trigger}</code>` : html`<span class="muted">No trigger word</span>`}</p>
        ${job.description && html`<p>${job.description}</p>`}
        <p class="muted">
          ${plural(job.images, "picture")} of <a href=${link("datasets", job.dataset_id)}>${job.dataset}</a> v${job.version} ·
          ${" "}rank ${adapter.rank}, alpha ${adapter.alpha} · ${plural(job.step, "step")} on ${base.name ?? base.path} · ${date(job.ended_at)}
        </p>
        <${Artifacts} job=${job} />
      </div>
    </li>
  `;
};

const LastSample = ({ job }) => {
  const { items } = useList(job.samples ? url("jobs", job.id, "samples") : null, undefined, { first: MOST });
  const last = items?.reduce((best, one) => (!best || one.step > best.step || (one.step === best.step && one.index < best.index) ? one : best), null);
  return last
    ? html`<img class=${`face ${grainOf(job)}`} src=${sampleFile(job, last)} alt=${last.prompt} loading="lazy" />`
    : html`<div class="face none"></div>`;
};
