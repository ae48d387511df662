"""Many image files, super-resolved into other files: what is read, what is written, nothing lost. Needs no torch."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from srflow_plugin.errors import UserError
from srflow_plugin.files import folder_made
from srflow_plugin.images.files import IMAGE_SUFFIXES, find_images, read_stamp, write_image
from srflow_plugin.images.photographs import Photograph, write_png
from srflow_plugin.images.pictures import contact_sheet, heat_map, spread
from srflow_plugin.progress import tell, with_progress
from srflow_plugin.shares import in_shares, this_launch, this_process

Outputs = dict[str, Path]  # by kind: sample0, sample1, ..., mean, std, sheet
FAULTS = (UserError, OSError, RuntimeError, MemoryError)  # of one image; the others are drawn


class Job(NamedTuple):
    """An image to read, and the files to write for it.

    Attributes:
        stamp: what the files are made with, as they say themselves: a digest of settings and source; of files that
            replace others also one of the launch, in which each is to be drawn once.
    """

    source: Path
    outputs: Outputs
    stamp: str

    @property
    def is_done(self) -> bool:
        """Say whether all files are there, made so."""
        return all((read_stamp(file) or "").startswith(self.stamp) for file in self.outputs.values())


def plan(
    names: Sequence[str],
    output: Path,
    num_samples: int,
    extras: Sequence[str],
    overwrite: bool,
    settings: dict[str, Any],
) -> list[Job]:
    """Find the images, name the files, and check that all can be written and nothing is lost.

    Files in a folder that were made with the same settings from the same images are no hindrance: they are done.

    Args:
        names: images, folders of them, and patterns.
        output: a folder, or a .png file for one sample of one image.
        num_samples: for each image.
        extras: of "mean", "std" and "sheet", those that are written, too.
        overwrite: files may be replaced, but for the images themselves.
        settings: whatever else changes the pictures.

    Raises:
        UserError: before any work.
    """
    is_file = output.suffix.lower() in IMAGE_SUFFIXES
    sources = find_inputs(names)
    if is_file:
        if output.suffix.lower() != ".png":
            raise UserError(f"{output} must end in .png, or be a folder")
        if len(sources) > 1 or num_samples > 1 or extras:
            raise UserError(f"{output} is one file; name a folder with -o for several")
        if not output.parent.is_dir():
            raise UserError(f"{output.parent} is not a folder; make it first")
        sources = sources[: 1 if this_process().rank == 0 else 0]
        outputs = [{"sample0": output} for _ in sources]
    else:
        if output.exists() and not output.is_dir():
            raise UserError(f"{output} is not a folder")
        outputs = [_outputs(source, output, num_samples, extras) for source in sources]
    launch = f" {_digest(this_launch())}" if overwrite else ""
    stamps = [_fingerprint(source, num_samples, settings) + launch for source in sources]
    jobs = [Job(*job) for job in zip(sources, outputs, stamps, strict=True)]
    _check_outputs(jobs, overwrite, may_be_done=not is_file)
    return jobs


def do_jobs(jobs: Sequence[Job], do: Callable[[Job], None], folder: Path) -> tuple[list[Path], int]:
    """Do the jobs that are not done, shared with all processes that do the same.

    An image that cannot be read or drawn is named, and the others are done; alone it raises.

    Args:
        jobs: from :func:`plan`.
        do: draws and writes one.
        folder: where the files go; made if missing.

    Returns:
        The files that this process wrote, and how many images it could not do.
    """
    here, is_alone = this_process(), len(jobs) == 1
    own = -(-sum(not job.is_done for job in jobs) // here.size)
    written: list[Path] = []
    failed = 0
    with folder_made(folder), closing(in_shares(jobs, _name, lambda job: job.is_done, folder)) as shared:
        for job in with_progress(shared, "image", disable=is_alone or here.rank > 0, total=own):
            try:
                do(job)
            except FAULTS as error:
                if is_alone:
                    raise
                told = str(error).strip().partition("\n")[0]
                tell(told if str(job.source) in told else f"{job.source} cannot be drawn: {told}")
                failed += 1
            else:
                written += job.outputs.values()
    return written, failed


def find_inputs(names: Sequence[str]) -> list[Path]:
    """List the files that names mean, in order, each once."""
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            images = find_images(path)
        elif path.exists() or not glob.has_magic(name):
            images = [path]
        else:
            images = sorted(
                Path(match)
                for match in glob.glob(name, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute patterns)
                if Path(match).is_file()
            )
            if not images:
                raise UserError(f"no file matches {name}")
        found.update(dict.fromkeys(images))
    for path in found:
        if not path.exists():
            raise UserError(f"{path} does not exist; correct the path")
    return list(found)


def write_outputs(
    outputs: Outputs,
    photograph: Photograph,
    enlarge: Callable[[Photograph], Photograph],
    samples: Sequence[Photograph],
    title: str,
    stamp: str | None = None,
) -> None:
    """Write the samples of a photograph, and what else was asked for.

    Args:
        outputs: files by kind.
        photograph: the LR image, for the sheet.
        enlarge: makes its bicubic enlargement.
        samples: of it.
        title: what they were drawn with, for the sheet.
        stamp: of the files.
    """
    for number, sample in enumerate(samples):
        write_png(outputs[f"sample{number}"], sample, stamp)
    stack = np.stack([sample.rgb for sample in samples])
    if "mean" in outputs:
        write_png(outputs["mean"], samples[0].with_pixels(stack.mean(0), samples[0].alpha), stamp)
    if len(samples) > 1 and {"std", "sheet"} & outputs.keys():
        differences = heat_map(spread(list(255 * stack)), "grey levels")
    if "std" in outputs:
        write_image(outputs["std"], differences, stamp)
    if "sheet" in outputs:
        titled = [("LR", photograph), ("bicubic", enlarge(photograph))]
        titled += [(f"sample {number}, {title}", sample) for number, sample in enumerate(samples)]
        columns = [(name, _pixels(picture)) for name, picture in titled]
        columns += [("standard deviation", differences)] if len(samples) > 1 else []
        write_image(outputs["sheet"], contact_sheet(columns, columns[1][1].shape[0]), stamp)


def _outputs(source: Path, folder: Path, num_samples: int, extras: Sequence[str]) -> Outputs:
    kinds = [*(f"sample{number}" for number in range(num_samples)), *extras]
    return {
        kind: folder / f"{source.stem}{'' if kind == 'sample0' and num_samples == 1 else '_' + kind}.png"
        for kind in kinds
    }


def _name(job: Job) -> str:
    return next(iter(job.outputs.values())).name


def _fingerprint(source: Path, num_samples: int, settings: dict[str, Any]) -> str:
    status = source.stat()
    return _digest([source.name, status.st_size, status.st_mtime_ns, num_samples, sorted(settings.items())])


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _check_outputs(jobs: Sequence[Job], overwrite: bool, may_be_done: bool) -> None:
    writers: dict[Path, Path] = {}
    for source, outputs, stamp in jobs:
        for file in outputs.values():
            if file in writers:
                raise UserError(f"{writers[file]} and {source} would both become {file}; take them one by one")
            writers[file] = source
            if not file.exists():
                continue
            if overwrite and file.resolve() == source.resolve():
                raise UserError(f"{file} exists; choose another folder with -o")
            made_with = read_stamp(file) if may_be_done else None
            if not overwrite and not (made_with or "").startswith(stamp):
                otherwise = ", made of another image or with other settings" if made_with else ""
                raise UserError(f"{file} exists{otherwise}; give --overwrite or another -o")


def _pixels(photograph: Photograph) -> np.ndarray:
    pixels: np.ndarray = (255 * photograph.rgb).round().astype(np.uint8)
    return pixels
