// The loss curve: raw and smoothed, with the learning rate below. The history is fetched; live progress extends it.
import { get, url } from "./api.js";
import { appendPoint, mergeHistory, smooth } from "./curve.js";
import { count, decimal } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";
import { onEvent, progressOf } from "./live.js";
import uPlot from "./vendor/uplot.js";

const HEIGHTS = { loss: 240, rate: 96 }; // pixels
const TABLE_ROWS = 12;
const STEP_INCREMENTS = [1, 2, 5] // allowed distances between ticks of the x axis
  .flatMap((digit) => [0, 1, 2, 3, 4, 5].map((exponent) => digit * 10 ** exponent))
  .sort((one, other) => one - other);
/** Events after which the stored history is fetched again. */
const REFETCH_EVENTS = new Set(["job.checkpointed", "job.succeeded", "job.attempt_started", "job.failed", "job.cancelled"]);

export const LossPlot = ({ job }) => {
  const [history, setHistory] = useState(null);
  useEffect(() => {
    const abort = new AbortController();
    const fetchHistory = () =>
      get(url("jobs", job.id, "metrics"), { signal: abort.signal }).then(
        (stored) => setHistory((current) => mergeHistory(stored, current)),
        () => setHistory((current) => current ?? { steps: [], losses: [], rates: [] }), // live points still arrive
      );
    const cleanups = [
      onEvent((event) => event.aggregateId === job.id && REFETCH_EVENTS.has(event.type) && fetchHistory()),
      progressOf(job.id).subscribe((progress) => {
        if (progress && Number.isFinite(progress.loss) && progress.current_step > 0) {
          const { current_step: step, loss, learning_rate: rate } = progress;
          setHistory((current) => current && appendPoint(current, step, loss, rate ?? null));
        }
      }),
      () => abort.abort(),
    ];
    fetchHistory();
    return () => cleanups.forEach((cleanup) => cleanup());
  }, [job.id]);
  if (!history) return html`<div class="plot skeleton" aria-label="Loading"></div>`;
  if (!history.steps.length) {
    return job.ended_at ? null : html`<section class="plot none" aria-label="Loss"><p class="muted">The loss curve appears after the first step.</p></section>`;
  }
  return html`<section class="plot" aria-label="Loss"><${Charts} ...${history} /><${Table} ...${history} /></section>`;
};

const Charts = ({ steps, losses, rates }) => {
  const container = useRef(null);
  const charts = useRef(null);
  useEffect(() => {
    const element = container.current;
    const created = createCharts(element);
    charts.current = created;
    const resize = () => created.forEach(([chart, height]) => chart.setSize({ width: element.clientWidth, height }));
    const observer = new ResizeObserver(resize);
    observer.observe(element);
    return () => {
      observer.disconnect();
      created.forEach(([chart]) => chart.destroy());
    };
  }, []);
  useEffect(() => {
    const [[lossChart], [rateChart]] = charts.current;
    lossChart.setData([steps, losses, smooth(losses)]);
    rateChart.setData([steps, rates]);
  }, [steps, losses, rates]);
  const last = losses.at(-1);
  return html`<div ref=${container} role="img" aria-label=${`Loss over ${count(steps.at(-1))} steps, last ${decimal(last)}`}></div>`;
};

function createCharts(container) {
  const rootStyle = getComputedStyle(document.documentElement);
  const colour = (name) => rootStyle.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const value = (_, number) => decimal(number);
  const scales = { x: { time: false } };
  const padding = [12, 16, 0, 0]; // the same left and right in both charts, so that their steps line up
  const cursor = { sync: { key: "steps" }, drag: { x: true, y: false } };
  const y = { ...axis, size: 56, values: (_, ticks) => ticks.map(decimal) };
  const width = container.clientWidth;
  const step = { label: "step", value: (_, number) => (number === null ? "–" : count(number)) };
  const loss = {
    width, height: HEIGHTS.loss, scales, cursor, padding, axes: [{ ...axis, size: 28, incrs: STEP_INCREMENTS }, y],
    series: [step, { label: "loss", stroke: colour("--raw"), width: 1, points: { show: false }, value }, { label: "smoothed", stroke: colour("--accent"), width: 2, points: { show: false }, value }],
  };
  // Starts a little below zero: a learning rate that decays to 0 would be hidden on the chart's edge.
  const fromBelowZero = { range: (_, low, high) => [Math.min(low, -high / 20), high * 1.1 || 1] };
  const rate = {
    width, height: HEIGHTS.rate, cursor, padding: [12, 16, 8, 0], scales: { ...scales, y: fromBelowZero }, axes: [{ ...axis, show: false }, { ...y, space: 24 }],
    series: [step, { label: "learning rate", stroke: colour("--muted"), width: 1.5, points: { show: false }, value }],
  };
  return [[new uPlot(loss, [[], [], []], container), HEIGHTS.loss], [new uPlot(rate, [[], []], container), HEIGHTS.rate]];
}

/** The same data as text, for people who cannot see a canvas. */
const Table = ({ steps, losses, rates }) => {
  const stride = Math.max(1, Math.ceil(steps.length / TABLE_ROWS));
  const smoothed = smooth(losses);
  const rows = steps.map((_, index) => index).filter((index) => (steps.length - 1 - index) % stride === 0);
  return html`
    <details>
      <summary>Show as table</summary>
      <table>
        <thead><tr><th>Step</th><th>Loss</th><th>Smoothed</th><th>Learning rate</th></tr></thead>
        <tbody>
          ${rows.map((index) => html`<tr><td>${count(steps[index])}</td><td>${decimal(losses[index])}</td><td>${decimal(smoothed[index])}</td><td>${decimal(rates[index])}</td></tr>`)}
        </tbody>
      </table>
    </details>
  `;
};
