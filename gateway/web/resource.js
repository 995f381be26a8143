// What a screen shows: asked once, asked again when a fact or a write may have changed it.
import { get, onWrite } from "./api.js";
import { useEffect, useRef, useState } from "./lib.js";
import { onFact } from "./live.js";

const GATHER = 120; // ms: facts come in bursts, one question answers them all
const PAGE = 100;
/** Rows a screen holds. */
export const MOST = 5000;

const NOTHING = { data: null, error: null };

/**
 * The answer of GET `address` as {data, error}. Asked again after a write of this page, after a fact for which
 * `touches(fact)` is true, and when the log was replaced. `address` null: nothing to ask.
 */
export function useResource(address, touches = () => false) {
  return useAsked(address, touches, (signal) => get(address, { signal }));
}

/**
 * A list as {items, total, error, more}: `more()` fetches the next piece, a refresh fetches all shown so far again.
 * `first` rows are fetched to begin with; `by` is the query's name for the place in the list (`after` in the log).
 */
export function useList(address, touches = () => false, { first = PAGE, by = "cursor" } = {}) {
  const wanted = useRef(first);
  useEffect(() => void (wanted.current = first), [address]);
  const { data, error, refresh } = useAsked(address, touches, (signal) => pages(address, wanted.current, by, signal));
  const more = () => {
    if (!data?.next || wanted.current > data.items.length) return;
    wanted.current = Math.min(MOST, data.items.length + PAGE);
    refresh();
  };
  return { items: data?.items ?? null, total: data?.total ?? 0, next: data?.next ?? null, error, more };
}

async function pages(address, wanted, by, signal) {
  const items = [];
  let total = 0;
  let next = null;
  do {
    const asked = new URL(address, location.origin);
    asked.searchParams.set("limit", Math.min(500, wanted - items.length));
    if (next) asked.searchParams.set(by, next);
    const page = await get(asked, { signal });
    items.push(...page.items);
    ({ total, next } = page);
  } while (next && items.length < wanted);
  return { items, total, next };
}

function useAsked(address, touches, ask) {
  const [answer, setAnswer] = useState({ ...NOTHING, address });
  const latest = useRef({});
  latest.current = { touches, ask };
  const refresh = useRef(() => {});

  useEffect(() => {
    if (!address) return undefined;
    const asking = asker(() => latest.current.ask, (news) => setAnswer({ ...news, address }));
    refresh.current = asking.now;
    asking.now();
    const stops = [
      onFact((fact) => (fact.kind === "line" || latest.current.touches(fact)) && asking.soon()),
      onWrite(asking.soon),
      asking.stop,
    ];
    return () => stops.forEach((stop) => stop());
  }, [address]);

  const current = answer.address === address ? answer : NOTHING; // never the rows of the screen before
  return { data: current.data, error: current.error, refresh: () => refresh.current() };
}

/** One question at a time; asked once more if news came while it was out. */
function asker(ask, answered) {
  const abort = new AbortController();
  let timer = 0;
  let out = false;
  let again = false;
  let data = null;

  async function now() {
    if (out) return void (again = true);
    out = true;
    try {
      data = await ask()(abort.signal);
      answered({ data, error: null });
    } catch (error) {
      if (abort.signal.aborted) return;
      answered({ data, error }); // the old rows stay; the error says they are old
    } finally {
      out = false;
    }
    if (again && !abort.signal.aborted) {
      again = false;
      soon();
    }
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(now, GATHER);
  }

  return { now, soon, stop: () => (clearTimeout(timer), abort.abort()) };
}
