// HTTP client of the API: JSON in and out, problem documents (RFC 9457) as errors, and reads that are never older than
// what this page has already seen (`min_seq`).

import { sentence } from "./format.js";
import { signal } from "./lib.js";

const ROOT = "/api/v1";
const MAX_ATTEMPTS = 6; // on 503 with Retry-After: the read model is a moment behind, or the catalog is starting
const writeListeners = new Set();
let minSequence = 0; // highest log sequence this page has seen; reads must be at least this fresh

/** A failed request; the message is the problem document's `detail`. */
export class Problem extends Error {
  constructor(status, body = {}) {
    super(sentence(body.detail || body.title || `The server responded with status ${status}.`));
    this.status = status;
    this.code = body.code || "";
  }
}

/** The address of an API resource: `url("images", id, "thumbnail")`. */
export const url = (...parts) => [ROOT, ...parts.map((part) => encodeURIComponent(part))].join("/");

/** Later reads must include the log up to `sequence`. */
export function raiseMinSequence(sequence) {
  if (sequence > minSequence) minSequence = sequence;
}

/** The log was replaced: sequences of the old one mean nothing in the new one. */
export function resetMinSequence() {
  minSequence = 0;
}

/** True while an API key must be entered before anything can be shown. */
export const keyRequired = signal(false);
export const requireKey = () => void (keyRequired.value = true);

/** Exchange the API key for a session cookie, which image requests and the WebSocket carry as well. */
export async function openSession(key) {
  await send("POST", url("session"), { key });
  keyRequired.value = false;
}

/** Call `listener` after each successful write; returns the function that unsubscribes it. */
export function onWrite(listener) {
  writeListeners.add(listener);
  return () => writeListeners.delete(listener);
}

export async function get(address, { signal } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const target = new URL(address, location.origin);
    if (minSequence) target.searchParams.set("min_seq", minSequence);
    const response = await request(target, { headers: { Accept: "application/json" }, signal });
    if (response.ok) return response.json();
    const problem = await readProblem(response);
    if (response.status !== 503 || attempt >= MAX_ATTEMPTS) throw problem;
    await sleep(Number(response.headers.get("Retry-After") || 1) * 1000, signal);
  }
}

/** Why the server cannot serve requests now, one sentence for each required service that is missing. */
export async function fetchOutages() {
  const response = await request("/health/ready", { headers: { Accept: "application/json" } });
  const { checks } = await response.json();
  return Object.values(checks).filter((check) => !check.ok).map((check) => sentence(check.detail));
}

/** POST, PUT, PATCH or DELETE. A POST carries an idempotency key, so that a resent request has no second effect. */
export async function send(method, address, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method === "POST") headers["Idempotency-Key"] = newIdempotencyKey();
  const response = await request(address, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (!response.ok) throw await readProblem(response);
  handleWrite(Number(response.headers.get("Loratory-Seq") || 0));
  return response.status === 204 ? null : response.json();
}

/** POST a form with files; `onProgress` receives the fraction sent (0 to 1). XHR, because fetch has no upload progress. */
export function upload(address, form, onProgress) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open("POST", address);
    xhr.setRequestHeader("Accept", "application/json");
    xhr.setRequestHeader("Idempotency-Key", newIdempotencyKey());
    xhr.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    xhr.onerror = () => reject(unreachable());
    xhr.onload = () => {
      const body = parseJson(xhr.responseText);
      if (xhr.status >= 400) return reject(new Problem(xhr.status, body));
      handleWrite(Number(xhr.getResponseHeader("Loratory-Seq") || 0));
      return resolve(body);
    };
    xhr.send(form);
  });
}

// Not crypto.randomUUID: it exists only on https and localhost, and Loratory may be served on a local network.
const newIdempotencyKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

const unreachable = () => new Problem(0, { detail: "Cannot reach the server." });

function handleWrite(sequence) {
  raiseMinSequence(sequence);
  for (const listener of writeListeners) listener();
}

async function request(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

async function readProblem(response) {
  if (response.status === 401) requireKey();
  return new Problem(response.status, parseJson(await response.text()));
}

function parseJson(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {}; // not JSON, for example a proxy's error page: the status code has to do
  }
}

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("request aborted", "AbortError"));
    });
  });
}
