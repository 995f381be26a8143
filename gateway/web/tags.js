// Tag chips: the dot's colour shows where a tag comes from; tooltip and legend say it in words.
import { percent } from "./format.js";
import { html } from "./lib.js";

const SOURCE_LABELS = { person: "manual", import: "imported", model: "auto-tagged" };
const sourceOf = (tag) => (tag.source in SOURCE_LABELS ? tag.source : "model");

/** `onRemove`, `onAccept`: handlers of the chip's button; without them the chip has none. */
export const TagChip = ({ tag, onRemove, onAccept }) => {
  const confidence = tag.probability === undefined || tag.probability === null ? "" : percent(tag.probability);
  const tooltip = `${tag.tag}: ${SOURCE_LABELS[sourceOf(tag)]}${confidence && `, confidence ${confidence}`}`;
  const label = html`${tag.tag}${confidence && html` <small>${confidence}</small>`}`;
  if (onAccept) return html`<button class="chip suggested" title=${`Accept ${tag.tag}`} onClick=${onAccept}>${label} +</button>`;
  return html`
    <span class=${`chip ${sourceOf(tag)}`} title=${tooltip}>
      ${label}
      ${onRemove && html`<button class="quiet" aria-label=${`Remove ${tag.tag}`} onClick=${onRemove}>×</button>`}
    </span>
  `;
};

export const TagLegend = () => html`
  <span class="legend">
    Tags: ${Object.entries(SOURCE_LABELS).map(([source, label]) => html`<span class=${`key ${source}`}>${label}</span>`)}
  </span>
`;
