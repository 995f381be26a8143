// The log itself: every fact, newest last, as it is written.
import { get, url } from "./api.js";
import { time } from "./format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { LOG_CHANGED, onFact } from "./live.js";
import { Empty, link, Loaded } from "./parts.js";
import { storyOf } from "./story.js";

const SHOWN = 300; // facts fetched at once
const MOST = 3000; // facts a screen holds; the oldest fall off
const KINDS = ["dataset", "tagging", "preset", "job", "log"];
const PLACES = { dataset: "datasets", job: "jobs" };

export const Activity = () => {
  const [kind, setKind] = useState("");
  const [words, setWords] = useState("");
  const { events, error, older } = useLog(kind);
  const matches = (event) => !words || `${event.type} ${event.actor} ${event.thing}`.includes(words);
  return html`
    <div class="title stays">
      <h1>Activity</h1>
      <div class="row">
        <select aria-label="Kind" value=${kind} onChange=${(event) => setKind(event.target.value)}>
          <option value="">everything</option>
          ${KINDS.map((one) => html`<option>${one}</option>`)}
        </select>
        <input type="search" aria-label="Filter by type, actor or id" placeholder="type, actor or id" value=${words}
          onInput=${(event) => setWords(event.target.value.trim())} />
      </div>
    </div>
    <${Loaded} data=${events} error=${error}>
      ${(all) => html`<${Log} events=${all.filter(matches)} older=${older} />`}
    <//>
  `;
};

const Log = ({ events, older }) => {
  const end = useRef(null);
  const atEnd = useRef(true);
  useEffect(() => {
    const look = () => (atEnd.current = innerHeight + scrollY > document.documentElement.scrollHeight - 80);
    addEventListener("scroll", look, { passive: true });
    return () => removeEventListener("scroll", look);
  }, []);
  // Follows the newest only for who is at the end; who reads further up is left alone.
  useLayoutEffect(() => void (atEnd.current && end.current.scrollIntoView({ block: "end" })), [events.length]);
  return html`
    ${older && html`<div class="row"><button onClick=${older}>Older</button></div>`}
    ${!events.length && html`<${Empty} title="Nothing here">What happens in the workshop is written here.<//>`}
    <ol class="log">${events.map((event) => html`<${Line} key=${`${event.sequence}.${event.index}`} event=${event} />`)}</ol>
    <div ref=${end}></div>
  `;
};

const Line = ({ event }) => html`
  <li>
    <details>
      <summary>
        <span class="seq">${event.sequence}</span>
        <time datetime=${event.time}>${time(event.time)}</time>
        <code class=${`kind of-${event.kind}`}>${event.type}</code>
        <span class="told">${storyOf(event.type, event.data)}</span>
        <span class="muted actor">${event.actor}</span>
      </summary>
      <pre>${JSON.stringify(event, null, 2)}</pre>
      ${PLACES[event.kind] && html`<a href=${link(PLACES[event.kind], event.thing)}>open the ${event.kind === "dataset" ? "data set" : event.kind}</a>`}
    </details>
  </li>
`;

/** The end of the log, growing; `older` fetches what lies before, or is null at the beginning. */
function useLog(kind) {
  const [state, setState] = useState({ events: null, error: null, from: 0 });
  const latest = useRef(null);
  useEffect(() => {
    const reader = readerOf(kind, setState);
    latest.current = reader;
    reader.begin();
    const stop = onFact((fact) => (fact.type === LOG_CHANGED ? reader.begin() : fact.kind !== "presence" && reader.catchUp()));
    return () => (stop(), reader.stop());
  }, [kind]);
  return { ...state, older: state.from > 0 ? () => latest.current.older() : null };
}

/** Keeps a stretch of the log up to its head: one question at a time, another one if facts came meanwhile. */
function readerOf(kind, setState) {
  const abort = new AbortController();
  const at = { log: "", from: 0, cursor: "" };
  let line = Promise.resolve();
  let waiting = false;

  const ask = async (after) => {
    const address = new URL(url("events"), location.origin);
    address.searchParams.set("after", after);
    address.searchParams.set("limit", 500);
    if (kind) address.searchParams.set("kind", kind);
    return (await get(address, { signal: abort.signal })).items;
  };
  /** Everything after a cursor, up to and with a sequence. */
  const read = async (after, last = Infinity) => {
    const found = [];
    let place = after;
    while (found.length < MOST) {
      const items = await ask(place);
      found.push(...items.filter((item) => item.sequence <= last));
      if (items.length < 500 || items.at(-1).sequence > last) break;
      place = items.at(-1).cursor;
    }
    return found;
  };
  const placeAt = (sequence) => (sequence > 0 ? `${at.log}.${sequence}` : "0");
  const inTurn = (work) => {
    line = line.then(work).catch((error) => abort.signal.aborted || setState((now) => ({ ...now, error })));
  };
  const grown = (newer) => {
    if (newer.length) at.cursor = newer.at(-1).cursor;
    setState(({ events }) => ({ events: [...(events ?? []), ...newer].slice(-MOST), error: null, from: at.from }));
  };

  return {
    begin: () =>
      inTurn(async () => {
        const { log } = await get(url("status"), { signal: abort.signal });
        Object.assign(at, { log: log.log_id, from: Math.max(0, log.applied - SHOWN) });
        at.cursor = placeAt(at.from);
        setState({ events: null, error: null, from: at.from });
        grown(await read(at.cursor));
      }),
    catchUp: () => {
      if (waiting) return;
      waiting = true;
      inTurn(async () => {
        waiting = false;
        grown(await read(at.cursor));
      });
    },
    older: () =>
      inTurn(async () => {
        const last = at.from;
        at.from = Math.max(0, last - SHOWN);
        const before = await read(placeAt(at.from), last);
        setState(({ events }) => ({ events: [...before, ...events], error: null, from: at.from }));
      }),
    stop: () => abort.abort(),
  };
}
