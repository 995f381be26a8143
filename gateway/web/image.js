// The image viewer: one image at full size with its tags, suggestions and caption.
import { link } from "./address.js";
import { get, Problem, send, url } from "./api.js";
import { concernsImage } from "./events.js";
import { bytes, lastPart, plural } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";
import { Loaded, pixelClass, runWithToast, showToast } from "./components.js";
import { useList, useResource } from "./resource.js";
import { TagChip, TagLegend } from "./tags.js";

const CAPTION_SOURCES = { person: "edited manually", import: "imported" }; // anything else: generated from the tags

const isTyping = (event) => /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);

/** `images`: the images of the grid in their order, for previous and next. */
export const ImageViewer = ({ dataset, id, images }) => {
  const isAffectedBy = (event) => concernsImage(event, dataset.id, id);
  const { data, error } = useResource(url("images", id), isAffectedBy);
  const dialog = useRef(null);
  const index = images.findIndex((image) => image.id === id);
  const move = (offset) => {
    const target = images[index + offset];
    if (index >= 0 && target) location.replace(link("datasets", dataset.id, "images", target.id));
  };
  const handleClose = () => (location.hash = link("datasets", dataset.id));
  useEffect(() => {
    dialog.current.showModal();
    dialog.current.focus(); // the dialog itself, not its first button: arrow keys work, and Enter presses nothing
  }, []);
  const handleKey = (event) => {
    if (isTyping(event)) return;
    if (event.key === "ArrowRight" || event.key === "j") move(1);
    if (event.key === "ArrowLeft" || event.key === "k") move(-1);
  };
  const close = () => dialog.current.close();
  return html`
    <dialog ref=${dialog} class="image-viewer" tabindex="-1" aria-label="Image" onClose=${handleClose} onKeyDown=${handleKey}>
      <div class="stage">
        <${Picture} key=${id} id=${id} image=${data} />
        <button class="arrow previous" aria-label="Previous image" disabled=${index <= 0} onClick=${() => move(-1)}>‹</button>
        <button class="arrow next" aria-label="Next image" disabled=${index < 0 || index + 1 >= images.length} onClick=${() => move(1)}>›</button>
      </div>
      <div class="image-details">
        <button class="quiet close" aria-label="Close" onClick=${close}>×</button>
        <${Loaded} data=${data} error=${error}>${(image) => html`<${ImageDetails} key=${image.id} image=${image} dataset=${dataset} close=${close} />`}<//>
      </div>
    </dialog>
  `;
};

/** The image at full size; where its file is missing or given up, its preview, and why. */
const Picture = ({ id, image }) => {
  const [problem, setProblem] = useState(null);
  const explain = () => get(url("images", id, "file")).catch((error) => error instanceof Problem && setProblem(error));
  const alt = image?.caption ?? "";
  if (!problem) {
    const pixels = image ? pixelClass(image.width, image.height) : "";
    return html`<img class=${pixels} src=${url("images", id, "file")} alt=${alt} onError=${explain} />`;
  }
  return html`
    <img class="preview" src=${url("images", id, "thumbnail")} alt=${alt} />
    <p class="missing" role="alert">${problem.code === "blob-missing" ? MISSING_FILE : problem.message}</p>
  `;
};

const MISSING_FILE = "The file of this image is missing; this is its preview. The message at the top of the page says what brings it back.";

