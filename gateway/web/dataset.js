// One data set: its images with their tags, and the actions on the whole set.
import { link } from "./address.js";
import { send, url } from "./api.js";
import { concernsDataset } from "./events.js";
import { count, date, percent, plural } from "./format.js";
import { html, useState } from "./lib.js";
import { Dialog, EmptyState, Field, Loaded, runWithToast, ScrollSentinel, showToast } from "./components.js";
import { ImageViewer } from "./image.js";
import { useList, useResource } from "./resource.js";
import { AutoTagButton, TaggingRun } from "./tagging.js";
import { TagChip, TagLegend } from "./tags.js";
import { TrainDialog } from "./train.js";
import { DropZone, SkippedFiles } from "./upload.js";

const MAX_TILE_TAGS = 6; // shown below a thumbnail

export const Dataset = ({ id, rest }) => {
  const isAffectedBy = (event) => concernsDataset(event, id);
  const { data, error } = useResource(url("datasets", id), isAffectedBy);
  const imageId = rest[0] === "images" ? rest[1] : null;
  return html`
    <${Loaded} data=${data} error=${error}>
      ${(dataset) => html`<${LoadedDataset} dataset=${dataset} isAffectedBy=${isAffectedBy} imageId=${imageId} />`}
    <//>
  `;
};

const LoadedDataset = ({ dataset, isAffectedBy, imageId }) => {
  const [tag, setTag] = useState("");
  const [dialog, setDialog] = useState(null);
  const address = `${url("datasets", dataset.id, "images")}${tag ? `?tag=${encodeURIComponent(tag)}` : ""}`;
  const images = useList(address, isAffectedBy);
  const close = () => setDialog(null);
  return html`
    <p class="crumbs"><a href=${link("datasets")}>Data sets</a></p>
    <div class="title">
      <h1>${dataset.name}</h1>
      <div class="row">
        <${AutoTagButton} dataset=${dataset} />
        <button disabled=${!dataset.images} onClick=${() => setDialog("freeze")}>Freeze version</button>
        <button class="primary" disabled=${!dataset.images} onClick=${() => setDialog("train")}>Train…</button>
      </div>
    </div>
    <${Summary} dataset=${dataset} openDialog=${setDialog} />
    <${TaggingRun} dataset=${dataset} />
    <${DropZone} dataset=${dataset.id}>
      <${TagFilter} dataset=${dataset} tag=${tag} setTag=${setTag} />
      <${Loaded} data=${images.items} error=${images.error}>
        ${(items) => html`<${Grid} dataset=${dataset} images=${items} more=${images.more} tag=${tag} />`}
      <//>
    <//>
    ${imageId && html`<${ImageViewer} dataset=${dataset} id=${imageId} images=${images.items ?? []} />`}
    ${dialog === "train" && html`<${TrainDialog} dataset=${dataset} close=${close} />`}
    ${dialog === "freeze" && html`<${FreezeDialog} dataset=${dataset} close=${close} />`}
    ${dialog === "versions" && html`<${VersionsDialog} dataset=${dataset} close=${close} />`}
    ${dialog === "skipped" && html`<${SkippedFilesDialog} dataset=${dataset} close=${close} />`}
  `;
};

const Summary = ({ dataset, openDialog }) => {
  const threshold = percent(dataset.thresholds.general);
  return html`
    ${dataset.description && html`<p class="lead">${dataset.description}</p>`}
    <p class="figures summary">
      <b>${plural(dataset.images, "image")}</b>
      <span>${count(dataset.tagged)} tagged</span>
      <span>${count(dataset.captioned)} captioned</span>
      ${dataset.refused > 0 && html`<button class="text bad" onClick=${() => openDialog("skipped")}>${count(dataset.refused)} skipped</button>`}
      ${dataset.latest_version
        ? html`<button class="text" onClick=${() => openDialog("versions")}>version ${dataset.latest_version}</button>`
        : html`<span class="muted">no version yet</span>`}
      <span class="muted" title=${`Tags predicted with a confidence above ${threshold} are applied; the others are suggestions`}>Auto-tag threshold ${threshold}</span>
    </p>
  `;
};

