// Loss curves as {steps, losses, rates}, three lists of equal length. Pure.

const SMOOTHING = 0.97; // weight of the previous smoothed value

/** Exponential moving average with bias correction (Kingma & Ba 2014, §3). */
export function smooth(values) {
  let average = 0;
  let weight = 0;
  return values.map((value) => {
    average = SMOOTHING * average + (1 - SMOOTHING) * value;
    weight = SMOOTHING * weight + (1 - SMOOTHING);
    return average / weight;
  });
}

/** `history` with one more point; points from this step on belong to an older attempt and are dropped. */
export function appendPoint(history, step, loss, rate) {
  const { steps, losses, rates } = history;
  let end = steps.length;
  while (end > 0 && steps[end - 1] >= step) end -= 1;
  return { steps: [...steps.slice(0, end), step], losses: [...losses.slice(0, end), loss], rates: [...rates.slice(0, end), rate] };
}

/** The stored points, followed by the live points after the last stored step. */
export function mergeHistory(stored, live) {
  if (!live) return stored;
  const lastStored = stored.steps.at(-1) ?? 0;
  const firstLive = live.steps.findIndex((step) => step > lastStored);
  if (firstLive < 0) return stored;
  const concat = (name) => [...stored[name], ...live[name].slice(firstLive)];
  return { steps: concat("steps"), losses: concat("losses"), rates: concat("rates") };
}
