// Asking the gateway: JSON in and out, problem documents as errors, and never an answer older than what was seen.

import { signal } from "./lib.js";

const ROOT = "/api/v1";
const TRIES = 6; // 503 with Retry-After: the read model is a moment behind, or the catalog is starting
const listeners = new Set();
let seen = 0; // highest sequence of the log this page knows of; reads must stand at least there

/** What went wrong, in the words of the problem document (RFC 9457). */
export class Problem extends Error {
  constructor(status, body = {}) {
    super(body.detail || body.title || `The server answered ${status}.`);
    this.status = status;
    this.code = body.code || "";
  }
}

/** The address of a thing of the API: `url("images", id, "thumbnail")`. */
export const url = (...parts) => [ROOT, ...parts.map((part) => encodeURIComponent(part))].join("/");

/** The page has seen the log up to `sequence`. */
export function saw(sequence) {
  if (sequence > seen) seen = sequence;
}

/** Another log: what was seen of the old one means nothing. */
export function forget() {
  seen = 0;
}

/** Is a key needed before anything can be shown? */
export const keyNeeded = signal(false);
export const askForKey = () => void (keyNeeded.value = true);

/** Change the key for a session: a cookie, which pictures and the WebSocket carry as well. */
export async function signIn(key) {
  await send("POST", url("session"), { key });
  keyNeeded.value = false;
}

/** Call `listener` after each successful write; returns the way out. */
export function onWrite(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export async function get(address, { signal } = {}) {
  for (let tries = 1; ; tries += 1) {
    const asked = new URL(address, location.origin);
    if (seen) asked.searchParams.set("min_seq", seen);
    const answer = await reach(asked, { headers: { Accept: "application/json" }, signal });
    if (answer.ok) return answer.json();
    const problem = await problemOf(answer);
    if (answer.status !== 503 || tries >= TRIES) throw problem;
    await pause(Number(answer.headers.get("Retry-After") || 1) * 1000, signal);
  }
}

/** POST, PUT, PATCH or DELETE. A POST carries a key, so that sending it twice asks for one thing. */
export async function send(method, address, body) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method === "POST") headers["Idempotency-Key"] = newKey();
  const answer = await reach(address, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (!answer.ok) throw await problemOf(answer);
  written(Number(answer.headers.get("Loratory-Seq") || 0));
  return answer.status === 204 ? null : answer.json();
}

/** Send a form with files; `progress` is told the share that has left (0 to 1). fetch cannot say that, XHR can. */
export function upload(address, form, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Idempotency-Key", newKey());
    request.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
    request.onerror = () => reject(new Problem(0, { detail: "The server cannot be reached." }));
    request.onload = () => {
      const body = parsed(request.responseText);
      if (request.status >= 400) return reject(new Problem(request.status, body));
      written(Number(request.getResponseHeader("Loratory-Seq") || 0));
      return resolve(body);
    };
    request.send(form);
  });
}

// Not crypto.randomUUID: that exists only on https and localhost, and a workshop may be on the local network.
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function written(sequence) {
  saw(sequence);
  for (const listener of listeners) listener();
}

async function reach(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "The server cannot be reached." });
  }
}

async function problemOf(answer) {
  if (answer.status === 401) askForKey();
  return new Problem(answer.status, parsed(await answer.text()));
}

function parsed(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {}; // an intermediary's page, not ours: the status alone has to do
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("no longer wanted", "AbortError"));
    });
  });
}
