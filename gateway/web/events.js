// Events as the page passes them on, and which of them concern what. Pure.

/** A frame of the WebSocket that is an event; `sequence` is its commit's. */
export function parseEvent({ type, seq, subject, time, description, data }) {
  const [, aggregateKind, aggregateId] = subject.split(".");
  return { type, aggregateKind, aggregateId, sequence: Number(seq.split(".").at(-1)), time, data, description };
}

/** Events of a data set, and of all tagging runs: an event of a run does not say of which data set. */
export const concernsDataset = (event, id) => event.aggregateId === id || event.aggregateKind === "tagging";

/** Those that may change an image of the data set: all but the ones that name other images (`data.images.ids`). */
export function concernsImage(event, datasetId, imageId) {
  const { ids = [], count = 0 } = event.data.images ?? {};
  const namesOthers = ids.length > 0 && ids.length === count && !ids.includes(imageId);
  return concernsDataset(event, datasetId) && !namesOthers;
}
