// One picture large, and its words: tags, suggestions, caption.
import { send, url } from "./api.js";
import { bytes, plural } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";
import { attempt, grain, link, Loaded, toast } from "./parts.js";
import { useList, useResource } from "./resource.js";
import { Legend, TagChip } from "./tags.js";

const typing = (event) => /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);

/** `order`: the images of the screen behind, for going to the next one. */
export const Picture = ({ dataset, id, order }) => {
  const { data, error } = useResource(url("images", id), (fact) => fact.thing === dataset.id || fact.kind === "tagging");
  const box = useRef(null);
  const at = order.findIndex((image) => image.id === id);
  const go = (step) => {
    const next = order[at + step];
    if (at >= 0 && next) location.replace(link("datasets", dataset.id, "images", next.id));
  };
  const close = () => (location.hash = link("datasets", dataset.id));
  useEffect(() => {
    box.current.showModal();
    box.current.focus(); // itself, not its first button: the arrow keys work, and nothing is pressed by mistake
  }, []);
  const keys = (event) => {
    if (typing(event)) return;
    if (event.key === "ArrowRight" || event.key === "j") go(1);
    if (event.key === "ArrowLeft" || event.key === "k") go(-1);
  };
  return html`
    <dialog ref=${box} class="picture" tabindex="-1" aria-label="Picture" onClose=${close} onKeyDown=${keys}>
      <div class="stage">
        <img class=${data ? grain(data.width, data.height) : ""} src=${url("images", id, "file")} alt=${data?.caption ?? ""} />
        <button class="go back" aria-label="Previous picture" disabled=${at <= 0} onClick=${() => go(-1)}>‹</button>
        <button class="go on" aria-label="Next picture" disabled=${at < 0 || at + 1 >= order.length} onClick=${() => go(1)}>›</button>
      </div>
      <div class="words">
        <button class="quiet close" aria-label="Close" onClick=${() => box.current.close()}>×</button>
        <${Loaded} data=${data} error=${error}>${(image) => html`<${Words} key=${image.id} image=${image} dataset=${dataset} close=${() => box.current.close()} />`}<//>
      </div>
    </dialog>
  `;
};

const Words = ({ image, dataset, close }) => {
  const edit = (change) => attempt(() => send("PATCH", url("images", image.id, "tags"), change));
  const remove = async () => {
    if (!confirm(`Remove ${image.name} from ${dataset.name}? Versions frozen before keep it.`)) return;
    if ((await attempt(() => send("DELETE", url("images", image.id)), "Picture removed")) !== undefined) close();
  };
  const erase = async () => {
    if (!confirm(`Erase ${image.name} for good? Its bytes, name and caption are destroyed, in backups too. This cannot be undone.`)) return;
    const erased = await attempt(() => send("POST", url("images", image.id, "erase")));
    if (erased === undefined) return;
    const seen = erased.loras.length ? `; ${plural(erased.loras.length, "training")} had seen it` : "";
    toast(erased.left.length ? `Erased; not gone yet: ${erased.left.join("; ")}` : `Erased${seen}`);
    close();
  };
  return html`
    <h2 class="clip" title=${image.name}>${image.name}</h2>
    <p class="muted figures">
      ${image.width} × ${image.height} · ${image.format} · ${bytes(image.size)}${image.rating ? ` · ${image.rating}` : ""} ·
      ${" "}<a href=${`${url("images", image.id, "file")}?original=1`} download>original</a>
    </p>
    <h3>Tags</h3>
    <div class="chips">
      ${image.tags.map((tag) => html`<${TagChip} key=${tag.tag} tag=${tag} remove=${() => edit({ remove: [tag.tag] })} />`)}
      ${!image.tags.length && html`<span class="muted">none yet</span>`}
    </div>
    <${AddTag} dataset=${dataset} add=${(tag) => edit({ add: [tag] })} />
    <${Legend} />
    ${image.suggestions.length > 0 &&
    html`
      <h3>Suggestions</h3>
      <div class="chips">
        ${image.suggestions.map((tag) => html`<${TagChip} key=${tag.tag} tag=${tag} accept=${() => edit({ add: [tag.tag] })} />`)}
      </div>
    `}
    ${image.rejected.length > 0 && html`<p class="muted">Rejected: ${image.rejected.join(", ")}</p>`}
    <${Caption} image=${image} />
    <div class="row spread foot">
      <span class="muted keys"><kbd>←</kbd> <kbd>→</kbd> next picture · <kbd>Esc</kbd> back</span>
      <span class="row">
        <button onClick=${erase}>Erase for good…</button>
        <button onClick=${remove}>Remove picture</button>
      </span>
    </div>
  `;
};

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
      <datalist id="known-tags">${(items ?? []).map((row) => html`<option value=${row.tag} />`)}</datalist>
    </form>
  `;
};

const Caption = ({ image }) => {
  const [draft, setDraft] = useState(null); // null = as stored
  const written = image.caption_source === "person" || image.caption_source === "import";
  const save = async () => {
    const done = await attempt(() => send("PUT", url("images", image.id, "caption"), { caption: draft.trim() }), "Caption saved");
    if (done !== undefined) setDraft(null);
  };
  const takeBack = async () => {
    const done = await attempt(() => send("DELETE", url("images", image.id, "caption")));
    if (done !== undefined) setDraft(null);
  };
  return html`
    <h3><label for="caption">Caption</label> <small class="muted">${written ? `written by ${image.caption_source === "person" ? "a person" : "the import"}` : "joined from the tags"}</small></h3>
    <textarea id="caption" rows="4" maxlength="20000" value=${draft ?? image.caption} onInput=${(event) => setDraft(event.target.value)}></textarea>
    <div class="row end">
      ${written && html`<button onClick=${takeBack}>Join from tags</button>`}
      <button class="primary" disabled=${draft === null || !draft.trim() || draft === image.caption} onClick=${save}>Save caption</button>
    </div>
  `;
};
