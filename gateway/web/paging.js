// Reading a list page by page. Pure: the request is an argument.

const MAX_REQUEST_ROWS = 500; // the API's limit

/** At least `rowCount` rows, if there are so many, as {items, total, next}; `fetchPage(limit, cursor)` requests a page. */
export async function collectPages(rowCount, fetchPage) {
  const items = [];
  let total = 0;
  let next = null;
  do {
    const page = await fetchPage(Math.min(MAX_REQUEST_ROWS, rowCount - items.length), next);
    items.push(...page.items);
    ({ total, next } = page);
  } while (next && items.length < rowCount);
  return { items, total, next };
}
