// The dialog that starts a training: a preset, and the values that differ from it.
import { link } from "./address.js";
import { send, url } from "./api.js";
import { plural } from "./format.js";
import { html, useState } from "./lib.js";
import { Dialog, Field, Loaded, runWithToast } from "./components.js";
import { useList } from "./resource.js";

const DEFAULT_STEPS = 1000; // of a recipe without a preset

export const TrainDialog = ({ dataset, close }) => {
  const { items, error } = useList(url("presets"));
  return html`
    <${Dialog} title=${`Train a LoRA on ${dataset.name}`} onClose=${close}>
      <${Loaded} data=${items} error=${error}>${(presets) => html`<${TrainForm} dataset=${dataset} presets=${presets} />`}<//>
    <//>
  `;
};

const TrainForm = ({ dataset, presets }) => {
  // Starts with a preset on the built-in base model, which works without any downloads.
  const [preset, setPreset] = useState(presets.find((item) => item.recipe.base.type === "builtin") ?? presets[0] ?? null);
  const [base, setBase] = useState("preset");
  const [isBusy, setIsBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setIsBusy(true);
    const body = buildRequest(dataset, preset, Object.fromEntries(new FormData(event.target)));
    const job = await runWithToast(() => send("POST", url("training", "single"), body));
    setIsBusy(false);
    if (job) location.hash = link("jobs", job.id);
  };
  return html`
    <form class="form" onSubmit=${submit}>
      ${presets.length > 0 &&
      html`<${Field} id="preset" label="Preset" help=${preset?.description}>
        <select id="preset" onChange=${(event) => setPreset(presets[event.target.selectedIndex])}>
          ${presets.map((item) => html`<option selected=${item === preset}>${item.name}</option>`)}
        </select>
      <//>`}
      <${Field} id="trigger" label="Trigger" help="The word in a prompt that activates the LoRA. Empty: that of the data set.">
        <input id="trigger" name="trigger" maxlength="100" autocomplete="off" autofocus placeholder="e.g. mika" />
      <//>
      <${Field} id="steps" label="Steps" help=${`Leave empty for the preset's length: ${presetLength(preset)}.`}>
        <input id="steps" name="steps" type="number" min="1" max="1000000" />
      <//>
      <${Field} id="base" label="Base model">
        <select id="base" name="base" value=${base} onChange=${(event) => setBase(event.target.value)}>
          <option value="preset">From the preset: ${presetBase(preset)}</option>
          <option value="builtin">demo (built in, draws small creatures at 64 px)</option>
          <option value="folder">Diffusers folder on the trainer's machine…</option>
        </select>
      <//>
      ${base === "folder" &&
      html`<${Field} id="path" label="Folder" help="An absolute path, or a path below the trainer's bases folder.">
        <input id="path" name="path" required maxlength="4096" />
      <//>`}
      <${Field} id="name" label="Name" help="Leave empty to name the LoRA after the data set.">
        <input id="name" name="name" maxlength="100" autocomplete="off" />
      <//>
      <div class="row end">
        <small class="muted">Trains on ${plural(dataset.images, "image")}, frozen as they are now.</small>
        <button class="primary" disabled=${isBusy}>Start training</button>
      </div>
    </form>
  `;
};

const presetLength = (preset) => {
  const length = preset?.recipe.length ?? { type: "steps", count: DEFAULT_STEPS };
  return plural(length.count, length.type === "epochs" ? "epoch" : "step");
};

const presetBase = (preset) => preset?.recipe.base.path ?? preset?.recipe.base.name ?? "demo";

/** The request body: the preset, and only those recipe fields that differ from it. */
function buildRequest(dataset, preset, { trigger, steps, base, path, name }) {
  const changes = {};
  if (steps) changes.length = { type: "steps", count: Number(steps) };
  if (base === "builtin") changes.base = { type: "builtin", name: "demo" };
  if (base === "folder") changes.base = { type: "folder", path: path.trim() };
  return { dataset: dataset.id, preset: preset?.name ?? null, trigger: trigger.trim() || null, name: name.trim(), changes };
}
