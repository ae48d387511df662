"""Images by whatever a user names: a folder, an archive or a folder in one, one of the field's data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srflow_plugin.data.archives import ARCHIVE_SUFFIXES, archive_stem, split_archive, unpack
from srflow_plugin.data.known_sets import KNOWN_SETS, KnownSet, fetch
from srflow_plugin.errors import UserError, counted
from srflow_plugin.images.files import by_ending, find_images, is_image_file
from srflow_plugin.progress import tell


def known_sets_of(sources: Sequence[str]) -> list[KnownSet]:
    """List the data sets that are named, not those whose names are those of files or folders."""
    return [part for source in sources if not Path(source).exists() for part in KNOWN_SETS.get(source, [])]


def images_of(source: str, downloads: Path) -> list[Path]:
    """List the images of a source, which is unpacked and fetched as need be."""
    path = Path(source)
    if path.is_dir():
        images = find_images(path)
        _tell_left_out(path)
        return images
    archive = split_archive(path)
    if archive is not None:
        file, folder = archive
        return find_images(unpack(file, folder, downloads / archive_stem(file.name) / (folder or "images")))
    if source in KNOWN_SETS:
        return [image for part in KNOWN_SETS[source] for image in fetch(part, downloads)]
    raise UserError(
        f"{source} is no folder, archive ({', '.join(ARCHIVE_SUFFIXES)}) or known data set ({', '.join(KNOWN_SETS)})"
    )


def _tell_left_out(folder: Path) -> None:
    """Count what lies in a folder and is not taken."""
    others = [path for path in folder.iterdir() if not path.name.startswith(".") and not is_image_file(path)]
    if others:
        told = f"{counted(len(others), 'file')} left out, no images that training reads ({by_ending(others)})"
        tell(f"{folder}: {told}")


def agreed(setting: str, known: Sequence[KnownSet], default: Any) -> Any:
    """Look up a setting that data sets are prepared with, if it is the same for all."""
    values = {getattr(part, setting) for part in known}
    if len(values) > 1:
        option = {"border": "--border", "center_crop": "--center-crop", "kind": "--format"}[setting]
        raise UserError(f"these data sets are not prepared alike; say {option}, or prepare them one by one")
    return values.pop() if values else default
