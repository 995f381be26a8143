// One WebSocket for the whole page. Facts carry a cursor, kept over reconnects, so none is missed and none repeated;
// progress and presence are last values and carry none.
import { askForKey, forget, saw } from "./api.js";
import { signal } from "./lib.js";

const FIRST_WAIT = 500; // ms; doubles with each failure in a row
const LONGEST_WAIT = 15_000;
const PING_EVERY = 20_000;
const SILENCE = 45_000; // without any frame for so long the line is dead, whatever the socket says
const LOG_GONE = 4410; // close codes of the gateway
const UNAUTHENTICATED = 4401;
const KEPT_PROGRESS = 200; // jobs

/** `state`: connecting, reconnecting, replaying, live, stale; `replayed` facts since the connection. */
export const connection = signal({ state: "connecting", replayed: 0 });

/** News of the line itself, told like facts: it stands for the first time; the log is another one now. */
export const CONNECTED = "line.connected";
export const LOG_CHANGED = "line.log_changed";
const NEWS = { kind: "line", thing: "", sequence: 0, data: {} };

const factListeners = new Set();
const workers = new Map(); // name → state
const told = new Map(); // id of a job or tagging run → signal of its last progress
let cursor = null;
let logId = null;
let socket = null;
let failures = 0;
let heard = 0;
let timer = 0;

/** Call `listener` with each fact: {type, kind, thing, sequence, time, data}; returns the way out. */
export function onFact(listener) {
  factListeners.add(listener);
  return () => factListeners.delete(listener);
}

/** The last progress of a job or tagging run, as a signal (null before the first). */
export function progressOf(id) {
  if (!told.has(id)) {
    if (told.size >= KEPT_PROGRESS) told.delete(told.keys().next().value);
    told.set(id, signal(null));
  }
  return told.get(id);
}

export function start() {
  connect();
  setInterval(beat, PING_EVERY);
  addEventListener("online", connectNow);
  document.addEventListener("visibilitychange", () => document.hidden || connectNow());
}

function connect() {
  clearTimeout(timer);
  const address = new URL("/ws/progress", location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  if (cursor) address.searchParams.set("after", cursor);
  heard = Date.now();
  const current = new WebSocket(address);
  socket = current;
  current.onmessage = (event) => current === socket && receive(JSON.parse(event.data));
  current.onclose = (event) => current === socket && lost(event.code);
}

function connectNow() {
  if (socket === null) connect();
}

function lost(code) {
  socket = null;
  if (code === LOG_GONE) startOver(null);
  if (code === UNAUTHENTICATED) askForKey();
  const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures) * (0.75 + Math.random() / 2);
  failures += 1;
  connection.value = { state: "reconnecting", replayed: 0 };
  timer = setTimeout(connect, wait);
}

function beat() {
  if (socket === null || socket.readyState !== WebSocket.OPEN) return;
  if (Date.now() - heard > SILENCE) socket.close();
  else socket.send('{"type":"ping"}');
}

function receive(frame) {
  heard = Date.now();
  const handler = HANDLERS[frame.type];
  if (handler) handler(frame);
  else if (frame.subject?.startsWith("evt.")) fact(frame);
}

const HANDLERS = {
  connection_established({ data }) {
    const first = cursor === null;
    if (logId && logId !== data.log_id) startOver(data.cursor);
    logId = data.log_id;
    connection.value = { state: first ? "live" : "replaying", replayed: 0 };
    // The screens were asked for before the line stood: what happened in between is told by nobody, so ask again.
    if (first) begin(data.cursor);
  },
  caught_up: () => settle("live"),
  stale: () => settle("stale"),
  fresh: () => settle("live"),
  progress_update: ({ data }) => progressed(data.job_id, data),
  presence: ({ data }) => present(data),
};

function settle(state) {
  failures = 0;
  connection.value = { state, replayed: 0 };
}

function progressed(id, data) {
  progressOf(id).value = data;
}

function present(data) {
  const before = workers.get(data.worker);
  if (data.state === "gone") workers.delete(data.worker);
  else workers.set(data.worker, data.state);
  // Only a change of state can change why something waits; the heartbeat each second cannot.
  if (before !== data.state) tell({ type: "presence", kind: "presence", thing: data.worker, sequence: 0, data });
}

function fact(frame) {
  const [, kind, thing] = frame.subject.split(".");
  const sequence = Number(frame.seq.split(".").at(-1));
  cursor = frame.seq;
  saw(sequence);
  const { state, replayed } = connection.value;
  if (state === "replaying") connection.value = { state, replayed: replayed + 1 };
  tell({ type: frame.type, kind, thing, sequence, time: frame.time, data: frame.data });
}

function begin(from) {
  cursor = from;
  tell({ ...NEWS, type: CONNECTED });
}

function startOver(from) {
  cursor = from;
  forget();
  tell({ ...NEWS, type: LOG_CHANGED });
}

function tell(news) {
  for (const listener of factListeners) listener(news);
}
