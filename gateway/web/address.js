// The part of the address after `#`, which names the screen. Pure.

/** `#/datasets/ds_1` → ["datasets", "ds_1"]. */
export function parseRoute(hash) {
  try {
    return hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return []; // not valid percent-encoding: show the first screen
  }
}

export const link = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
