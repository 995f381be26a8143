"""Which folders are kohya's, by its dataset configuration or by their names."""

from collections.abc import Collection
from pathlib import PurePosixPath

from loratory.folders import kohya_config, kohya_folders
from loratory.folders.kohya_folders import Subset
from loratory.folders.reading import Reading


def find_subsets(reading: Reading, places: Collection[PurePosixPath]) -> dict[PurePosixPath, Subset]:
    """By folder. Where there is a configuration, the names of folders mean nothing."""
    subsets: dict[PurePosixPath, Subset] | None = None
    for file in reading.unused_at_root(".toml"):
        config = reading.parse(file, kohya_config.MAX_CONFIG_BYTES, kohya_config.parse_config)
        if config is None:
            continue
        reading.used.add(file.place)
        if subsets is not None:
            reading.found.others.append((file.name, "there is another dataset configuration, which counts"))
            continue
        subsets, notes = kohya_config.find_subsets(config, {place.parent for place in places})
        reading.found.notes += [f"{file.name}: {note}" for note in notes]
    if subsets is None:
        subsets, notes = kohya_folders.find_subsets(reading.listing.root, places)
        reading.found.notes += notes
    return subsets
