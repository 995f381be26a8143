"""`loratory datasets write-texts`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from contracts.wording import count
from loratory.cli.options import DEFAULT_SERVER, Flag, NameOrId, Server, Text
from loratory.cli.output import write_json, write_lines
from loratory.export import TagWords
from loratory.text_files import TextSuffix
from loratory.write_texts import WritingOptions, WrittenTexts


async def write_texts(  # noqa: PLR0913 - the options of a command
    dataset: NameOrId,
    folder: Path,
    /,
    *,
    extension: TextSuffix = ".txt",
    filter: Text = None,
    escape: Annotated[bool, Flag] = False,
    separator: Text = None,
    words: TagWords = "spaces",
    encoding: str | None = None,
    dry_run: Annotated[bool, Flag] = False,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Write the texts of a data set, without trigger, beside the pictures of a folder that it was imported from.

    A text file that was changed since it was imported is left as it is, and named.

    :param folder: The folder; its pictures are found by their name and their bytes.
    :param extension: Of new text files: .txt or .caption. Where a picture has one, that is written.
    :param filter: Only images that this selects, such as '1girl -solo untagged'.
    :param escape: Write parentheses in tags as in prompts.
    :param separator: Between two tags; a comma and a space if not given.
    :param words: spaces or underscores, in tags of several words.
    :param encoding: Of the present text files, such as cp1252 or cp932 (Shift-JIS), where it is not found by itself.
    :param dry_run: Only show which files would be written.
    """
    options: WritingOptions = {
        "extension": extension,
        "filter": filter,
        "escape": escape,
        "separator": separator,
        "words": words,
        "encoding": encoding,
        "dry_run": dry_run,
    }
    async with server.client() as client:
        result = await client.write_texts(dataset, folder, **options)
    write_json(result) if server.json else write_lines(format_written(result, dry_run=dry_run))


def format_written(result: WrittenTexts, *, dry_run: bool = False) -> Iterator[str]:
    """Counts, in a dry run the files, and each text that was not written with its reason."""
    would = " would be" if dry_run else ""
    line = f"{count(len(result.written), 'text')}{would} written, {result.unchanged} unchanged, {len(result.left)} left"
    elsewhere = f", {count(result.elsewhere, 'image')} of other folders" if result.elsewhere else ""
    yield line + elsewhere
    if dry_run:
        yield from (f"  {path}" for path in sorted(text.file for text in result.written.values()))
    if result.left:
        yield "Not written:"
        yield from (f"  {name}: {reason}" for name, reason in result.left)
