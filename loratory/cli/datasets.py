"""`loratory datasets …` and `loratory images …`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from contracts.errors import LoratoryError, NotFound, SetupError, Unavailable
from contracts.events.base import ReadAs
from contracts.wording import count, size_of
from loratory.api.datasets import TagsOfMany
from loratory.cli.options import DEFAULT_SERVER, NOW, Flag, Id, NameOrId, PointInTime, Server, Text
from loratory.cli.output import write_json, write_line, write_lines, write_sections, write_table
from loratory.cli.views import (
    dataset_sections,
    image_change,
    image_sections,
    preview_sections,
    text_settings_sections,
    texts_sections,
)
from loratory.client import AsyncClient
from loratory.export import ExportFormat, ExportOptions, TagWords
from loratory.folders.result import ScanResult
from loratory.follow import ProgressWriter, format_import
from loratory.image_files import is_archive, scan_archive, scan_files, scan_folder
from loratory.import_plan import PLAN_COLUMNS, plan_rows
from loratory.responses import ImportSummary


async def create(name: str, /, *, description: str = "", server: Server = DEFAULT_SERVER) -> None:
    """Create a data set.

    :param name: Its name.
    :param description: A short description.
    """
    async with server.client() as client:
        result = await client.create_dataset(name, description)
    write_json(result) if server.json else write_line(result.id)


async def ls(*, server: Server = DEFAULT_SERVER) -> None:
    """List data sets."""
    async with server.client() as client:
        views = await client.datasets()
    rows = [(view.name, view.images, view.tagged, view.captioned, view.latest_version, view.id) for view in views]
    write_json(views) if server.json else write_table(("Name", "Images", "Tagged", "Captioned", "Version", "Id"), rows)


async def show(dataset: NameOrId, /, *, at: PointInTime = NOW, server: Server = DEFAULT_SERVER) -> None:
    """Show one data set, now or in the past."""
    async with server.client() as client:
        view = await client.dataset(dataset, **at.query)
    write_json(view) if server.json else write_sections(dataset_sections(view))


async def freeze(dataset: NameOrId, /, *, trigger: str | None = None, server: Server = DEFAULT_SERVER) -> None:
    """Freeze a version of a data set, as it is now; the latest one if nothing has changed since.

    :param trigger: The word that calls the trained concept; that of the data set if not given, "" for none.
    """
    async with server.client() as client:
        result = await client.freeze(dataset, trigger)
    write_json(result) if server.json else write_line(f"{result.version}")


async def text_settings(  # noqa: PLR0913 - the options of a command
    dataset: NameOrId,
    /,
    *,
    trigger: str | None = None,
    template: int | None = None,
    words: TagWords | None = None,
    keep: list[str] | None = None,
    escape: bool | None = None,
    separator: Text = None,
    texts: ReadAs | None = None,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show how the training texts of a data set are written and imported texts are read, or change it.

    :param trigger: Of versions and jobs that have none of their own; "" for none.
    :param template: 1 (trigger, then the caption, or the tags where there is none), 2 (trigger, tags, caption), or 3
        (trigger, caption, tags).
    :param words: spaces or underscores, in tags of several words.
    :param keep: A regular expression of tags that keep their underscores, such as score_.+; several times for more.
    :param escape: Write parentheses in tags as in prompts, or not.
    :param separator: Between two tags.
    :param texts: What the texts of later imports are that do not say it: `tags`, which are not encrypted, `caption`, or
        `auto` where each one is read by a rule. Texts that are there are read again by `datasets read-texts`.
    """
    style = {"words": words, "keep": None if keep is None else tuple(keep), "escape": escape, "separator": separator}
    changes = {name: value for name, value in style.items() if value is not None}
    async with server.client() as client:
        view = await client.text_settings(dataset)
        if changes or any(value is not None for value in (trigger, template, texts)):
            await client.set_text_settings(
                dataset,
                trigger=view.trigger if trigger is None else trigger,
                template=view.template if template is None else template,
                style=msgspec.structs.replace(view.style, **changes),
                read_as=texts or view.read_as,
            )
            before, view = view, await client.text_settings(dataset)
            if view.read_as != before.read_as:
                again = f"`loratory datasets read-texts {view.dataset} --as {view.read_as}` reads them again"
                ProgressWriter(sys.stderr).line(f"Texts that are there stay as they were read; {again}.")
    write_json(view) if server.json else write_sections(text_settings_sections(view))


async def versions(dataset: NameOrId, /, *, server: Server = DEFAULT_SERVER) -> None:
    """List the versions of a data set, oldest first."""
    async with server.client() as client:
        views = await client.versions(dataset)
    rows = [
        (view.version, view.images, view.erased or None, view.trigger, view.created_at, view.captions_lost or None)
        for view in views
    ]
    headings = ("Version", "Images", "Erased", "Trigger", "Frozen", "Captions lost")
    write_json(views) if server.json else write_table(headings, rows)


