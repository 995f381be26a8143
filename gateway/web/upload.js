// Importing image files: collected from a drop or a file chooser, uploaded in batches, with a result for each file.
import { upload, url } from "./api.js";
import { insideOnlyFolder, partition, splitIntoBatches, stem } from "./batches.js";
import { concernsDataset } from "./events.js";
import { count, plural } from "./format.js";
import { html, useRef, useState } from "./lib.js";
import { ProgressBar, showToast } from "./components.js";
import { useResource } from "./resource.js";

const MAX_FILES = 10_000;
const MAX_TEXT_CHARACTERS = 20_000;
/** What a text file becomes, by the text settings of the data set. */
const BECOMES = { auto: "its tags if it is a list of tags, else its caption", tags: "its tags", caption: "its caption" };

/** A file with its relative path as name: two folders may each have a `1.png`. */
const withPath = (file, path) => ({ file, name: (path || file.webkitRelativePath || file.name).replace(/^\//, "") });

/** All files of a drop, including those in dropped folders. */
async function collectDroppedFiles(transfer) {
  // The entries must be read before the first await: the browser empties the transfer after the event.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => withPath(file));
  const files = [];
  while (entries.length && files.length < MAX_FILES) {
    const entry = entries.shift();
    if (entry.isFile) files.push(withPath(await new Promise((resolve, reject) => entry.file(resolve, reject)), entry.fullPath));
    else entries.push(...(await readFolder(entry)));
  }
  return files;
}

async function readFolder(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) {
    const chunk = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // at most 100 entries
    if (!chunk.length || entries.length >= MAX_FILES) return entries;
    entries.push(...chunk);
  }
}

/** The upload forms: images in batches, with the texts of their sidecar files; and what of these is left out. */
async function buildForms(files) {
  const { images, sidecars } = partition(insideOnlyFolder(files));
  const { texts, left } = await readTexts(sidecars, new Set(images.map(({ name }) => stem(name))));
  return { forms: splitIntoBatches(images).map((batch) => buildForm(batch, texts)), left };
}

/** By stem of the path. `left`: items for the report, of texts that are not sent. */
async function readTexts(sidecars, stems) {
  const texts = new Map();
  const left = [];
  for (const { file, name } of sidecars) {
    const { text, error } = await readText(file, stems.has(stem(name)), texts.has(stem(name)));
    if (error) left.push({ name, outcome: "refused", reason: "text", detail: error });
    else texts.set(stem(name), text.trim());
  }
  return { texts, left };
}

/** The text of a file, or an `error`. Guessing an encoding is left to the command line, which knows more of them. */
async function readText(file, hasImage, hasText) {
  if (!hasImage) return { error: "There is no image of this name." };
  if (hasText) return { error: "Another text file of the same image counts." };
  const tooLong = { error: `It has more than ${count(MAX_TEXT_CHARACTERS)} characters.` };
  // UTF-8 uses at most four bytes a character: a larger file is too long without reading it.
  if (file.size > 4 * MAX_TEXT_CHARACTERS) return tooLong;
  const bytes = new Uint8Array(await file.arrayBuffer());
  const encoding = { "255,254": "utf-16le", "254,255": "utf-16be" }[bytes.slice(0, 2)] ?? "utf-8";
  try {
    const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
    return text.length > MAX_TEXT_CHARACTERS ? tooLong : { text };
  } catch {
    return { error: "It is not UTF-8. Import the folder with `loratory datasets import`, which knows more encodings." };
  }
}

function buildForm(batch, texts) {
  const form = new FormData();
  const ofBatch = {};
  for (const { file, name } of batch) {
    form.append("files", file, name);
    if (texts.has(stem(name))) ofBatch[name] = texts.get(stem(name));
  }
  if (Object.keys(ofBatch).length) form.append("texts", JSON.stringify(ofBatch));
  return form;
}

/** Uploads one batch after the other; `onUpdate` receives {total, fraction, items, isBusy}. Stops at the first failure. */
async function importFiles(dataset, files, onUpdate) {
  const { forms, left } = await buildForms(files);
  const total = forms.reduce((sum, form) => sum + form.getAll("files").length, 0);
  const items = [];
  for (const form of forms) {
    const size = form.getAll("files").length;
    const report = (sent) => onUpdate({ total, fraction: (items.length + sent * size) / total, items: [...items], isBusy: true });
    report(0);
    items.push(...(await upload(url("datasets", dataset, "images"), form, report)).items);
  }
  onUpdate({ total, fraction: 1, items: [...items, ...left], isBusy: false });
}

/** An area that accepts dropped files; its children are part of the drop target. */
export const DropZone = ({ dataset, children }) => {
  const [isDragOver, setIsDragOver] = useState(false);
  const [currentImport, setCurrentImport] = useState(null);
  const { data: settings } = useResource(url("datasets", dataset, "text-settings"), (event) => concernsDataset(event, dataset));
  const dragDepth = useRef(0); // enter and leave events also come from nested elements

  const startImport = async (collectFiles) => {
    if (currentImport?.isBusy) return showToast("An import is still running. Wait until it is finished.");
    try {
      await importFiles(dataset, await collectFiles(), setCurrentImport);
    } catch (error) {
      setCurrentImport((state) => state && { ...state, isBusy: false, error: error.message });
      showToast(error.message, "error");
    }
    return undefined;
  };
  const changeDepth = (change) => (event) => {
    event.preventDefault();
    dragDepth.current += change;
    setIsDragOver(dragDepth.current > 0);
  };
  const drop = (event) => {
    event.preventDefault();
    dragDepth.current = 0;
    setIsDragOver(false);
    startImport(() => collectDroppedFiles(event.dataTransfer));
  };
  return html`
    <div class=${`dropzone ${isDragOver ? "over" : ""}`} onDragEnter=${changeDepth(1)} onDragLeave=${changeDepth(-1)}
      onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>
      <div class="dropbar">
        <span>Drop images or a folder here, or</span>
        <${FileChooser} label="Choose files" startImport=${startImport} />
        <${FileChooser} label="Choose a folder" folder startImport=${startImport} />
        <span class="muted">A <code>.txt</code> file with the name of an image becomes ${BECOMES[settings?.read_as ?? "auto"]}.</span>
      </div>
      ${currentImport && html`<${ImportReport} report=${currentImport} close=${() => setCurrentImport(null)} />`}
      ${children}
    </div>
  `;
};

const FileChooser = ({ label, startImport, folder = false }) => {
  const input = useRef(null);
  const handleChange = () => {
    const files = [...input.current.files].map((file) => withPath(file));
    input.current.value = "";
    if (files.length) startImport(() => files);
  };
  return html`
    <button onClick=${() => input.current.click()}>${label}</button>
    <input ref=${input} type="file" hidden multiple aria-label=${label} webkitdirectory=${folder} onChange=${handleChange} />
  `;
};

const ImportReport = ({ report, close }) => {
  const skipped = report.items.filter((item) => item.outcome === "refused");
  const conflicts = report.items.flatMap(({ name, conflicts = [] }) => conflicts.map((detail) => ({ name, detail })));
  const countOf = (outcome) => count(report.items.filter((item) => item.outcome === outcome).length);
  const texts = (kind) => report.items.filter((item) => item.text === kind).length;
  const title = report.isBusy ? `Importing ${plural(report.total, "file")}` : report.error ? "Import stopped" : "Import finished";
  return html`
    <section class="panel importing" aria-label="Import">
      <div class="row spread">
        <strong>${title}</strong>
        <span class="figures">
          ${countOf("added")} added · ${countOf("existing")} already in the data set · ${count(skipped.length)} skipped
          ${!report.isBusy && html` <button class="quiet" aria-label="Close" onClick=${close}>×</button>`}
        </span>
      </div>
      ${report.isBusy && html`<${ProgressBar} fraction=${report.fraction} label="Import" />`}
      ${report.error && html`<p class="bad">${report.error}</p>`}
      ${texts("tags") + texts("caption") > 0 && html`<p class="muted">${plural(texts("tags"), "text")} read as tags (which are not encrypted), ${count(texts("caption"))} as captions.</p>`}
      ${skipped.length > 0 && html`<${SkippedFiles} items=${skipped} />`}
      ${conflicts.length > 0 && html`<p>Not applied, because somebody decided otherwise:</p><${SkippedFiles} items=${conflicts} />`}
    </section>
  `;
};

export const SkippedFiles = ({ items }) => html`
  <ul class="skipped-files">
    ${items.map((item) => html`<li><b>${item.name}</b> ${item.reason && html`<code>${item.reason}</code> `}<span class="muted">${item.detail}</span></li>`)}
  </ul>
`;
