// Small things every screen is made of.
import { html, signal, useEffect, useRef } from "./lib.js";
import { percent } from "./format.js";

const TOAST_TIME = 8000; // ms
const MOST_TOASTS = 4;

/** Where we are: the parts of the address behind `#/`, decoded. */
export const route = signal(here());
addEventListener("hashchange", () => (route.value = here()));

function here() {
  try {
    return location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    return []; // an address nobody here wrote: the first screen
  }
}

export const link = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;

export const toasts = signal([]);

export function toast(text, kind = "info") {
  const news = { text, kind };
  toasts.value = [...toasts.value, news].slice(-MOST_TOASTS);
  setTimeout(() => dismiss(news), TOAST_TIME);
}

const dismiss = (news) => (toasts.value = toasts.value.filter((other) => other !== news));

/** Do `action`; say so when it fails. Returns what it returned, or undefined. */
export async function attempt(action, done) {
  try {
    const result = await action();
    if (done) toast(done);
    return result ?? null;
  } catch (error) {
    toast(error.message, "error");
    return undefined;
  }
}

export const Toasts = () => {
  const box = useRef(null);
  const shown = toasts.value;
  useEffect(() => {
    // Shown anew, it lies above a dialog that was opened after it.
    box.current.hidePopover();
    if (shown.length) box.current.showPopover();
  }, [shown]);
  return html`
    <div ref=${box} popover="manual" class="toasts" role="status" aria-live="polite">
      ${shown.map(
        (news) => html`
          <div class=${`toast ${news.kind}`} key=${news}>
            <span>${news.text}</span>
            <button class="quiet" aria-label="Dismiss" onClick=${() => dismiss(news)}>×</button>
          </div>
        `,
      )}
    </div>
  `;
};

const FEW_PIXELS = 128;

/** The class of a picture with these sides: a very small one is enlarged pixel by pixel, not blurred. */
export const grain = (...sides) => (Math.max(...sides) <= FEW_PIXELS ? "pixels" : "");

const STATUS_WORDS = { pending: "waiting", completed: "done" };

export const Status = ({ of }) => {
  const word = of.phase === "draft" ? "draft" : of.phase === "cancelling" ? "cancelling" : of.status;
  return html`<span class=${`status ${word}`}>${STATUS_WORDS[word] ?? word}</span>`;
};

export const Bar = ({ share, label }) => html`
  <div class="bar" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(share * 100)} title=${percent(share)}>
    <div style=${{ width: percent(Math.min(1, share)) }}></div>
  </div>
`;

export const Empty = ({ title, children }) => html`
  <div class="empty"><h2>${title}</h2><p>${children}</p></div>
`;

/** The rows, or why there are none: still asked for, or refused. */
export const Loaded = ({ data, error, children }) => {
  if (data !== null && data !== undefined) {
    return html`${error && html`<p class="old" role="status">Not refreshed: ${error.message}</p>`}${children(data)}`;
  }
  if (error) return html`<${Empty} title="This could not be loaded">${error.message}<//>`;
  return html`<div class="skeleton" aria-label="Loading"></div>`;
};

/** A modal dialog while it is rendered; Escape and the backdrop close it. */
export const Dialog = ({ title, onClose, children, wide = false }) => {
  const box = useRef(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current.showModal();
    return () => before?.focus?.();
  }, []);
  return html`
    <dialog ref=${box} class=${wide ? "wide" : ""} aria-label=${title} onClose=${onClose}
      onClick=${(event) => event.target === box.current && box.current.close()}>
      <header><h2>${title}</h2><button class="quiet" aria-label="Close" onClick=${() => box.current.close()}>×</button></header>
      ${children}
    </dialog>
  `;
};

/** A control (whose id is `of`) with its label, and a hint that is not part of its name. */
export const Field = ({ of, label, hint, children }) => html`
  <div class="field">
    <label for=${of}>${label}</label>
    ${children}
    ${hint && html`<small class="muted">${hint}</small>`}
  </div>
`;

/** Why work waits, in the words of the gateway. */
export const Waiting = ({ of }) => {
  const waiting = of.live?.waiting;
  if (of.status !== "pending" || !waiting) return null;
  return html`<span class="waiting" title=${waiting.code}>${waiting.why}</span>`;
};

/** Calls `reached` when its place scrolls into view. */
export const Sentinel = ({ reached }) => {
  const place = useRef(null);
  const latest = useRef(reached);
  latest.current = reached;
  useEffect(() => {
    const seen = (entries) => entries.some((entry) => entry.isIntersecting) && latest.current();
    const observer = new IntersectionObserver(seen, { rootMargin: "600px" });
    observer.observe(place.current);
    return () => observer.disconnect();
  });
  return html`<div ref=${place} class="sentinel"></div>`;
};
