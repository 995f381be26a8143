// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export const count = (number) => whole.format(number);

/** `plural(1, "picture")` → "1 picture". */
export const plural = (number, word, words = `${word}s`) => `${count(number)} ${number === 1 ? word : words}`;

export const percent = (share) => `${Math.round(share * 100)}%`;

export const time = (text) => clock.format(new Date(text));

export const date = (text) => day.format(new Date(text));

/** Seconds as `1 h 05 min`, `3 min 20 s`, `12 s`. */
export function duration(seconds) {
  const left = Math.max(0, Math.round(seconds));
  const two = (number) => String(number).padStart(2, "0");
  if (left >= 3600) return `${Math.floor(left / 3600)} h ${two(Math.floor((left % 3600) / 60))} min`;
  return left >= 60 ? `${Math.floor(left / 60)} min ${two(left % 60)} s` : `${left} s`;
}

export function ago(text) {
  const seconds = (Date.now() - new Date(text)) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h ago` : date(text);
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  let left = number;
  while (left >= 1000 && unit < units.length - 1) {
    left /= 1000;
    unit += 1;
  }
  return `${left >= 100 || unit === 0 ? Math.round(left) : left.toFixed(1)} ${units[unit]}`;
}

/** A small or large number with the digits that matter: 0.0873, 1e-4, 12.5. */
export function figure(number) {
  if (number === null || number === undefined) return "–";
  if (number !== 0 && Math.abs(number) < 0.001) return number.toExponential(1).replace(".0e", "e");
  return String(Number(number.toPrecision(4)));
}
