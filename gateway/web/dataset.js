// One data set: its pictures with their tags, and what can be done with all of them.
import { send, url } from "./api.js";
import { count, date, percent, plural } from "./format.js";
import { html, useState } from "./lib.js";
import { attempt, Dialog, Empty, Field, link, Loaded, Sentinel, toast } from "./parts.js";
import { Picture } from "./picture.js";
import { useList, useResource } from "./resource.js";
import { TaggingRun, TagWithModel } from "./tagging.js";
import { Legend, TagChip } from "./tags.js";
import { Train } from "./train.js";
import { DropZone, RefusedFiles } from "./upload.js";

const CHIPS = 6; // tags shown under a thumbnail

export const Dataset = ({ id, rest }) => {
  const touches = (fact) => fact.thing === id || fact.kind === "tagging";
  const { data, error } = useResource(url("datasets", id), touches);
  return html`
    <${Loaded} data=${data} error=${error}>
      ${(dataset) => html`<${Opened} dataset=${dataset} touches=${touches} picture=${rest[0] === "images" ? rest[1] : null} />`}
    <//>
  `;
};

const Opened = ({ dataset, touches, picture }) => {
  const [tag, setTag] = useState("");
  const [dialog, setDialog] = useState(null);
  const address = `${url("datasets", dataset.id, "images")}${tag ? `?tag=${encodeURIComponent(tag)}` : ""}`;
  const images = useList(address, touches);
  const close = () => setDialog(null);
  return html`
    <p class="crumbs"><a href=${link("datasets")}>Data sets</a></p>
    <div class="title">
      <h1>${dataset.name}</h1>
      <div class="row">
        <${TagWithModel} dataset=${dataset} />
        <button disabled=${!dataset.images} onClick=${() => setDialog("freeze")}>Freeze version</button>
        <button class="primary" disabled=${!dataset.images} onClick=${() => setDialog("train")}>Train…</button>
      </div>
    </div>
    <${Summary} dataset=${dataset} show=${setDialog} />
    <${TaggingRun} dataset=${dataset} />
    <${DropZone} dataset=${dataset.id}>
      <${Filter} dataset=${dataset} tag=${tag} setTag=${setTag} />
      <${Loaded} data=${images.items} error=${images.error}>
        ${(items) => html`<${Grid} dataset=${dataset} items=${items} more=${images.more} tag=${tag} />`}
      <//>
    <//>
    ${picture && html`<${Picture} dataset=${dataset} id=${picture} order=${images.items ?? []} />`}
    ${dialog === "train" && html`<${Train} dataset=${dataset} close=${close} />`}
    ${dialog === "freeze" && html`<${Freeze} dataset=${dataset} close=${close} />`}
    ${dialog === "versions" && html`<${Versions} dataset=${dataset} close=${close} />`}
    ${dialog === "refusals" && html`<${Refusals} dataset=${dataset} close=${close} />`}
  `;
};

const Summary = ({ dataset, show }) => html`
  ${dataset.description && html`<p class="lead">${dataset.description}</p>`}
  <p class="figures summary">
    <b>${plural(dataset.images, "picture")}</b>
    <span>${count(dataset.tagged)} tagged</span>
    <span>${count(dataset.captioned)} captioned</span>
    ${dataset.refused > 0 && html`<button class="text bad" onClick=${() => show("refusals")}>${count(dataset.refused)} refused</button>`}
    ${dataset.latest_version
      ? html`<button class="text" onClick=${() => show("versions")}>version ${dataset.latest_version}</button>`
      : html`<span class="muted">no version yet</span>`}
    <span class="muted">a model's tags hold from ${percent(dataset.general_threshold)} on</span>
  </p>
`;

const Filter = ({ dataset, tag, setTag }) => {
  const { items } = useList(url("datasets", dataset.id, "tags"), (fact) => fact.thing === dataset.id || fact.kind === "tagging");
  if (!items?.length) return null;
  return html`
    <div class="row filter">
      <label class="inline">Show
        <select value=${tag} onChange=${(event) => setTag(event.target.value)}>
          <option value="">all pictures</option>
          ${items.map((row) => html`<option value=${row.tag}>${row.tag} (${row.images})</option>`)}
        </select>
      </label>
      <${Legend} />
    </div>
  `;
};

const Grid = ({ dataset, items, more, tag }) => {
  if (!items.length) {
    return tag
      ? html`<${Empty} title="No picture has this tag">Choose another one above.<//>`
      : html`<${Empty} title="No pictures yet">Drop a dozen pictures or a folder here. Ten to thirty good ones make a LoRA.<//>`;
  }
  return html`
    <ul class="grid">${items.map((image) => html`<${Tile} key=${image.id} dataset=${dataset} image=${image} />`)}</ul>
    <${Sentinel} reached=${more} />
  `;
};

const Tile = ({ dataset, image }) => html`
  <li class="tile">
    <a href=${link("datasets", dataset.id, "images", image.id)} aria-label=${`Open ${image.name}`}>
      <img src=${url("images", image.id, "thumbnail")} alt=${image.caption || image.name} loading="lazy" />
    </a>
    <div class="chips">
      ${image.tags.slice(0, CHIPS).map((tag) => html`<${TagChip} key=${tag.tag} tag=${tag} />`)}
      ${image.tags.length > CHIPS && html`<span class="muted">+${image.tags.length - CHIPS}</span>`}
      ${!image.tags.length && html`<span class="muted">no tags</span>`}
    </div>
  </li>
`;

const Freeze = ({ dataset, close }) => {
  const submit = async (event) => {
    event.preventDefault();
    const { trigger } = Object.fromEntries(new FormData(event.target));
    const made = await attempt(() => send("POST", url("datasets", dataset.id, "versions"), { trigger: trigger.trim() }));
    if (!made) return;
    toast(made.changed === false ? `Nothing has changed since version ${made.version}` : `Version ${made.version} frozen`);
    close();
  };
  return html`
    <${Dialog} title="Freeze version" onClose=${close}>
      <form class="form" onSubmit=${submit}>
        <p class="muted">Pictures and captions as they are now, kept for ever under a number. Later edits make another version.</p>
        <${Field} of="trigger" label="Trigger" hint="The word that will call what is learnt.">
          <input id="trigger" name="trigger" maxlength="100" autofocus autocomplete="off" />
        <//>
        <div class="row end"><button class="primary">Freeze ${plural(dataset.images, "picture")}</button></div>
      </form>
    <//>
  `;
};

const Versions = ({ dataset, close }) => {
  const { items, error } = useList(url("datasets", dataset.id, "versions"), (fact) => fact.thing === dataset.id);
  const row = (version) => html`
    <tr><td>${version.version}</td><td>${version.trigger || "–"}</td><td>${count(version.images)}</td><td>${date(version.created_at)}</td></tr>
  `;
  return html`
    <${Dialog} title=${`Versions of ${dataset.name}`} onClose=${close}>
      <${Loaded} data=${items} error=${error}>
        ${(versions) => html`
          <table>
            <thead><tr><th>Version</th><th>Trigger</th><th>Pictures</th><th>Frozen</th></tr></thead>
            <tbody>${versions.map(row)}</tbody>
          </table>
        `}
      <//>
    <//>
  `;
};

const Refusals = ({ dataset, close }) => {
  const { items, error } = useList(url("datasets", dataset.id, "refusals"), (fact) => fact.thing === dataset.id);
  return html`
    <${Dialog} title="Files that were not taken" onClose=${close} wide>
      <${Loaded} data=${items} error=${error}>${(rows) => html`<${RefusedFiles} items=${rows} />`}<//>
    <//>
  `;
};
