// All data sets, as cards.
import { link } from "./address.js";
import { send, url } from "./api.js";
import { ago, count, plural } from "./format.js";
import { html, useState } from "./lib.js";
import { Dialog, EmptyState, Field, Loaded, runWithToast, ScrollSentinel } from "./components.js";
import { useList } from "./resource.js";

export const Datasets = () => {
  const list = useList(url("datasets"), (event) => event.aggregateKind === "dataset" || event.aggregateKind === "tagging");
  const [isCreating, setIsCreating] = useState(false);
  return html`
    <div class="title">
      <h1>Data sets</h1>
      <button class="primary" onClick=${() => setIsCreating(true)}>New data set</button>
    </div>
    <${Loaded} data=${list.items} error=${list.error}>
      ${(datasets) => (datasets.length ? html`<${Cards} datasets=${datasets} more=${list.more} />` : html`<${NoDatasets} />`)}
    <//>
    ${isCreating && html`<${NewDatasetDialog} close=${() => setIsCreating(false)} />`}
  `;
};

const NoDatasets = () => html`
  <${EmptyState} title="No data sets yet">
    A data set holds the images a LoRA is trained on. Click New data set and drop a dozen images into it, or run
    ${" "}<code>loratory demo</code> to see a complete training.
  <//>
`;

const Cards = ({ datasets, more }) => html`
  <ul class="cards">${datasets.map((dataset) => html`<${Card} key=${dataset.id} dataset=${dataset} />`)}</ul>
  <${ScrollSentinel} onReach=${more} />
`;

const Card = ({ dataset }) => html`
  <li class="card">
    <a href=${link("datasets", dataset.id)}>
      <div class="cover">
        ${dataset.cover
          ? html`<img src=${url("images", dataset.cover, "thumbnail")} alt="" loading="lazy" />`
          : html`<span class="muted">no images yet</span>`}
      </div>
      <div class="card-body">
        <h2>${dataset.name}</h2>
        ${dataset.description && html`<p class="muted clip">${dataset.description}</p>`}
        <p class="figures">
          <b>${plural(dataset.images, "image")}</b> · ${count(dataset.tagged)} tagged · ${count(dataset.captioned)} captioned
          ${dataset.refused > 0 && html` · <span class="bad">${count(dataset.refused)} skipped</span>`}
        </p>
        <p class="muted">${dataset.latest_version ? `version ${dataset.latest_version} · ` : ""}changed ${ago(dataset.changed_at)}</p>
      </div>
    </a>
  </li>
`;

const NewDatasetDialog = ({ close }) => {
  const submit = async (event) => {
    event.preventDefault();
    const { name, description } = Object.fromEntries(new FormData(event.target));
    const body = { name: name.trim(), description: description.trim() };
    const created = await runWithToast(() => send("POST", url("datasets"), body));
    if (created) location.hash = link("datasets", created.id);
  };
  return html`
    <${Dialog} title="New data set" onClose=${close}>
      <form class="form" onSubmit=${submit}>
        <${Field} id="name" label="Name"><input id="name" name="name" required maxlength="100" autofocus autocomplete="off" placeholder="mika-the-fox" /><//>
        <${Field} id="description" label="Description"><textarea id="description" name="description" maxlength="2000" rows="2"></textarea><//>
        <div class="row end"><button class="primary">Create</button></div>
      </form>
    <//>
  `;
};
