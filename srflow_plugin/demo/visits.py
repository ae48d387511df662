"""Pictures of a visitor of the page: files of their own, which no other visitor is shown."""

from __future__ import annotations

import secrets
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

from srflow_plugin.demo.pictures import check_room, new_folder
from srflow_plugin.demo.session import Answer
from srflow_plugin.images.photographs import Photograph
from srflow_plugin.images.writing import write_photograph


class Shown(NamedTuple):
    """Answer that a visitor sees, as files in a folder that nothing else is in.

    Attributes:
        network: its name.
        pictures: by title, as they are: 16 bit, transparent, with their colour profile.
        archive: all of them.
    """

    folder: Path
    network: str
    lq: Path
    pictures: dict[str, Path]
    archive: Path


class Edit(NamedTuple):
    """Picture that a visitor draws again, as files in a folder that nothing else is in.

    Attributes:
        network: its name.
        lq: LR image of the picture; None: its bicubic downscale.
        versions: of the picture, the newest last; never empty.
    """

    folder: Path
    network: str
    lq: Path | None
    versions: tuple[Path, ...]

    @property
    def now(self) -> Path:
        """Picture as it is now."""
        return self.versions[-1]

    @property
    def before(self) -> Path:
        """Picture as it was before the last change."""
        return self.versions[max(0, len(self.versions) - 2)]

    @property
    def is_newest(self) -> bool:
        """Say whether no other call has changed or undone it meanwhile."""
        return {*self.folder.glob("picture_*.png")} == {*self.versions}

    def changed(self, picture: Photograph) -> Edit:
        """Add a version."""
        check_room(self.folder.parent)
        path = self.folder / f"picture_{len(self.versions)}_{secrets.token_hex(4)}.png"
        write_photograph(path, picture)
        return self._replace(versions=(*self.versions, path))

    def undone(self) -> Edit:
        """Take the newest version away, if it is not the only one."""
        if len(self.versions) > 1:
            self.now.unlink(missing_ok=True)
        return self._replace(versions=self.versions[:-1] or self.versions)


def keep(answer: Answer, network: str, parent: Path) -> Shown:
    """Write the pictures of an answer, and a zip of them."""
    folder = new_folder(parent)
    pictures = {title: folder / f"{title.replace(' ', '_')}.png" for title, _ in answer.pictures}
    for title, photograph in answer.pictures:
        write_photograph(pictures[title], photograph)
    shown = Shown(folder, network, folder / "lq.png", pictures, folder / "srflow.zip")
    write_photograph(shown.lq, answer.lq)
    with zipfile.ZipFile(shown.archive, "w") as zipped:
        for path in pictures.values():
            zipped.write(path, path.name)
    return shown


def begin(picture: Path, lq: Path | None, network: str, parent: Path) -> Edit:
    """Copy a picture that is to be drawn again, and its LR image."""
    folder = new_folder(parent)
    first = Path(shutil.copy(picture, folder / "picture_0.png"))
    return Edit(folder, network, Path(shutil.copy(lq, folder / "lq.png")) if lq else None, (first,))


def forget(visit: Shown | Edit | None) -> None:
    """Delete the files of a visitor who has left, or has something else by now."""
    if visit is not None:
        shutil.rmtree(visit.folder, ignore_errors=True)
