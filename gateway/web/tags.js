// A tag, and where it comes from: the colour of its dot, and in words for those who do not see it.
import { percent } from "./format.js";
import { html } from "./lib.js";

const SOURCES = { person: "a person", import: "the import", model: "a model" };
const sourceOf = (tag) => (tag.source in SOURCES ? tag.source : "model");

/** `remove`, `accept`: what a click on its button does; none = it only shows. */
export const TagChip = ({ tag, remove, accept }) => {
  const seen = tag.probability === undefined || tag.probability === null ? "" : percent(tag.probability);
  const title = `${tag.tag}: from ${SOURCES[sourceOf(tag)]}${seen && `, ${seen} sure`}`;
  const inside = html`${tag.tag}${seen && html` <small>${seen}</small>`}`;
  if (accept) return html`<button class="chip suggested" title=${`Accept ${tag.tag}`} onClick=${accept}>${inside} +</button>`;
  return html`
    <span class=${`chip ${sourceOf(tag)}`} title=${title}>
      ${inside}
      ${remove && html`<button class="quiet" aria-label=${`Remove ${tag.tag}`} onClick=${remove}>×</button>`}
    </span>
  `;
};

export const Legend = () => html`
  <span class="legend" aria-label="Colours of tags">
    ${Object.entries(SOURCES).map(([source, words]) => html`<span class=${`key ${source}`}>${words}</span>`)}
  </span>
`;
