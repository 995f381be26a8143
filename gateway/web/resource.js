// Data of a screen: fetched once, and fetched again when an event or a write may have changed it.
import { get, onWrite } from "./api.js";
import { useEffect, useRef, useState } from "./lib.js";
import { onEvent } from "./live.js";
import { collectPages } from "./paging.js";

const REFRESH_DELAY_MS = 120; // events come in bursts; one request covers them all
const PAGE_ROWS = 100; // rows fetched at first and added by each `more()`
/** Maximum number of rows a screen holds. */
export const MAX_ROWS = 5000;

const NOT_LOADED = { data: null, error: null };

/**
 * The response of GET `address` as {data, error}. Fetched again after a write of this page, after an event for which
 * `isAffectedBy(event)` is true, and when the connection opens or the log is replaced. `address` null: no request.
 */
export function useResource(address, isAffectedBy = () => false) {
  return useFetched(address, isAffectedBy, (signal) => get(address, { signal }));
}

/**
 * A list as {items, total, next, error, more}: `more()` fetches the next page, a refresh fetches all rows shown so far.
 * `first`: rows fetched at first; `cursorParameter`: the query parameter of the list's cursor (`after` in the log).
 */
export function useList(address, isAffectedBy = () => false, { first = PAGE_ROWS, cursorParameter = "cursor" } = {}) {
  const rowCount = useRef(first); // rows to fetch
  useEffect(() => void (rowCount.current = first), [address]);
  const fetchRows = (signal) => fetchPages(address, rowCount.current, cursorParameter, signal);
  const { data, error, refresh } = useFetched(address, isAffectedBy, fetchRows);
  const more = () => {
    if (!data?.next || rowCount.current > data.items.length) return;
    rowCount.current = Math.min(MAX_ROWS, data.items.length + PAGE_ROWS);
    refresh();
  };
  return { items: data?.items ?? null, total: data?.total ?? 0, next: data?.next ?? null, error, more };
}

function fetchPages(address, rowCount, cursorParameter, signal) {
  return collectPages(rowCount, (limit, cursor) => {
    const target = new URL(address, location.origin);
    target.searchParams.set("limit", limit);
    if (cursor) target.searchParams.set(cursorParameter, cursor);
    return get(target, { signal });
  });
}

function useFetched(address, isAffectedBy, fetchData) {
  const [result, setResult] = useState({ ...NOT_LOADED, address });
  const latest = useRef({});
  latest.current = { isAffectedBy, fetchData };
  const refresh = useRef(() => {});

  useEffect(() => {
    if (!address) return undefined;
    const refresher = createRefresher(
      (signal) => latest.current.fetchData(signal),
      (newResult) => setResult({ ...newResult, address }),
    );
    refresh.current = refresher.now;
    refresher.now();
    const cleanups = [
      onEvent((event) => (event.aggregateKind === "connection" || latest.current.isAffectedBy(event)) && refresher.soon()),
      onWrite(refresher.soon),
      refresher.stop,
    ];
    return () => cleanups.forEach((cleanup) => cleanup());
  }, [address]);

  const current = result.address === address ? result : NOT_LOADED; // never the rows of the previous address
  return { data: current.data, error: current.error, refresh: () => refresh.current() };
}

/** One request at a time; one more follows if a refresh was requested meanwhile. */
function createRefresher(fetchData, onResult) {
  const abort = new AbortController();
  let timer = 0;
  let isRunning = false;
  let runAgain = false;
  let data = null;

  async function now() {
    if (isRunning) return void (runAgain = true);
    isRunning = true;
    try {
      data = await fetchData(abort.signal);
      onResult({ data, error: null });
    } catch (error) {
      if (abort.signal.aborted) return;
      onResult({ data, error }); // the old rows stay on screen, with the error above them
    } finally {
      isRunning = false;
    }
    if (runAgain && !abort.signal.aborted) {
      runAgain = false;
      soon();
    }
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(now, REFRESH_DELAY_MS);
  }

  return { now, soon, stop: () => (clearTimeout(timer), abort.abort()) };
}
