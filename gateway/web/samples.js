// What a job drew while it learnt: before and after with what it was shown, and the rounds between.
import { url } from "./api.js";
import { count, date, plural } from "./format.js";
import { html, useState } from "./lib.js";
import { Dialog, grain, link } from "./parts.js";
import { MOST, useList } from "./resource.js";

const MOST_PROMPTS = 16; // of a recipe

export const Samples = ({ job }) => {
  const { items } = useList(url("jobs", job.id, "samples"), (fact) => fact.thing === job.id && fact.type === "job.sampled", { first: MOST });
  const [open, setOpen] = useState(null);
  if (!items?.length) return null;
  const steps = [...new Set(items.map((sample) => sample.step))].sort((one, other) => one - other);
  const rounds = steps.map((step) => items.filter((sample) => sample.step === step).sort((one, other) => one.index - other.index));
  const compared = steps[0] === 0;
  return html`
    ${compared && html`<${Compared} job=${job} before=${rounds[0]} after=${steps.length > 1 ? rounds.at(-1) : []} open=${setOpen} />`}
    ${steps.length > (compared ? 2 : 0) && html`<${Film} job=${job} rounds=${rounds} open=${setOpen} folded=${compared} />`}
    ${open && html`<${LargeSample} job=${job} sample=${open} close=${() => setOpen(null)} />`}
  `;
};

/** Columns are prompts; the same noise was drawn from before and after. */
const Compared = ({ job, before, after, open }) => {
  const shown = useList(url("datasets", job.dataset_id, "images"), (fact) => fact.thing === job.dataset_id, { first: MOST_PROMPTS });
  const step = after[0]?.step;
  const row = (samples) => samples.map((sample) => html`<${Sample} key=${sample.index} job=${job} sample=${sample} open=${open} />`);
  return html`
    <section aria-label="Before and after">
      <h2>Before and after</h2>
      <div class="compared" style=${{ "--columns": before.length }} tabindex="0" role="group" aria-label="Prompts from left to right">
        ${shown.items?.length > 0 &&
        html`
          <h3>Shown <small>${ofAll(Math.min(shown.items.length, before.length), job.images)}</small></h3>
          ${shown.items.slice(0, before.length).map((image) => html`<${Shown} key=${image.id} job=${job} image=${image} />`)}
        `}
        <h3>Before <small>the base alone</small></h3>
        ${row(before)}
        ${after.length > 0 && html`<h3>${job.ended_at ? "After" : "So far"} <small>${plural(step, "step")}</small></h3>${row(after)}`}
        <h3 class="asked">Asked</h3>
        ${before.map((sample) => html`<p key=${sample.index} class="asked" title=${sample.prompt}>${sample.prompt}</p>`)}
      </div>
    </section>
  `;
};

const ofAll = (some, all) => (some < all ? `${some} of ${plural(all, "picture")}` : plural(all, "picture"));

const Shown = ({ job, image }) => {
  const few = grain(image.width, image.height);
  return html`
    <a href=${link("datasets", job.dataset_id, "images", image.id)} title=${image.caption || image.name}>
      <img class=${few} src=${url("images", image.id, few ? "file" : "thumbnail")} alt=${image.caption || image.name} loading="lazy" />
    </a>
  `;
};

/** Every round; where before and after say the most, it opens on a click. */
const Film = ({ job, rounds, open, folded }) => html`
  <section aria-label="Samples">
    <details class="rounds" open=${!folded}>
      <summary>All ${plural(rounds.length, "round")} of samples</summary>
      <div class="film" tabindex="0" role="group" aria-label="Samples by step">
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

export const sampleFile = (job, sample) => url("jobs", job.id, "samples", sample.step, sample.index);

/** How a picture is shown that the job drew. */
export const grainOf = (job) => grain(job.recipe.data.resolution);

const Sample = ({ job, sample, open }) => html`
  <button class="bare" title=${sample.prompt} onClick=${() => open(sample)}>
    <img class=${grainOf(job)} src=${sampleFile(job, sample)} alt=${`Step ${sample.step}: ${sample.prompt}`} loading="lazy" />
  </button>
`;

const LargeSample = ({ job, sample, close }) => html`
  <${Dialog} title=${`Step ${count(sample.step)}`} onClose=${close} wide>
    <img class=${`large ${grainOf(job)}`} src=${sampleFile(job, sample)} alt=${sample.prompt} />
    <p>${sample.prompt}</p>
    <p class="muted">seed ${sample.seed} · ${date(sample.at)}</p>
  <//>
`;
