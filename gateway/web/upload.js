// Files from the person's machine into a data set: gathered from a drop or a chooser, sent in batches, told one by one.
import { upload, url } from "./api.js";
import { plural } from "./format.js";
import { html, useRef, useState } from "./lib.js";
import { Bar, toast } from "./parts.js";

const FILES_AT_ONCE = 32; // one command of the catalog
const BYTES_AT_ONCE = 256 * 1024 * 1024; // a batch ends here as well, so that progress moves
const MOST_FILES = 10_000;
const SIDECAR = /\.(txt|caption)$/i; // the caption of the picture with the same name
const CAPTION_CHARACTERS = 20_000;

const stem = (name) => name.replace(/\.[^./]+$/, "");

/** A file goes under its path, for two folders may each have a `1.png`. */
const named = (file, path) => ({ file, name: (path || file.webkitRelativePath || file.name).replace(/^\//, "") });

/** All files of a drop, folders opened. */
async function dropped(transfer) {
  // The entries must be taken before the first await: the browser empties the transfer after the event.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => named(file));
  const files = [];
  while (entries.length && files.length < MOST_FILES) {
    const entry = entries.shift();
    if (entry.isFile) files.push(named(await new Promise((done, failed) => entry.file(done, failed)), entry.fullPath));
    else entries.push(...(await children(entry)));
  }
  return files;
}

async function children(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed)); // 100 at a time
    if (!some.length || found.length >= MOST_FILES) return found;
    found.push(...some);
  }
}

/** Pictures in batches, each with the captions that lay beside them. Hidden files (`.DS_Store`) are not pictures. */
async function batches(files) {
  const visible = files.filter(({ file }) => !file.name.startsWith("."));
  const pictures = visible.filter(({ name }) => !SIDECAR.test(name));
  const captions = await captionsOf(visible.filter(({ name }) => SIDECAR.test(name)));
  const made = [];
  let bytes = 0;
  for (const picture of pictures) {
    const { size } = picture.file;
    if (!made.length || made.at(-1).length >= FILES_AT_ONCE || bytes + size > BYTES_AT_ONCE) {
      made.push([]);
      bytes = 0;
    }
    made.at(-1).push(picture);
    bytes += size;
  }
  return made.map((batch) => formOf(batch, captions));
}

async function captionsOf(sidecars) {
  const captions = new Map();
  for (const { file, name } of sidecars) {
    // At most four bytes a character: what is larger need not be read to know that it is too long.
    const text = file.size <= 4 * CAPTION_CHARACTERS ? (await file.text()).trim() : null;
    if (text === null || text.length > CAPTION_CHARACTERS) toast(`${name} is too long for a caption and was left off.`, "error");
    else captions.set(stem(name), text);
  }
  return captions;
}

function formOf(batch, captions) {
  const form = new FormData();
  const beside = {};
  for (const { file, name } of batch) {
    form.append("files", file, name);
    const caption = captions.get(stem(name));
    if (caption) beside[name] = caption;
  }
  if (Object.keys(beside).length) form.append("captions", JSON.stringify(beside));
  return form;
}

/** Sends all batches in turn; `say` is told {done, total, share, items}. The first batch that fails ends it. */
async function bringIn(dataset, files, say) {
  const forms = await batches(files);
  const total = forms.reduce((sum, form) => sum + form.getAll("files").length, 0);
  const items = [];
  for (const form of forms) {
    const size = form.getAll("files").length;
    const tell = (share) => say({ total, share: (items.length + share * size) / total, items: [...items], busy: true });
    tell(0);
    items.push(...(await upload(url("datasets", dataset, "images"), form, tell)).items);
  }
  say({ total, share: 1, items, busy: false });
}

/** The place to drop pictures on; everything inside it is part of the target. */
export const DropZone = ({ dataset, children: inside }) => {
  const [over, setOver] = useState(false);
  const [import_, setImport] = useState(null);
  const depth = useRef(0);

  const take = async (gather) => {
    if (import_?.busy) return toast("One import at a time: this one is still running.");
    try {
      await bringIn(dataset, await gather(), setImport);
    } catch (error) {
      setImport((now) => now && { ...now, busy: false, error: error.message });
      toast(error.message, "error");
    }
    return undefined;
  };
  const move = (by) => (event) => {
    event.preventDefault();
    depth.current += by;
    setOver(depth.current > 0);
  };
  const drop = (event) => {
    event.preventDefault();
    depth.current = 0;
    setOver(false);
    take(() => dropped(event.dataTransfer));
  };
  return html`
    <div class=${`dropzone ${over ? "over" : ""}`} onDragEnter=${move(1)} onDragLeave=${move(-1)}
      onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>
      <div class="dropbar">
        <span>Drop pictures or a folder anywhere here, or choose</span>
        <${Chooser} label="files" take=${take} />
        <${Chooser} label="a folder" folder take=${take} />
        <span class="muted">A <code>.txt</code> beside a picture becomes its caption.</span>
      </div>
      ${import_ && html`<${Imported} of=${import_} close=${() => setImport(null)} />`}
      ${inside}
    </div>
  `;
};

const Chooser = ({ label, take, folder = false }) => {
  const input = useRef(null);
  const chosen = () => {
    const files = [...input.current.files].map((file) => named(file));
    input.current.value = "";
    if (files.length) take(() => files);
  };
  return html`
    <button onClick=${() => input.current.click()}>${label}</button>
    <input ref=${input} type="file" hidden multiple aria-label=${`Choose ${label}`} webkitdirectory=${folder} onChange=${chosen} />
  `;
};

const Imported = ({ of, close }) => {
  const refused = of.items.filter((item) => item.outcome === "refused");
  const tally = (outcome) => of.items.filter((item) => item.outcome === outcome).length;
  return html`
    <section class="panel importing" aria-label="Import">
      <div class="row spread">
        <strong>${of.busy ? `Importing ${plural(of.total, "file")}` : of.error ? "Import stopped" : "Imported"}</strong>
        <span class="figures">
          ${tally("added")} added · ${tally("existing")} known already · ${refused.length} refused
          ${!of.busy && html` <button class="quiet" aria-label="Close" onClick=${close}>×</button>`}
        </span>
      </div>
      ${of.busy && html`<${Bar} share=${of.share} label="Import" />`}
      ${of.error && html`<p class="bad">${of.error}</p>`}
      ${refused.length > 0 && html`<${RefusedFiles} items=${refused} />`}
    </section>
  `;
};

export const RefusedFiles = ({ items }) => html`
  <ul class="refusals">
    ${items.map((item) => html`<li><b>${item.name}</b> <code>${item.reason}</code> <span class="muted">${item.detail}</span></li>`)}
  </ul>
`;
