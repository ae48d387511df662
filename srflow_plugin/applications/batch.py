"""Many image files, super-resolved into other files: what is read, what is written, nothing lost. Needs no torch."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from srflow_plugin.applications.inputs import Found, find_inputs
from srflow_plugin.errors import TrainingError, UserError
from srflow_plugin.files import check_writable, folder_made
from srflow_plugin.images.files import IMAGE_SUFFIXES, read_stamp
from srflow_plugin.images.writing import file_format
from srflow_plugin.progress import tell, with_progress
from srflow_plugin.shares import in_shares, this_launch, this_process

Outputs = dict[str, Path]  # by kind: sample0, sample1, ..., mean, std, sheet
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
OWN_FAULTS = (OSError, RuntimeError, MemoryError)
SMALLEST_SHARE = 0.1  # of what pixels take without compression; photographs take four times as much


class Wanted(NamedTuple):
    """Files that are wanted of each image.

    Attributes:
        num_samples: number of samples.
        only: number of the only sample that is written; None: all.
        extras: of "mean", "std" and "sheet", those that are written, too.
        format: ending of the samples' names: png, jpg, webp or tiff.
        suffix: what comes behind the images' names.
        recursive: take the images of folders in folders, too.
    """

    num_samples: int = 1
    only: int | None = None
    extras: Sequence[str] = ()
    format: str = "png"
    suffix: str = ""
    recursive: bool = False

    @property
    def numbers(self) -> Sequence[int]:
        """Numbers of the samples."""
        return range(self.num_samples) if self.only is None else [self.only]


class Job(NamedTuple):
    """An image to read, and the files to write for it.

    Attributes:
        source: the image.
        outputs: files by kind.
        stamps: what the files are made with, as they say themselves, by kind: a digest of settings and source; of files
            that replace others also one of the launch, in which each is to be drawn once.
    """

    source: Path
    outputs: Outputs
    stamps: dict[str, str]

    @property
    def is_done(self) -> bool:
        """Say whether all files are there, made so."""
        return all(self.has(kind) for kind in self.outputs)

    def drawn_with(self, network: str) -> Job:
        """Let the files name the network that they are drawn with, too."""
        name = network.encode("ascii", "backslashreplace").decode()
        return self._replace(stamps={kind: f"{stamp} {name}" for kind, stamp in self.stamps.items()})

    def has(self, kind: str) -> bool:
        """Say whether a file is there, made so."""
        return (read_stamp(self.outputs[kind]) or "").startswith(self.stamps[kind])


def plan(names: Sequence[str], output: Path, wanted: Wanted, overwrite: bool, settings: dict[str, Any]) -> list[Job]:
    """Find the images, name the files, and check that all can be written and nothing is lost.

    Files in a folder that were made with the same settings from the same images are no hindrance: they are done.

    Args:
        names: images, folders of them, and patterns.
        output: a folder, or a file for one sample of one image.
        wanted: of each image.
        overwrite: files may be replaced, but for the images themselves.
        settings: whatever else changes the pictures.

    Raises:
        UserError: before any work.
    """
    is_file = is_picture(output)
    found = find_inputs(names, wanted.recursive)
    if is_file:
        _check_one_file(output, found, wanted)
        found = found[: 1 if this_process().rank == 0 else 0]
        outputs = [{_kinds(wanted)[0]: output} for _ in found]
    else:
        if output.exists() and not output.is_dir():
            raise UserError(f"{output} is not a folder")
        outputs = [_outputs(one, output, wanted) for one in found]
    check_writable(output.parent if is_file else output)
    launch = f" {_digest(this_launch())}" if overwrite else ""
    jobs = []
    for one, files in zip(found, outputs, strict=True):
        made_with = _digest([*_version(one.path), sorted(settings.items())])
        of_all = _digest([made_with, list(wanted.numbers)])  # a mean is one of certain samples
        stamps = {kind: (made_with if kind.startswith("sample") else of_all) + launch for kind in files}
        jobs.append(Job(one.path, files, stamps))
    _check_outputs(jobs, overwrite, may_be_done=not is_file)
    return jobs


def is_picture(output: Path) -> bool:
    """Say if an output is one picture, by its name, and no folder."""
    return output.suffix.lower() in (".gif", *IMAGE_SUFFIXES) and not output.is_dir()


def do_jobs(jobs: Sequence[Job], do: Callable[[Job], None], folder: Path) -> tuple[list[Path], int]:
    """Do the jobs that are not done, shared with all processes that do the same.

    An image that cannot be read or drawn is named, and the others are done; alone it raises.

    Args:
        jobs: from :func:`plan`.
        do: draws and writes one.
        folder: where the files go; made if missing.

    Returns:
        The files that this process wrote, and how many images it could not do.

    Raises:
        UserError: the only image cannot be read.
        TrainingError: the only image cannot be drawn, or the disk takes no more; says what is done.
    """
    here, is_alone = this_process(), len(jobs) == 1
    own = -(-sum(not job.is_done for job in jobs) // here.size)
    written: list[Path] = []
    failed = 0
    with folder_made(folder), closing(in_shares(jobs, _name, lambda job: job.is_done, folder)) as shared:
        for job in with_progress(shared, "image", disable=is_alone or here.rank > 0, total=own):
            try:
                with folder_made(next(iter(job.outputs.values())).parent):
                    do(job)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                    raise TrainingError(
                        f"{error.strerror}; {len(written)} files are written, a second run goes on"
                    ) from None
                line = _told(job, error)
                if is_alone and isinstance(error, OWN_FAULTS):
                    raise TrainingError(line) from error
                if is_alone:
                    raise
                tell(line)
                failed += 1
            else:
                written += job.outputs.values()
    return written, failed


def check_space(folder: Path, pixels: int, bytes_per_pixel: int) -> None:
    """Say before a picture is drawn that it will not fit on the disk."""
    needed, free = pixels * bytes_per_pixel * SMALLEST_SHARE, shutil.disk_usage(folder).free
    if needed > free:
        sizes = f"at least {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
        raise UserError(f"{folder}: the picture needs {sizes}; choose another disk with -o")


def _check_one_file(output: Path, found: Sequence[Found], wanted: Wanted) -> None:
    file_format(output)
    if len(found) > 1 or len(wanted.numbers) > 1 or wanted.extras:
        raise UserError(f"{output} is one file; name a folder with -o for several")
    if wanted.suffix:
        raise UserError(f"{output} has its name; --suffix is for folders")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent} is not a folder; make it first")


def _told(job: Job, error: Exception) -> str:
    line = str(error).strip().partition("\n")[0] or type(error).__name__
    return line if str(job.source) in line else f"{job.source} cannot be drawn: {line}"


def _kinds(wanted: Wanted) -> list[str]:
    return [*(f"sample{number}" for number in wanted.numbers), *wanted.extras]


def _outputs(found: Found, folder: Path, wanted: Wanted) -> Outputs:
    kinds, is_one = _kinds(wanted), wanted.num_samples == 1 and wanted.only is None
    folder = folder / found.below
    return {
        kind: folder
        / (
            f"{found.path.stem}{wanted.suffix}{'' if kind == 'sample0' and is_one else '_' + kind}."
            f"{'png' if kind in ('std', 'sheet') else wanted.format}"
        )
        for kind in kinds
    }


def _name(job: Job) -> str:
    return str(next(iter(job.outputs.values())))


def _version(source: Path) -> list[Any]:
    """Tell a file from another version of it."""
    try:
        status = source.stat()
    except OSError:  # of a link that leads nowhere: who reads it says so
        return [str(source)]
    return [source.name, status.st_size, status.st_mtime_ns]


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode(errors="surrogateescape")).hexdigest()[:16]


def _check_outputs(jobs: Sequence[Job], overwrite: bool, may_be_done: bool) -> None:
    writers: dict[Path, Path] = {}
    for job in jobs:
        source = job.source
        for kind, file in job.outputs.items():
            if file in writers:
                raise UserError(f"{writers[file]} and {source} would both become {file}; take them one by one")
            writers[file] = source
            if not file.exists():
                continue
            if overwrite and file.resolve() == source.resolve():
                raise UserError(f"{file} exists; choose another folder with -o")
            made_with = read_stamp(file) if may_be_done else None
            if not overwrite and not (made_with or "").startswith(job.stamps[kind]):
                otherwise = ", made of another image or with other settings" if made_with else ""
                raise UserError(f"{file} exists{otherwise}; give --overwrite or another -o")
