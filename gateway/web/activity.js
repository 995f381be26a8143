// The event log, newest event last, updated as events are written.
import { link } from "./address.js";
import { get, url } from "./api.js";
import { time } from "./format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { LOG_CHANGED, onEvent } from "./live.js";
import { EmptyState, Loaded } from "./components.js";

const PAGE_SEQUENCES = 300; // log sequences loaded at first and by each click on "Load older events"
const MAX_EVENTS = 3000; // events a screen holds; the oldest are dropped
const REQUEST_LIMIT = 500; // events of one request
const BOTTOM_MARGIN = 80; // pixels; within them the reader counts as at the end
const KINDS = [["dataset", "Data sets"], ["tagging", "Tagging runs"], ["preset", "Presets"], ["job", "Jobs"], ["log", "Log"]];
/** Screen and link text of the aggregates that have a screen. */
const AGGREGATE_LINKS = { dataset: ["datasets", "Open data set"], job: ["jobs", "Open job"] };

export const Activity = () => {
  const [kind, setKind] = useState("");
  const [search, setSearch] = useState("");
  const { events, error, loadOlder } = useLog(kind);
  const matches = (event) => !search || `${event.type} ${event.actor} ${event.aggregate_id}`.includes(search);
  return html`
    <div class="title sticky">
      <h1>Activity</h1>
      <div class="row">
        <select aria-label="Kind" value=${kind} onChange=${(event) => setKind(event.target.value)}>
          <option value="">All events</option>
          ${KINDS.map(([value, label]) => html`<option value=${value}>${label}</option>`)}
        </select>
        <input type="search" aria-label="Filter by type, actor or id" placeholder="Type, actor or id" value=${search}
          onInput=${(event) => setSearch(event.target.value.trim())} />
      </div>
    </div>
    <${Loaded} data=${events} error=${error}>
      ${(loaded) => html`<${EventList} events=${loaded.filter(matches)} isFiltered=${Boolean(kind || search)} loadOlder=${loadOlder} />`}
    <//>
  `;
};

const EventList = ({ events, isFiltered, loadOlder }) => {
  const end = useRef(null);
  const isAtEnd = useRef(true);
  useEffect(() => {
    const update = () => (isAtEnd.current = innerHeight + scrollY > document.documentElement.scrollHeight - BOTTOM_MARGIN);
    addEventListener("scroll", update, { passive: true });
    return () => removeEventListener("scroll", update);
  }, []);
  // Follow new events only while scrolled to the end; do not move somebody who is reading further up.
  useLayoutEffect(() => void (isAtEnd.current && end.current.scrollIntoView({ block: "end" })), [events.length]);
  return html`
    ${loadOlder && html`<div class="row"><button onClick=${loadOlder}>Load older events</button></div>`}
    ${!events.length && html`<${NoEvents} isFiltered=${isFiltered} />`}
    <ol class="log">${events.map((event) => html`<${EventLine} key=${`${event.sequence}.${event.index}`} event=${event} />`)}</ol>
    <div ref=${end}></div>
  `;
};

const NoEvents = ({ isFiltered }) =>
  isFiltered
    ? html`<${EmptyState} title="No matching events">Change the filter above, or load older events.<//>`
    : html`<${EmptyState} title="No events yet">Create a <a href="#/datasets">data set</a>: every change is recorded here.<//>`;

const EventLine = ({ event }) => {
  const [screen, label] = AGGREGATE_LINKS[event.aggregate_kind] ?? [];
  return html`
    <li>
      <details>
        <summary>
          <span class="seq">${event.sequence}</span>
          <time datetime=${event.time}>${time(event.time)}</time>
          <code class=${`kind of-${event.aggregate_kind}`}>${event.type}</code>
          <span class="description">${event.description}</span>
          <span class="muted actor">${event.actor}</span>
        </summary>
        <pre>${JSON.stringify(event, null, 2)}</pre>
        ${screen && html`<a href=${link(screen, event.aggregate_id)}>${label}</a>`}
      </details>
    </li>
  `;
};

/** The end of the log, growing; `loadOlder` loads earlier events, and is null when the first one is loaded. */
function useLog(kind) {
  const [state, setState] = useState({ events: null, error: null, from: 0 });
  const latest = useRef(null);
  useEffect(() => {
    const reader = createReader(kind, setState);
    latest.current = reader;
    reader.restart();
    const unsubscribe = onEvent((event) => {
      if (event.type === LOG_CHANGED) reader.restart();
      else if (event.aggregateKind !== "presence") reader.catchUp();
    });
    return () => (unsubscribe(), reader.stop());
  }, [kind]);
  return { ...state, loadOlder: state.from > 0 ? () => latest.current.loadOlder() : null };
}

/** Keeps the events from sequence `from` to the end of the log. Its operations run one after the other. */
function createReader(kind, setState) {
  const abort = new AbortController();
  const position = { logId: "", from: 0, cursor: "" };
  let queue = Promise.resolve();
  let isCatchUpQueued = false;

  const fetchPage = async (after) => {
    const address = new URL(url("events"), location.origin);
    address.searchParams.set("after", after);
    address.searchParams.set("limit", REQUEST_LIMIT);
    if (kind) address.searchParams.set("aggregate_kind", kind);
    return (await get(address, { signal: abort.signal })).items;
  };
  /** The events after a cursor, up to and including sequence `last`; at most about MAX_EVENTS. */
  const fetchEvents = async (after, last = Infinity) => {
    const events = [];
    let cursor = after;
    while (events.length < MAX_EVENTS) {
      const items = await fetchPage(cursor);
      events.push(...items.filter((item) => item.sequence <= last));
      if (items.length < REQUEST_LIMIT || items.at(-1).sequence > last) break;
      cursor = items.at(-1).cursor;
    }
    return events;
  };
  const cursorAt = (sequence) => (sequence > 0 ? `${position.logId}.${sequence}` : "0");
  const enqueue = (operation) => {
    queue = queue.then(operation).catch((error) => abort.signal.aborted || setState((state) => ({ ...state, error })));
  };
  const appendEvents = (newer) => {
    if (newer.length) position.cursor = newer.at(-1).cursor;
    setState(({ events }) => ({ events: [...(events ?? []), ...newer].slice(-MAX_EVENTS), error: null, from: position.from }));
  };

  return {
    restart: () =>
      enqueue(async () => {
        const { log } = await get(url("status"), { signal: abort.signal });
        position.logId = log.log_id;
        position.from = Math.max(0, log.applied - PAGE_SEQUENCES);
        position.cursor = cursorAt(position.from);
        setState({ events: null, error: null, from: position.from });
        appendEvents(await fetchEvents(position.cursor));
      }),
    catchUp: () => {
      if (isCatchUpQueued) return;
      isCatchUpQueued = true;
      enqueue(async () => {
        isCatchUpQueued = false;
        appendEvents(await fetchEvents(position.cursor));
      });
    },
    loadOlder: () =>
      enqueue(async () => {
        const last = position.from;
        position.from = Math.max(0, last - PAGE_SEQUENCES);
        const older = await fetchEvents(cursorAt(position.from), last);
        setState(({ events }) => ({ events: [...older, ...events], error: null, from: position.from }));
      }),
    stop: () => abort.abort(),
  };
}