const TagFilter = ({ dataset, tag, setTag }) => {
  const isAffectedBy = (event) => event.aggregateId === dataset.id || event.aggregateKind === "tagging";
  const { items } = useList(url("datasets", dataset.id, "tags"), isAffectedBy);
  if (!items?.length) return null;
  return html`
    <div class="row filter">
      <label class="inline">Filter by tag
        <select value=${tag} onChange=${(event) => setTag(event.target.value)}>
          <option value="">all images</option>
          ${items.map((item) => html`<option value=${item.tag}>${item.tag} (${item.images})</option>`)}
        </select>
      </label>
      <${TagLegend} />
    </div>
  `;
};

const Grid = ({ dataset, images, more, tag }) => {
  if (!images.length) {
    return tag
      ? html`<${EmptyState} title="No images with this tag">Choose another tag above.<//>`
      : html`<${EmptyState} title="No images yet">Drop images or a folder here. Ten to thirty good images are enough for a LoRA.<//>`;
  }
  return html`
    <ul class="grid">${images.map((image) => html`<${Tile} key=${image.id} dataset=${dataset} image=${image} />`)}</ul>
    <${ScrollSentinel} onReach=${more} />
  `;
};

const Tile = ({ dataset, image }) => html`
  <li class="tile">
    <a href=${link("datasets", dataset.id, "images", image.id)} aria-label=${`Open ${image.name}`}>
      <img src=${url("images", image.id, "thumbnail")} alt=${image.caption || image.name} loading="lazy" />
    </a>
    <div class="chips">
      ${image.tags.slice(0, MAX_TILE_TAGS).map((tag) => html`<${TagChip} key=${tag.tag} tag=${tag} />`)}
      ${image.tags.length > MAX_TILE_TAGS && html`<span class="muted">+${image.tags.length - MAX_TILE_TAGS}</span>`}
      ${!image.tags.length && html`<span class="muted">no tags</span>`}
    </div>
  </li>
`;

const FreezeDialog = ({ dataset, close }) => {
  const submit = async (event) => {
    event.preventDefault();
    const { trigger } = Object.fromEntries(new FormData(event.target));
    const body = { trigger: trigger.trim() || null };
    const frozen = await runWithToast(() => send("POST", url("datasets", dataset.id, "versions"), body));
    if (!frozen) return;
    showToast(frozen.changed === false ? `No changes since version ${frozen.version}` : `Version ${frozen.version} frozen`);
    close();
  };
  return html`
    <${Dialog} title="Freeze version" onClose=${close}>
      <form class="form" onSubmit=${submit}>
        <p class="muted">A version keeps the images, tags and captions as they are now. Trainings use it; later edits do not change it.</p>
        <${Field} id="trigger" label="Trigger" help="The word in a prompt that activates the LoRA. Empty: that of the data set.">
          <input id="trigger" name="trigger" maxlength="100" autofocus autocomplete="off" />
        <//>
        <div class="row end"><button class="primary">Freeze ${plural(dataset.images, "image")}</button></div>
      </form>
    <//>
  `;
};

const VersionsDialog = ({ dataset, close }) => {
  const { items, error } = useList(url("datasets", dataset.id, "versions"), (event) => event.aggregateId === dataset.id);
  const row = (version) => html`
    <tr><td>${version.version}</td><td>${version.trigger || "–"}</td><td>${count(version.images)}${version.captions_lost > 0 && ` (${count(version.captions_lost)} without a lost caption)`}</td><td>${date(version.created_at)}</td></tr>
  `;
  return html`
    <${Dialog} title=${`Versions of ${dataset.name}`} onClose=${close}>
      <${Loaded} data=${items} error=${error}>
        ${(versions) => html`
          <table>
            <thead><tr><th>Version</th><th>Trigger</th><th>Images</th><th>Frozen</th></tr></thead>
            <tbody>${versions.map(row)}</tbody>
          </table>
        `}
      <//>
    <//>
  `;
};

const SkippedFilesDialog = ({ dataset, close }) => {
  const { items, error } = useList(url("datasets", dataset.id, "refusals"), (event) => event.aggregateId === dataset.id);
  return html`
    <${Dialog} title="Skipped files" onClose=${close} wide>
      <${Loaded} data=${items} error=${error}>${(files) => html`<${SkippedFiles} items=${files} />`}<//>
    <//>
  `;
};