const ImageDetails = ({ image, dataset, close }) => {
  const editTags = (change) => runWithToast(() => send("PATCH", url("images", image.id, "tags"), change));
  const remove = async () => {
    if (!confirm(`Remove ${image.name} from ${dataset.name}? Versions frozen earlier keep it.`)) return;
    if ((await runWithToast(() => send("DELETE", url("images", image.id)), "Image removed")) !== undefined) close();
  };
  const erase = async () => {
    if (!confirm(`Permanently erase ${image.name}? Its file, name and caption are destroyed, in backups too. This cannot be undone.`)) return;
    const result = await runWithToast(() => send("POST", url("images", image.id, "erase")));
    if (result === undefined) return;
    showToast(describeErasure(result));
    close();
  };
  return html`
    <h2 class="clip" title=${image.name}>${lastPart(image.name)}</h2>
    <p class="muted figures">
      ${image.width} × ${image.height} · ${image.format} · ${bytes(image.size)}${image.rating ? ` · ${image.rating}` : ""}${describeTraining(image)} ·
      ${" "}<a href=${`${url("images", image.id, "file")}?original=1`} download>Download original</a>
    </p>
    <h3>Tags</h3>
    <div class="chips">
      ${image.tags.map((tag) => html`<${TagChip} key=${tag.tag} tag=${tag} onRemove=${() => editTags({ remove: [tag.tag] })} />`)}
      ${!image.tags.length && html`<span class="muted">No tags yet. Add one below, or auto-tag the data set.</span>`}
    </div>
    <${AddTag} dataset=${dataset} add=${(tag) => editTags({ add: [tag] })} />
    <${TagLegend} />
    ${image.suggestions.length > 0 &&
    html`
      <h3>Suggestions</h3>
      <div class="chips">
        ${image.suggestions.map((tag) => html`<${TagChip} key=${tag.tag} tag=${tag} onAccept=${() => editTags({ add: [tag.tag] })} />`)}
      </div>
    `}
    ${image.rejected.length > 0 && html`<p class="muted">Rejected tags: ${image.rejected.join(", ")}</p>`}
    <${Caption} image=${image} />
    <div class="foot">
      <p class="muted keys"><kbd>←</kbd> <kbd>→</kbd> previous or next image · <kbd>Esc</kbd> close</p>
      <div class="row end">
        <button title="Remove this image from the data set" onClick=${remove}>Remove</button>
        <button onClick=${erase}>Erase permanently…</button>
      </div>
    </div>
  `;
};

/** How the image counts in trainings, where it does so in another way than most. */
function describeTraining({ repeats, mask }) {
  return `${repeats > 1 ? ` · ${repeats} × an epoch` : ""}${mask ? " · with a mask" : ""}`;
}

function describeErasure({ pending, loras }) {
  if (pending.length) return `Image erased. Still to be deleted: ${pending.join("; ")}`;
  return loras.length ? `Image erased. It was used in ${plural(loras.length, "training")}` : "Image erased";
}

const AddTag = ({ dataset, add }) => {
  const { items } = useList(url("datasets", dataset.id, "tags"));
  const submit = (event) => {
    event.preventDefault();
    const input = event.target.elements.tag;
    const tag = input.value.trim();
    input.value = "";
    if (tag) add(tag);
  };
  return html`
    <form class="row" onSubmit=${submit}>
      <input name="tag" class="grow" list="known-tags" aria-label="Add a tag" placeholder="add a tag" maxlength="200" autocomplete="off" />
      <button>Add</button>
      <datalist id="known-tags">${(items ?? []).map((item) => html`<option value=${item.tag} />`)}</datalist>
    </form>
  `;
};

const Caption = ({ image }) => {
  const [draft, setDraft] = useState(null); // null: no unsaved change
  const source = CAPTION_SOURCES[image.caption_source];
  const address = url("images", image.id, "caption");
  const save = async () => {
    const result = await runWithToast(() => send("PUT", address, { caption: draft.trim() }), "Caption saved");
    if (result !== undefined) setDraft(null);
  };
  const reset = async () => {
    const result = await runWithToast(() => send("DELETE", address));
    if (result !== undefined) setDraft(null);
  };
  const isUnchanged = draft === null || !draft.trim() || draft === image.caption;
  return html`
    <h3><label for="caption">Caption</label> <small class="muted">${source ?? "generated from the tags"}</small></h3>
    <textarea id="caption" rows="4" maxlength="20000" value=${draft ?? image.caption} onInput=${(event) => setDraft(event.target.value)}></textarea>
    ${image.training_text !== image.caption && html`<p class="muted">Trained as: ${image.training_text}</p>`}
    <div class="row end">
      ${source && html`<button title="Delete this caption and use the tags instead" onClick=${reset}>Reset to tags</button>`}
      <button class="primary" disabled=${isUnchanged} onClick=${save}>Save caption</button>
    </div>
  `;
};
