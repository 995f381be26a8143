// Which files are uploaded together. Pure.

const MAX_BATCH_FILES = 32; // one command of the catalog
const MAX_BATCH_BYTES = 256 * 1024 * 1024; // keeps batches small enough for the progress bar to move
const SIDECAR = /\.(txt|caption)$/i; // holds the caption of the image with the same name

export const stem = (name) => name.replace(/\.[^./]+$/, "");

/** Named from inside the folder in which all of them are, as the command line names the files of a folder. */
export function insideOnlyFolder(files) {
  const top = files[0]?.name.split("/", 1)[0];
  if (!files.length || !files.every(({ name }) => name.startsWith(`${top}/`))) return files;
  return files.map(({ file, name }) => ({ file, name: name.slice(top.length + 1) }));
}

/** Images and sidecar files; hidden files (`.DS_Store`) are left out. */
export function partition(files) {
  const visible = files.filter(({ file }) => !file.name.startsWith("."));
  return {
    images: visible.filter(({ name }) => !SIDECAR.test(name)),
    sidecars: visible.filter(({ name }) => SIDECAR.test(name)),
  };
}

export function splitIntoBatches(images) {
  const batches = [];
  let batchBytes = 0;
  for (const image of images) {
    const { size } = image.file;
    if (!batches.length || batches.at(-1).length >= MAX_BATCH_FILES || batchBytes + size > MAX_BATCH_BYTES) {
      batches.push([]);
      batchBytes = 0;
    }
    batches.at(-1).push(image);
    batchBytes += size;
  }
  return batches;
}