async def diff(dataset: NameOrId, since: int, version: int, /, *, server: Server = DEFAULT_SERVER) -> None:
    """Show which images were added, removed or changed in a version since another one.

    :param since: The number of the earlier version.
    :param version: The number of the later version.
    """
    async with server.client() as client:
        changes = await client.version_diff(dataset, version, since)
    rows = [(change.ordinal, change.change, image_change(change), change.image) for change in changes]
    write_json(changes) if server.json else write_table(("Image", "Change", "Tags and caption", "Id"), rows)


async def edit(  # noqa: PLR0913 - the options of a command
    dataset: NameOrId,
    /,
    *,
    filter: Text = None,
    add: list[str] | None = None,
    remove: list[str] | None = None,
    withdraw: list[str] | None = None,
    dry_run: bool = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Edit the tags of all images of a data set, or of those that a filter selects; nothing else may change meanwhile.

    :param filter: Only those that this selects, such as '1girl -solo untagged'.
    :param add: A tag to add; several times for more.
    :param remove: A tag to remove, so that no model adds it again.
    :param withdraw: A tag to leave to the models again.
    :param dry_run: Only print what would change.
    """
    tags: TagsOfMany = {"add": add or (), "remove": remove or (), "withdraw": withdraw or (), "filter": filter}
    async with server.client() as client:
        preview = await client.preview_edit(dataset, **tags)
        if dry_run:
            write_json(preview) if server.json else write_sections(preview_sections(preview))
            return
        result = await client.edit_many(dataset, as_of=preview.as_of, **tags)
    write_json(result) if server.json else write_line(f"{result.images} of {result.selected} images changed")


async def repeats(dataset: NameOrId, number: int, /, *, filter: Text = None, server: Server = DEFAULT_SERVER) -> None:
    """Set how often the images of a data set, or those that a filter selects, are seen in an epoch.

    :param number: 1 to 10000; the repeats of a recipe multiply it.
    :param filter: Only those that this selects, such as '1girl -solo untagged'.
    """
    async with server.client() as client:
        result = await client.set_repeats(dataset, number, filter=filter)
    write_json(result) if server.json else write_line(f"repeats of {count(result.images, 'image')} changed")


async def read_texts(
    dataset: NameOrId,
    /,
    *,
    as_: Annotated[ReadAs, Parameter(name="--as")],
    filter: Text = None,
    dry_run: Annotated[bool, Flag] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Read the texts that came with the images of a data set another way; what persons decided since stays.

    :param as_: What the texts are: `tags`, which are not encrypted, `caption`, or `auto` where each one is read by a
        rule (docs/texts.md).
    :param filter: Only those of images that this selects, such as '1girl -solo untagged'.
    :param dry_run: Only print how many would become what.
    """
    async with server.client() as client:
        if dry_run:
            preview = await client.preview_texts(dataset, as_, filter=filter)
            write_json(preview) if server.json else write_sections(
                texts_sections(preview.counts, preview.new_tags, dry_run=True)
            )
            return
        result = await client.read_texts(dataset, as_, filter=filter)
    write_json(result) if server.json else write_sections(texts_sections(result.counts))


async def ls_images(
    dataset: NameOrId,
    /,
    *,
    filter: Text = None,
    sort: Text = None,
    at: PointInTime = NOW,
    server: Server = DEFAULT_SERVER,
) -> None:
    """List the images of a data set, now or in the past: then all of them, in the order of import.

    :param filter: Only those that this selects, such as '1girl -solo caption:"red" aspect>1.5 untagged'.
    :param sort: added, name, size, changed, tags or conf:TAG; with a minus before it: descending.
    """
    async with server.client() as client:
        views = await client.images(dataset, filter=filter, sort=sort, **at.query)
    rows = [(view.name, f"{view.width} x {view.height}", len(view.tags), view.caption, view.id) for view in views]
    write_json(views) if server.json else write_table(("Name", "Size", "Tags", "Caption", "Id"), rows)


async def show_image(image: Id, /, *, at: PointInTime = NOW, server: Server = DEFAULT_SERVER) -> None:
    """Show one image with its tags and its caption, now or in the past."""
    async with server.client() as client:
        view = await client.image(image, **at.query)
    write_json(view) if server.json else write_sections(image_sections(view))


async def import_(  # noqa: PLR0913 - options of a command
    dataset: str,
    paths: list[Path],
    /,
    *,
    texts: ReadAs | None = None,
    encoding: str | None = None,
    dry_run: bool = False,
    server: Server = DEFAULT_SERVER,
) -> int:
    """Import a folder, a zip file or files, with the texts and masks beside each image.

    Also folders of kohya's trainers (repeats, class tokens, JSON, TOML), imagefolders (metadata.jsonl or .csv), JSON
    files beside images, and exports of Loratory.

    :param dataset: Name or id; created if no data set has this name.
    :param paths: A folder, a zip file, or files.
    :param texts: What the texts are: `tags`, which are not encrypted, `caption`, or `auto` where each one is read by a
        rule (docs/texts.md). Default: as the text settings of the data set say.
    :param encoding: Of the texts, such as cp1252 or cp932 (Shift-JIS), where it is not found by itself.
    :param dry_run: Only show what each file would become.
    """
    # Scanned first: a folder that does not exist must not leave an empty data set behind.
    scan = await asyncio.to_thread(_scan, paths, encoding)
    if dry_run:
        rows = plan_rows(scan, texts or await _planned_reading(server, dataset))
        write_json(rows) if server.json else write_table(PLAN_COLUMNS, rows)
        if not server.json:
            write_lines(scan.notes)
        return 0
    async with server.client() as client:
        result = await _import(client, dataset, scan, texts, ProgressWriter(sys.stderr))
    write_json(result) if server.json else write_lines(format_import(result))
    if result.files and len(result.of("refused")) == len(result.files):
        raise LoratoryError("all files were skipped")
    return 0


async def _planned_reading(server: Server, dataset: str) -> ReadAs:
    """As the text settings say, if the data set exists. It is said if that cannot be known."""
    try:
        async with server.client() as client:
            return (await client.text_settings(dataset)).read_as
    except NotFound:
        return "auto"
    except Unavailable as error:
        ProgressWriter(sys.stderr).line(f"Texts are shown as the rule reads them: {error.detail}")
        return "auto"


def _scan(paths: list[Path], encoding: str | None) -> ScanResult:
    if not paths:
        raise SetupError("name a folder, a zip file or files to import")
    if len(paths) > 1:
        if any(path.is_dir() or is_archive(path) for path in paths):
            raise SetupError("import one folder or zip file at a time, or files")
        return scan_files(paths, encoding)
    if is_archive(paths[0]):
        return scan_archive(paths[0], encoding)
    return scan_files(paths, encoding) if paths[0].is_file() else scan_folder(paths[0], encoding)


async def _import(
    client: AsyncClient, dataset: str, scan: ScanResult, texts: ReadAs | None, writer: ProgressWriter
) -> ImportSummary:
    await client.ensure_dataset(dataset)
    return await client.import_scanned(
        dataset, scan, read_as=texts, on_progress=lambda done, total: writer.progress(f"sent {done}/{total}")
    )


async def export(  # noqa: PLR0913 - the options of a command
    dataset: NameOrId,
    /,
    *,
    to: Path = Path(),
    version: int | None = None,
    format: ExportFormat = "kohya",
    filter: Text = None,
    repeats: int | None = None,
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    trigger: str | None = None,
    exclude: list[str] | None = None,
    replace: list[str] | None = None,
    escape: bool | None = None,
    separator: Text = None,
    words: TagWords | None = None,
    force: Annotated[bool, Flag] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Export a data set, as it is now or as a version froze it, for other programs.

    :param to: The file to write, or a folder to write it in.
    :param version: The number of a version.
    :param format: kohya (a folder N_class with .txt files, and dataset.toml), flat, imagefolder, or manifest.
    :param filter: Only images that this selects, such as '1girl -solo untagged'.
    :param repeats: kohya's N.
    :param class_: kohya's class; the name of the data set if not given.
    :param trigger: Of each text; that of the version or the data set if not given.
    :param exclude: A tag to leave out; several times for more.
    :param replace: OLD=NEW: a tag to write instead of another; several times for more.
    :param escape: Write parentheses in tags as in prompts, or not; as in the text settings if not given.
    :param separator: Between two tags; that of the text settings if not given.
    :param words: spaces or underscores, in tags of several words; as in the text settings if not given.
    :param force: Replace an existing file.
    """
    options: ExportOptions = {
        "format": format,
        "filter": filter,
        "repeats": repeats,
        "class_tokens": class_,
        "trigger": trigger,
        "exclude": exclude or (),
        "replace": replace or (),
        "escape": escape,
        "separator": separator,
        "words": words,
    }
    writer = ProgressWriter(sys.stderr)
    async with server.client() as client:
        saved = await client.export(
            dataset,
            to,
            version=version,
            force=force,
            on_progress=lambda received: writer.progress(f"received {size_of(received)}"),
            **options,
        )
    write_json(saved) if server.json else write_line(f"{saved.path}  {size_of(saved.size)}")
