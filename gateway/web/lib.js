// The vendored libraries, imported in one place.
import { h, render } from "./vendor/preact.js";
import htm from "./vendor/htm.js";

export { h, render };
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";
export { computed, effect, signal, useSignal } from "./vendor/signals.js";
export const html = htm.bind(h);
