// Asking for a training: a preset, a few changes, and off it goes.
import { send, url } from "./api.js";
import { plural } from "./format.js";
import { html, useState } from "./lib.js";
import { attempt, Dialog, Field, link, Loaded } from "./parts.js";
import { useList } from "./resource.js";

const PLAIN_STEPS = 1000; // of a recipe nobody changed

export const Train = ({ dataset, close }) => {
  const { items, error } = useList(url("presets"));
  return html`
    <${Dialog} title=${`Train a LoRA on ${dataset.name}`} onClose=${close}>
      <${Loaded} data=${items} error=${error}>${(presets) => html`<${Form} dataset=${dataset} presets=${presets} />`}<//>
    <//>
  `;
};

const Form = ({ dataset, presets }) => {
  // First one that needs nothing but what came with Loratory: whoever has a base of their own knows which to pick.
  const [preset, setPreset] = useState(presets.find((one) => one.recipe.base.type === "builtin") ?? presets[0] ?? null);
  const [base, setBase] = useState("preset");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    const wish = wishOf(dataset, preset, Object.fromEntries(new FormData(event.target)));
    const job = await attempt(() => send("POST", url("training", "single"), wish));
    setBusy(false);
    if (job) location.hash = link("jobs", job.id);
  };
  return html`
    <form class="form" onSubmit=${submit}>
      ${presets.length > 0 &&
      html`<${Field} of="preset" label="Preset" hint=${preset?.description}>
        <select id="preset" onChange=${(event) => setPreset(presets[event.target.selectedIndex])}>
          ${presets.map((one) => html`<option selected=${one === preset}>${one.name}</option>`)}
        </select>
      <//>`}
      <${Field} of="trigger" label="Trigger" hint="The word that will call what is learnt.">
        <input id="trigger" name="trigger" maxlength="100" autocomplete="off" autofocus placeholder="e.g. mika" />
      <//>
      <${Field} of="steps" label="Steps" hint=${`Empty: as the preset says, ${lengthOf(preset)}.`}>
        <input id="steps" name="steps" type="number" min="1" max="1000000" />
      <//>
      <${Field} of="base" label="Base">
        <select id="base" name="base" value=${base} onChange=${(event) => setBase(event.target.value)}>
          <option value="preset">as the preset says: ${baseOf(preset)}</option>
          <option value="builtin">demo (built in: a small world of drawn creatures, 64 px)</option>
          <option value="folder">a diffusers folder on the trainer's machine…</option>
        </select>
      <//>
      ${base === "folder" &&
      html`<${Field} of="path" label="Folder" hint="Absolute, or below the trainer's bases folder.">
        <input id="path" name="path" required maxlength="4096" />
      <//>`}
      <${Field} of="name" label="Name" hint="Made from the data set's if empty.">
        <input id="name" name="name" maxlength="100" autocomplete="off" />
      <//>
      <div class="row end">
        <span class="muted">${plural(dataset.images, "picture")} are frozen as they are now.</span>
        <button class="primary" disabled=${busy}>Train</button>
      </div>
    </form>
  `;
};

const lengthOf = (preset) => {
  const length = preset?.recipe.length ?? { type: "steps", count: PLAIN_STEPS };
  return plural(length.count, length.type === "epochs" ? "epoch" : "step");
};

const baseOf = (preset) => preset?.recipe.base.path ?? preset?.recipe.base.name ?? "demo";

/** Only what differs from the preset is said. */
function wishOf(dataset, preset, { trigger, steps, base, path, name }) {
  const changes = {};
  if (steps) changes.length = { type: "steps", count: Number(steps) };
  if (base === "builtin") changes.base = { type: "builtin", name: "demo" };
  if (base === "folder") changes.base = { type: "folder", path: path.trim() };
  return { dataset: dataset.id, preset: preset?.name ?? null, trigger: trigger.trim(), name: name.trim(), changes };
}
