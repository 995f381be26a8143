// Components and helpers shared by all screens.
import { parseRoute } from "./address.js";
import { html, signal, useEffect, useRef } from "./lib.js";
import { percent, sentence } from "./format.js";

const TOAST_MS = 8000;
const MAX_TOASTS = 4;
const MAX_PIXELATED_SIDE = 128; // pixels

/** The current screen: the decoded parts of the address after `#/`. */
export const route = signal(parseRoute(location.hash));
addEventListener("hashchange", () => (route.value = parseRoute(location.hash)));

export const toasts = signal([]);

/** Show a message for a few seconds; `kind` is info or error. */
export function showToast(text, kind = "info") {
  const toast = { text, kind };
  toasts.value = [...toasts.value, toast].slice(-MAX_TOASTS);
  setTimeout(() => dismissToast(toast), TOAST_MS);
}

const dismissToast = (toast) => (toasts.value = toasts.value.filter((other) => other !== toast));

/** Run `action` and show its error, or `successMessage`. Returns its result (null if none), or undefined on failure. */
export async function runWithToast(action, successMessage) {
  try {
    const result = await action();
    if (successMessage) showToast(successMessage);
    return result ?? null;
  } catch (error) {
    showToast(error.message, "error");
    return undefined;
  }
}

export const Toasts = () => {
  const popover = useRef(null);
  const shown = toasts.value;
  useEffect(() => {
    // Hidden and shown again, it moves above dialogs opened since: the top layer is ordered by time.
    popover.current.hidePopover();
    if (shown.length) popover.current.showPopover();
  }, [shown]);
  return html`
    <div ref=${popover} popover="manual" class="toasts" role="status" aria-live="polite">
      ${shown.map(
        (toast) => html`
          <div class=${`toast ${toast.kind}`} key=${toast}>
            <span>${toast.text}</span>
            <button class="quiet" aria-label="Dismiss" onClick=${() => dismissToast(toast)}>×</button>
          </div>
        `,
      )}
    </div>
  `;
};

/** The CSS class of an image with these sides: very small images are enlarged with sharp pixels, not blurred. */
export const pixelClass = (...sides) => (Math.max(...sides) <= MAX_PIXELATED_SIDE ? "pixels" : "");

/** The status of a job or tagging run. */
export const Status = ({ work }) => {
  const word = ["freezing", "draft", "cancelling"].includes(work.phase) ? work.phase : work.status;
  return html`<span class=${`status ${word}`}>${word}</span>`;
};

export const ProgressBar = ({ fraction, label }) => html`
  <div class="bar" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(fraction * 100)} title=${percent(fraction)}>
    <div style=${{ width: percent(Math.min(1, fraction)) }}></div>
  </div>
`;

export const EmptyState = ({ title, children }) => html`
  <div class="empty"><h2>${title}</h2><p>${children}</p></div>
`;

/** Renders `children(data)`; a placeholder while it loads; the error if loading failed. */
export const Loaded = ({ data, error, children }) => {
  if (data !== null && data !== undefined) {
    return html`${error && html`<p class="outdated" role="status">Could not refresh: ${error.message}</p>`}${children(data)}`;
  }
  if (error) return html`<${EmptyState} title="Could not load">${error.message}<//>`;
  return html`<div class="skeleton" aria-label="Loading"></div>`;
};

/** A modal dialog, open while it is rendered; Escape and the backdrop close it. */
export const Dialog = ({ title, onClose, children, wide = false }) => {
  const dialog = useRef(null);
  useEffect(() => {
    const focusedBefore = document.activeElement;
    dialog.current.showModal();
    return () => focusedBefore?.focus?.();
  }, []);
  return html`
    <dialog ref=${dialog} class=${wide ? "wide" : ""} aria-label=${title} onClose=${onClose}
      onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
      <header><h2>${title}</h2><button class="quiet" aria-label="Close" onClick=${() => dialog.current.close()}>×</button></header>
      ${children}
    </dialog>
  `;
};

/** A form control with the id `id`, its label, and a help text that is not part of its accessible name. */
export const Field = ({ id, label, help, children }) => html`
  <div class="field">
    <label for=${id}>${label}</label>
    ${children}
    ${help && html`<small class="muted">${help}</small>`}
  </div>
`;

/** Why a pending job or tagging run has not started, as the gateway says it. */
export const WaitingReason = ({ work }) => {
  const waiting = work.live?.waiting;
  if (work.status !== "pending" || !waiting) return null;
  const text = waiting.code === "queued" ? `${waiting.why} in the queue` : waiting.why;
  return html`<span class="waiting" title=${waiting.code}>${sentence(text)}</span>`;
};

/** Calls `onReach` when it scrolls into view; placed at the end of a list that loads more rows. */
export const ScrollSentinel = ({ onReach }) => {
  const element = useRef(null);
  const latest = useRef(onReach);
  latest.current = onReach;
  useEffect(() => {
    const handleIntersection = (entries) => entries.some((entry) => entry.isIntersecting) && latest.current();
    const observer = new IntersectionObserver(handleIntersection, { rootMargin: "600px" });
    observer.observe(element.current);
    return () => observer.disconnect();
  });
  return html`<div ref=${element} class="sentinel"></div>`;
};
