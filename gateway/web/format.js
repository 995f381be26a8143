// Numbers, sizes and times formatted for people.

const integerFormat = new Intl.NumberFormat("en");
const timeFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dateFormat = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export const count = (number) => integerFormat.format(number);

/** `plural(1, "image")` → "1 image". */
export const plural = (number, singular, pluralForm = `${singular}s`) => `${count(number)} ${number === 1 ? singular : pluralForm}`;

/** The name of an image without its folders. */
export const lastPart = (name) => name.slice(name.lastIndexOf("/") + 1);

/** A fraction (0 to 1) as a whole percentage. */
export const percent = (fraction) => `${Math.round(fraction * 100)}%`;

export const time = (timestamp) => timeFormat.format(new Date(timestamp));

export const date = (timestamp) => dateFormat.format(new Date(timestamp));

/** Seconds as `1 h 05 min`, `3 min 20 s`, `12 s`. */
export function duration(seconds) {
  const total = Math.max(0, Math.round(seconds));
  const twoDigits = (number) => String(number).padStart(2, "0");
  if (total >= 3600) return `${Math.floor(total / 3600)} h ${twoDigits(Math.floor((total % 3600) / 60))} min`;
  return total >= 60 ? `${Math.floor(total / 60)} min ${twoDigits(total % 60)} s` : `${total} s`;
}

/** How long ago: `just now`, `5 min ago`, `3 h ago`; a date when more than a day ago. */
export function ago(timestamp) {
  const seconds = (Date.now() - new Date(timestamp)) / 1000;
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return seconds < 86_400 ? `${Math.floor(seconds / 3600)} h ago` : date(timestamp);
}

/** A server message with a capital first letter; left alone if it starts with a field name such as `length.count`. */
export const sentence = (text) => text.replace(/^[a-z]+(?=[ ,:])/, (word) => word[0].toUpperCase() + word.slice(1));

/** A size in decimal units: 512 B, 2.8 MB. */
export function bytes(size) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  let scaled = size;
  while (scaled >= 1000 && unit < units.length - 1) {
    scaled /= 1000;
    unit += 1;
  }
  return `${scaled >= 100 || unit === 0 ? Math.round(scaled) : scaled.toFixed(1)} ${units[unit]}`;
}

/** A number with four significant digits: 0.0873, 1e-4, 12.5; a dash for none. */
export function decimal(number) {
  if (number === null || number === undefined) return "–";
  if (number !== 0 && Math.abs(number) < 0.001) return number.toExponential(1).replace(".0e", "e");
  return String(Number(number.toPrecision(4)));
}
