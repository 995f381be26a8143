// Samples of a job: before and after next to the training images, and the samples of all steps.
import { link } from "./address.js";
import { url } from "./api.js";
import { count, date, plural } from "./format.js";
import { html, useState } from "./lib.js";
import { Dialog, pixelClass } from "./components.js";
import { MAX_ROWS, useList } from "./resource.js";

const MAX_PROMPTS = 16; // of a recipe

export const Samples = ({ job }) => {
  const isAffectedBy = (event) => event.aggregateId === job.id && event.type === "job.sampled";
  const { items } = useList(url("jobs", job.id, "samples"), isAffectedBy, { first: MAX_ROWS });
  const [openSample, setOpenSample] = useState(null);
  if (!items?.length) return null;
  const rounds = groupByStep(items);
  const hasBefore = rounds[0][0].step === 0;
  const after = rounds.length > 1 ? rounds.at(-1) : [];
  return html`
    ${hasBefore && html`<${Comparison} job=${job} before=${rounds[0]} after=${after} open=${setOpenSample} />`}
    ${rounds.length > (hasBefore ? 2 : 0) && html`<${Filmstrip} job=${job} rounds=${rounds} open=${setOpenSample} isCollapsed=${hasBefore} />`}
    ${openSample && html`<${SampleDialog} job=${job} sample=${openSample} close=${() => setOpenSample(null)} />`}
  `;
};

/** The samples of each step in the order of their prompts; steps ascending. */
function groupByStep(samples) {
  const steps = [...new Set(samples.map((sample) => sample.step))].sort((one, other) => one - other);
  return steps.map((step) => samples.filter((sample) => sample.step === step).sort((one, other) => one.index - other.index));
}

/** One column for each prompt; before and after start from the same noise. */
const Comparison = ({ job, before, after, open }) => {
  const isAffectedBy = (event) => event.aggregateId === job.dataset_id;
  const { items } = useList(url("datasets", job.dataset_id, "images"), isAffectedBy, { first: MAX_PROMPTS });
  const trainingImages = (items ?? []).slice(0, before.length);
  const step = after[0]?.step;
  const row = (samples) => samples.map((sample) => html`<${Sample} key=${sample.index} job=${job} sample=${sample} open=${open} />`);
  return html`
    <section aria-label="Before and after">
      <h2>Before and after</h2>
      <div class="comparison" style=${{ "--columns": before.length }} tabindex="0" role="group" aria-label="One column for each prompt">
        ${trainingImages.length > 0 &&
        html`
          <h3>Training images <small>${fractionShown(trainingImages.length, job.images)}</small></h3>
          ${trainingImages.map((image) => html`<${TrainingImage} key=${image.id} job=${job} image=${image} />`)}
        `}
        <h3>Before <small>base model only</small></h3>
        ${row(before)}
        ${after.length > 0 && html`<h3>${job.ended_at ? "After" : "So far"} <small>${plural(step, "step")}</small></h3>${row(after)}`}
        <h3 class="prompt">Prompt</h3>
        ${before.map((sample) => html`<p key=${sample.index} class="prompt" title=${sample.prompt}>${sample.prompt}</p>`)}
      </div>
    </section>
  `;
};

const fractionShown = (shown, total) => (shown < total ? `${shown} of ${count(total)} shown` : `all ${count(total)}`);

const TrainingImage = ({ job, image }) => {
  const pixels = pixelClass(image.width, image.height);
  return html`
    <a href=${link("datasets", job.dataset_id, "images", image.id)} title=${image.caption || image.name}>
      <img class=${pixels} src=${url("images", image.id, pixels ? "file" : "thumbnail")} alt=${image.caption || image.name} loading="lazy" />
    </a>
  `;
};

/** The samples of all steps; collapsed below a before-and-after comparison. */
const Filmstrip = ({ job, rounds, open, isCollapsed }) => html`
  <section aria-label="Samples">
    <details class="all-samples" open=${!isCollapsed}>
      <summary>Show the samples of all ${rounds.length} steps</summary>
      <div class="filmstrip" tabindex="0" role="group" aria-label="Samples by step">
        <div class="frame prompts" aria-hidden="true">${rounds.at(-1).map((sample) => html`<p>${sample.prompt}</p>`)}</div>
        ${rounds.map(
          (round) => html`
            <div class="frame" key=${round[0].step}>
              ${round.map((sample) => html`<${Sample} key=${sample.index} job=${job} sample=${sample} open=${open} />`)}
              <span class="figures muted">step ${count(round[0].step)}</span>
            </div>
          `,
        )}
      </div>
    </details>
  </section>
`;

export const sampleUrl = (job, sample) => url("jobs", job.id, "samples", sample.step, sample.index);

/** The CSS class of the job's samples. */
export const samplePixelClass = (job) => pixelClass(job.recipe.data.resolution);

const Sample = ({ job, sample, open }) => html`
  <button class="bare" title=${sample.prompt} onClick=${() => open(sample)}>
    <img class=${samplePixelClass(job)} src=${sampleUrl(job, sample)} alt=${`Step ${sample.step}: ${sample.prompt}`} loading="lazy" />
  </button>
`;

const SampleDialog = ({ job, sample, close }) => html`
  <${Dialog} title=${`Sample at step ${count(sample.step)}`} onClose=${close} wide>
    <img class=${`large ${samplePixelClass(job)}`} src=${sampleUrl(job, sample)} alt=${sample.prompt} />
    <p>Prompt: ${sample.prompt}</p>
    <p class="muted">Seed ${sample.seed} · rendered ${date(sample.at)}</p>
  <//>
`;
