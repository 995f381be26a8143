// One WebSocket for the whole page. Events carry a cursor that is kept over reconnects, so none is missed or repeated;
// progress and worker presence are last values without a cursor.
import { raiseMinSequence, requireKey, resetMinSequence } from "./api.js";
import { parseEvent } from "./events.js";
import { signal } from "./lib.js";

const FIRST_RECONNECT_MS = 500; // doubles with each failure in a row
const MAX_RECONNECT_MS = 15_000;
const PING_INTERVAL_MS = 20_000;
const SILENCE_TIMEOUT_MS = 45_000; // without any frame for this long the connection is dead, whatever the socket says
const CLOSE_LOG_GONE = 4410; // close codes of the gateway
const CLOSE_UNAUTHENTICATED = 4401;
const MAX_PROGRESS_SIGNALS = 200; // jobs and tagging runs

/**
 * `state`: connecting, reconnecting, replaying, live or stale; `replayed`: events received while replaying; `reason`: why
 * nothing will come until somebody does something (the log is damaged), which stays known when the connection is lost.
 */
export const connection = signal({ state: "connecting", replayed: 0, reason: "" });

/** Types of the two events the page itself emits: the first connection, and a server with another log. */
export const CONNECTED = "connection.opened";
export const LOG_CHANGED = "connection.log_changed";
const CONNECTION_EVENT = { aggregateKind: "connection", aggregateId: "", sequence: 0, data: {}, description: "" };

const eventListeners = new Set();
const workerStates = new Map(); // worker name → state
const progressSignals = new Map(); // id of a job or tagging run → signal of its last progress
let cursor = null;
let logId = null;
let socket = null;
let failures = 0; // connections lost in a row
let lastFrameAt = 0;
let reconnectTimer = 0;

/** Call `listener` with each event, {type, aggregateKind, aggregateId, sequence, time, data, description}; returns unsubscribe. */
export function onEvent(listener) {
  eventListeners.add(listener);
  return () => eventListeners.delete(listener);
}

/** The last progress of a job or tagging run, as a signal (null before the first). */
export function progressOf(id) {
  if (!progressSignals.has(id)) {
    if (progressSignals.size >= MAX_PROGRESS_SIGNALS) progressSignals.delete(progressSignals.keys().next().value);
    progressSignals.set(id, signal(null));
  }
  return progressSignals.get(id);
}

export function start() {
  connect();
  setInterval(checkConnection, PING_INTERVAL_MS);
  addEventListener("online", reconnectNow);
  document.addEventListener("visibilitychange", () => document.hidden || reconnectNow());
}

function connect() {
  clearTimeout(reconnectTimer);
  const address = new URL("/ws/progress", location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  if (cursor) address.searchParams.set("after", cursor);
  lastFrameAt = Date.now();
  const opened = new WebSocket(address);
  socket = opened;
  opened.onmessage = (message) => opened === socket && receive(JSON.parse(message.data));
  opened.onclose = (closing) => opened === socket && handleClose(closing.code);
}

function reconnectNow() {
  if (socket === null) connect();
}

function handleClose(code) {
  socket = null;
  if (code === CLOSE_LOG_GONE) resetToCursor(null);
  if (code === CLOSE_UNAUTHENTICATED) requireKey();
  const delay = Math.min(MAX_RECONNECT_MS, FIRST_RECONNECT_MS * 2 ** failures) * (0.75 + Math.random() / 2);
  failures += 1;
  connection.value = { state: "reconnecting", replayed: 0, reason: connection.value.reason };
  reconnectTimer = setTimeout(connect, delay);
}

function checkConnection() {
  if (socket === null || socket.readyState !== WebSocket.OPEN) return;
  if (Date.now() - lastFrameAt > SILENCE_TIMEOUT_MS) socket.close();
  else socket.send('{"type":"ping"}');
}

function receive(frame) {
  lastFrameAt = Date.now();
  const handler = HANDLERS[frame.type];
  if (handler) handler(frame);
  else if (frame.subject?.startsWith("evt.")) handleEvent(frame);
}

const HANDLERS = {
  connection_established({ data }) {
    const isFirst = cursor === null;
    if (logId && logId !== data.log_id) resetToCursor(data.cursor);
    logId = data.log_id;
    connection.value = { state: isFirst ? "live" : "replaying", replayed: 0, reason: "" };
    // The screens were fetched before the connection opened. No event covers that gap, so they are fetched again.
    if (isFirst) beginAtCursor(data.cursor);
  },
  caught_up: () => setState("live"),
  stale: ({ data }) => setState("stale", data.reason),
  fresh: () => setState("live"),
  progress_update: ({ data }) => void (progressOf(data.job_id).value = data),
  presence: ({ data }) => handlePresence(data),
};

function setState(state, reason = "") {
  failures = 0;
  connection.value = { state, replayed: 0, reason };
}

function handlePresence(data) {
  const previous = workerStates.get(data.worker);
  if (data.state === "gone") workerStates.delete(data.worker);
  else workerStates.set(data.worker, data.state);
  // Only a change of state can change why a job waits; the heartbeat of each second cannot.
  if (previous !== data.state) {
    emit({ type: "presence", aggregateKind: "presence", aggregateId: data.worker, sequence: 0, data, description: "" });
  }
}

function handleEvent(frame) {
  const event = parseEvent(frame);
  cursor = frame.seq;
  raiseMinSequence(event.sequence);
  const { state, replayed } = connection.value;
  if (state === "replaying") connection.value = { state, replayed: replayed + 1, reason: "" };
  emit(event);
}

function beginAtCursor(start) {
  cursor = start;
  emit({ ...CONNECTION_EVENT, type: CONNECTED });
}

function resetToCursor(start) {
  cursor = start;
  resetMinSequence();
  emit({ ...CONNECTION_EVENT, type: LOG_CHANGED });
}

function emit(event) {
  for (const listener of eventListeners) listener(event);
}
