// The loss while it falls: raw and smoothed, with the learning rate under it. History is asked once, then the
// worker's progress draws on.
import { get, url } from "./api.js";
import { count, figure } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";
import { onFact, progressOf } from "./live.js";
import uPlot from "./vendor/uplot.js";

const MEMORY = 0.97; // share of the smoothed value that stays at each point
const HEIGHT = { loss: 240, rate: 96 };
const TABLE_ROWS = 12;
const WHOLE = [1, 2, 5].flatMap((lead) => [0, 1, 2, 3, 4, 5].map((zeros) => lead * 10 ** zeros)).sort((one, other) => one - other); // steps
const REFILLS = new Set(["job.checkpointed", "job.succeeded", "job.attempt_started", "job.failed", "job.cancelled"]);

/** Exponential moving average, corrected for its start (Kingma & Ba 2014, §3). */
export function smoothed(values) {
  let kept = 0;
  let weight = 0;
  return values.map((value) => {
    kept = MEMORY * kept + (1 - MEMORY) * value;
    weight = MEMORY * weight + (1 - MEMORY);
    return kept / weight;
  });
}

/** `history` with one more point; a step seen before is replaced, and what lay after it is of an older attempt. */
export function extended(history, step, loss, rate) {
  const { steps, losses, rates } = history;
  let end = steps.length;
  while (end > 0 && steps[end - 1] >= step) end -= 1;
  return { steps: [...steps.slice(0, end), step], losses: [...losses.slice(0, end), loss], rates: [...rates.slice(0, end), rate] };
}

export const LossPlot = ({ job }) => {
  const [history, setHistory] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    const refill = () =>
      get(url("jobs", job.id, "metrics"), { signal: abort.signal }).then(
        (told) => setHistory((now) => continued(told, now)),
        () => setHistory((now) => now ?? { steps: [], losses: [], rates: [] }), // the live points still come
      );
    const stops = [
      onFact((fact) => fact.thing === job.id && REFILLS.has(fact.type) && refill()),
      progressOf(job.id).subscribe((told) => {
        if (told && Number.isFinite(told.loss) && told.current_step > 0) {
          setHistory((now) => now && extended(now, told.current_step, told.loss, told.learning_rate ?? null));
        }
      }),
      () => abort.abort(),
    ];
    refill();
    return () => stops.forEach((stop) => stop());
  }, [job.id]);
  if (!history) return html`<div class="plot skeleton" aria-label="Loading"></div>`;
  if (!history.steps.length) {
    return job.ended_at ? null : html`<section class="plot none" aria-label="Loss"><p class="muted">The loss is drawn here from the first step on.</p></section>`;
  }
  return html`<section class="plot" aria-label="Loss"><${Drawn} ...${history} /><${Table} ...${history} /></section>`;
};

/** The blocks the trainer kept, and after them the points only seen live. */
function continued(kept, live) {
  if (!live) return kept;
  const last = kept.steps.at(-1) ?? 0;
  const from = live.steps.findIndex((step) => step > last);
  if (from < 0) return kept;
  const both = (name) => [...kept[name], ...live[name].slice(from)];
  return { steps: both("steps"), losses: both("losses"), rates: both("rates") };
}

const Drawn = ({ steps, losses, rates }) => {
  const box = useRef(null);
  const plots = useRef(null);
  useEffect(() => {
    const place = box.current;
    const drawn = draw(place);
    plots.current = drawn;
    const fit = () => drawn.forEach(([plot, height]) => plot.setSize({ width: place.clientWidth, height }));
    const observer = new ResizeObserver(fit);
    observer.observe(place);
    return () => {
      observer.disconnect();
      drawn.forEach(([plot]) => plot.destroy());
    };
  }, []);
  useEffect(() => {
    const [[loss], [rate]] = plots.current;
    loss.setData([steps, losses, smoothed(losses)]);
    rate.setData([steps, rates]);
  }, [steps, losses, rates]);
  const last = losses.at(-1);
  return html`<div ref=${box} role="img" aria-label=${`Loss over ${count(steps.at(-1))} steps, last ${figure(last)}`}></div>`;
};

function draw(box) {
  const look = getComputedStyle(document.documentElement);
  const colour = (name) => look.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const value = (_, number) => figure(number);
  const scales = { x: { time: false } };
  const padding = [12, 16, 0, 0]; // the same in both, so that a step stands above itself
  const cursor = { sync: { key: "steps" }, drag: { x: true, y: false } };
  const y = { ...axis, size: 56, values: (_, ticks) => ticks.map(figure) };
  const width = box.clientWidth;
  const step = { label: "step", value: (_, number) => (number === null ? "–" : count(number)) };
  const loss = {
    width, height: HEIGHT.loss, scales, cursor, padding, axes: [{ ...axis, size: 28, incrs: WHOLE }, y],
    series: [step, { label: "loss", stroke: colour("--raw"), width: 1, points: { show: false }, value }, { label: "smoothed", stroke: colour("--accent"), width: 2, points: { show: false }, value }],
  };
  // From a little below nothing, or the end of a schedule would lie on the edge and not be seen.
  const fromNothing = { range: (_, low, high) => [Math.min(low, -high / 20), high * 1.1 || 1] };
  const rate = {
    width, height: HEIGHT.rate, cursor, padding: [12, 16, 8, 0], scales: { ...scales, y: fromNothing }, axes: [{ ...axis, show: false }, { ...y, space: 24 }],
    series: [step, { label: "learning rate", stroke: colour("--muted"), width: 1.5, points: { show: false }, value }],
  };
  return [[new uPlot(loss, [[], [], []], box), HEIGHT.loss], [new uPlot(rate, [[], []], box), HEIGHT.rate]];
}

/** The same for those who cannot see a canvas. */
const Table = ({ steps, losses, rates }) => {
  const stride = Math.max(1, Math.ceil(steps.length / TABLE_ROWS));
  const smooth = smoothed(losses);
  const picked = steps.map((_, index) => index).filter((index) => (steps.length - 1 - index) % stride === 0);
  return html`
    <details>
      <summary>As a table</summary>
      <table>
        <thead><tr><th>Step</th><th>Loss</th><th>Smoothed</th><th>Learning rate</th></tr></thead>
        <tbody>
          ${picked.map((index) => html`<tr><td>${count(steps[index])}</td><td>${figure(losses[index])}</td><td>${figure(smooth[index])}</td><td>${figure(rates[index])}</td></tr>`)}
        </tbody>
      </table>
    </details>
  `;
};
