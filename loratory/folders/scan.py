"""Puts together what the layouts of a folder say about each of its pictures."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from contracts.ids import Digest
from contracts.texts import MAX_CAPTION_CHARACTERS
from contracts.texts.reading import read_text
from contracts.wording import count
from loratory.folders.files import CHUNK_BYTES, File, Listing, Source, read_lines
from loratory.folders.kohya_folders import Subset
from loratory.folders.manifest import (
    MAX_LINE_BYTES,
    Line,
    Manifest,
    exported_repeats,
    exported_texts,
    read_manifest,
    read_summary,
)
from loratory.folders.masks import MASKS, parse_label, reason_for_label
from loratory.folders.metadata import Metadata
from loratory.folders.names import TEXT_SUFFIXES, form_name, is_hidden, is_image_name, reason_for_other
from loratory.folders.places import HERE, Pictures, normalize
from loratory.folders.reading import Reading, reason_of
from loratory.folders.result import LINK_OUTSIDE, ImageFile, ScanResult
from loratory.folders.sidecars import Sidecars
from loratory.folders.subsets import find_subsets
from loratory.folders.texts import Texts

MAX_IMAGE_BYTES = 64 << 20
"""Maximum size of one image or mask; the server refuses larger ones."""
EXPORT_SUMMARY = "export.json"
MAX_SUMMARY_BYTES = 128 << 20
PLAIN = Subset()


def scan(listing: Listing, encoding: str | None = None) -> ScanResult:
    """The pictures of a listing, and every other file with a reason. `encoding`: of the texts; none: it is found."""
    return _Scanner(Reading(listing), encoding).run()


def digest_of(source: Source) -> Digest:
    """The sha256 of a file. OSError."""
    digest = hashlib.sha256()
    with source.open() as reader:
        while chunk := reader.read(CHUNK_BYTES):
            digest.update(chunk)
    return Digest(digest.hexdigest())


@dataclass
class _Scanner:
    """`captioned`: by folder, how many images have its class tokens as their caption."""

    reading: Reading
    encoding: str | None
    pictures: list[File] = field(default_factory=list)
    masks: dict[PurePosixPath, File] = field(default_factory=dict)
    subsets: dict[PurePosixPath, Subset] = field(default_factory=dict)
    manifests: list[Manifest] = field(default_factory=list)
    captioned: Counter[PurePosixPath] = field(default_factory=Counter)

    def run(self) -> ScanResult:
        self._sort()
        places, stems = [file.place for file in self.pictures], {file.stem for file in self.pictures}
        self.subsets = find_subsets(self.reading, places)
        self._read_summary()
        self._read_manifests()
        self.metadata = Metadata(self.reading, Pictures(places), self.encoding)
        self.metadata.read(stems, [normalize(one.metadata_file or "").name for one in self.subsets.values()])
        extensions = [one.caption_extension for one in self.subsets.values() if one.caption_extension]
        self.sidecars = Sidecars(self.reading.unused(), extensions, self.encoding, self.reading.found.unreadable)
        for file in self.pictures:
            self._add(file)
        self._describe_subsets()
        self._name_others(stems)
        return self.reading.found

    def _sort(self) -> None:
        for file in self.reading.listing.files:
            label = parse_label(file.place)
            if label is not None and label[0] == "mask":
                self.masks[label[1]] = file
            elif label is None and is_image_name(file.place.name) and not is_hidden(file) and file.is_named:
                self.pictures.append(file)

    def _read_summary(self) -> None:
        """That of an export of ours."""
        for file in self.reading.unused_at_root(".json"):
            if file.place.name != EXPORT_SUMMARY:
                continue
            summary = self.reading.parse(file, MAX_SUMMARY_BYTES, read_summary)
            if summary is not None:
                trigger, manifest = summary
                self.reading.used.add(file.place)
                self.manifests.append(manifest)
                if trigger and not manifest.by_file:
                    note = f"its texts were exported with the trigger {trigger!r} in front of them"
                    self.reading.found.notes.append(f"{file.name}: {note}")

    def _read_manifests(self) -> None:
        for file in self.reading.unused_at_root(".jsonl"):
            try:
                manifest = read_manifest(read_lines(file, MAX_LINE_BYTES))
            except OSError as error:
                self.reading.refuse(file, reason_of(error))
                continue
            if manifest is not None:
                self.reading.used.add(file.place)
                self.manifests.append(manifest)

    def _add(self, file: File) -> None:
        subset = self.subsets.get(file.place.parent, PLAIN)
        beside = self.sidecars.of(file, subset.caption_extension)
        self.reading.used |= {file.place, *(one.place for one in beside)}
        reason = _objection(file, subset)
        if reason is not None:
            self.reading.found.unreadable.append((file.name, reason))
            return
        digest = self._digest(file)
        lines = (manifest.find(file.place, digest) for manifest in self.manifests)
        line = next((one for one in lines if one is not None), None)
        image = ImageFile(
            source=file.source,
            name=form_name((line.name if line is not None else "") or file.name),
            texts=self._texts(file, subset, beside, line),
            repeats=self._repeats(file, line),
            mask=self._mask(file),
            digest=digest,
        )
        self.reading.found.images.append(image)

    def _repeats(self, file: File, line: Line | None) -> int | None:
        subset = self.subsets.get(file.place.parent)
        if line is not None:
            return exported_repeats(line, subset)
        return None if subset is None else subset.repeats

    def _digest(self, file: File) -> Digest | None:
        """Only needed where a manifest names no files. What cannot be read is named when it is to be sent."""
        try:
            return digest_of(file.source) if any(one.by_digest for one in self.manifests) else None
        except OSError:
            return None

    def _texts(self, file: File, subset: Subset, beside: list[File], line: Line | None) -> Texts:
        """By the first that has one: the manifest of an unchanged text, metadata, the file beside it, its folder."""
        known = self.metadata.texts.get(file.place)
        own = self.sidecars.read(file, beside)
        if known is not None and own and not _repeats(own, known[1]):
            self.reading.found.unreadable.append((beside[0].name, f"{known[0]} has another text of {file.name}"))
        texts = known[1] if known is not None else own
        exported = None if line is None else exported_texts(line, texts)
        if exported is not None:
            return exported
        if not texts and subset.class_tokens:
            self.captioned[file.place.parent] += 1
            return Texts(caption=subset.class_tokens)
        return texts or Texts()

    def _mask(self, file: File) -> Source | None:
        mask = self.masks.get(file.stem) or self.masks.get(MASKS / file.stem)
        if mask is None:
            return None
        self.reading.used.add(mask.place)
        if mask.source.size > MAX_IMAGE_BYTES:
            self.reading.found.unreadable.append((mask.name, f"it is larger than {MAX_IMAGE_BYTES >> 20} MiB"))
            return None
        return mask.source

    def _describe_subsets(self) -> None:
        for folder, subset in self.subsets.items():
            if subset.is_reg:
                continue
            what = f"each image counts {subset.repeats} times" if subset.repeats > 1 else "each image counts once"
            if named := self.captioned[folder]:
                what += f"; {subset.class_tokens!r} is the caption of {count(named, 'image')} without a text"
            place = self.reading.listing.root if folder == HERE else folder
            self.reading.found.notes.append(f"{place}/: {what}")

    def _name_others(self, stems: set[PurePosixPath]) -> None:
        found, listing = self.reading.found, self.reading.listing
        found.others += listing.others
        for name in listing.links:
            if is_image_name(name):
                found.links.append(name)
            else:
                self._name(name, LINK_OUTSIDE)
        for name, reason in listing.bad:
            self._name(name, reason)
        for file in self.reading.unused():
            label_reason = reason_for_label(file.place)
            if not file.is_named:
                continue
            if label_reason is not None:
                found.unreadable.append((file.name, label_reason))
            elif self.sidecars.is_text(file) and file.stem not in stems and not is_hidden(file):
                found.unmatched.append(file.name)
            else:
                found.others.append((file.name, reason_for_other(file)))

    def _name(self, name: str, reason: str) -> None:
        """Of what cannot be read: a picture or a text is missed, another file is not."""
        is_missed = is_image_name(name) or name.lower().endswith(TEXT_SUFFIXES)
        (self.reading.found.unreadable if is_missed else self.reading.found.others).append((name, reason))


def _objection(file: File, subset: Subset) -> str | None:
    """Why a picture is left out."""
    if subset.is_reg:
        return "it is a regularisation image (is_reg), which is not trained on"
    return f"it is larger than {MAX_IMAGE_BYTES >> 20} MiB" if file.source.size > MAX_IMAGE_BYTES else None


def _repeats(own: Texts, other: Texts) -> bool:
    """Says a text file the same as metadata, which are often made from it?"""
    text = own.text or own.caption
    if text is None:
        return own.tags == other.tags
    tags = read_text(text, "tags").tags
    return text in {other.text, other.caption} or tags in {other.tags, read_text(_joined(other), "tags").tags}


def _joined(texts: Texts) -> str:
    return ", ".join([texts.text or texts.caption or "", *texts.tags])[:MAX_CAPTION_CHARACTERS]
