// All data sets, as cards.
import { send, url } from "./api.js";
import { ago, count, plural } from "./format.js";
import { html, useState } from "./lib.js";
import { attempt, Dialog, Empty, Field, link, Loaded, Sentinel } from "./parts.js";
import { useList } from "./resource.js";

export const Datasets = () => {
  const list = useList(url("datasets"), (fact) => fact.kind === "dataset" || fact.kind === "tagging");
  const [creating, setCreating] = useState(false);
  return html`
    <div class="title">
      <h1>Data sets</h1>
      <button class="primary" onClick=${() => setCreating(true)}>New data set</button>
    </div>
    <${Loaded} data=${list.items} error=${list.error}>
      ${(items) => (items.length ? html`<${Cards} items=${items} more=${list.more} />` : html`<${None} />`)}
    <//>
    ${creating && html`<${Create} close=${() => setCreating(false)} />`}
  `;
};

const None = () => html`
  <${Empty} title="No data set yet">
    A data set is a named set of pictures you want a LoRA to learn. Make one, then drop a dozen pictures on it; or run
    ${" "}<code>loratory demo</code> to see the whole way once.
  <//>
`;

const Cards = ({ items, more }) => html`
  <ul class="cards">${items.map((item) => html`<${Card} key=${item.id} of=${item} />`)}</ul>
  <${Sentinel} reached=${more} />
`;

const Card = ({ of }) => html`
  <li class="card">
    <a href=${link("datasets", of.id)}>
      <div class="cover">
        ${of.cover
          ? html`<img src=${url("images", of.cover, "thumbnail")} alt="" loading="lazy" />`
          : html`<span class="muted">no pictures yet</span>`}
      </div>
      <div class="about">
        <h2>${of.name}</h2>
        ${of.description && html`<p class="muted clip">${of.description}</p>`}
        <p class="figures">
          <b>${plural(of.images, "picture")}</b> · ${count(of.tagged)} tagged · ${count(of.captioned)} captioned
          ${of.refused > 0 && html` · <span class="bad">${count(of.refused)} refused</span>`}
        </p>
        <p class="muted">${of.latest_version ? `version ${of.latest_version} · ` : ""}${ago(of.changed_at)}</p>
      </div>
    </a>
  </li>
`;

const Create = ({ close }) => {
  const submit = async (event) => {
    event.preventDefault();
    const { name, description } = Object.fromEntries(new FormData(event.target));
    const made = await attempt(() => send("POST", url("datasets"), { name: name.trim(), description: description.trim() }));
    if (made) location.hash = link("datasets", made.id);
  };
  return html`
    <${Dialog} title="New data set" onClose=${close}>
      <form class="form" onSubmit=${submit}>
        <${Field} of="name" label="Name"><input id="name" name="name" required maxlength="100" autofocus autocomplete="off" placeholder="mika-the-fox" /><//>
        <${Field} of="description" label="Description"><textarea id="description" name="description" maxlength="2000" rows="2"></textarea><//>
        <div class="row end"><button class="primary">Create</button></div>
      </form>
    <//>
  `;
};
