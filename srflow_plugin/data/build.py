"""BasicSR's data sets and models, built: quickly for many files, and with a line where that cannot be done."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from basicsr.data import build_dataset
from basicsr.utils.registry import DATASET_REGISTRY

from srflow_plugin.data.checked import CheckedImages
from srflow_plugin.data.pairing import LISTS, hr_files, lines_of_list, paired_quickly
from srflow_plugin.errors import UserError


def build(make: Callable[[dict[str, Any]], Any], opt: dict[str, Any], what: str) -> Any:
    """Build something of BasicSR or a plugin; what its class says about its options becomes one line."""
    try:
        return make(opt)
    except UserError:
        raise
    except (AssertionError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what} cannot be built: {text:.300}") from error


def checked_images(opt: dict[str, Any], where: str) -> CheckedImages:
    """Build the data set of an option file's section, its files to be checked."""
    with tidy_lists(opt) as lists, paired_quickly(DATASET_REGISTRY.get(opt["type"])):
        dataset = build(build_dataset, {**opt, **lists}, where)
    dataset.opt.update({key: opt.get(key) for key in lists})
    if _is_of_hr_files(opt):  # whose names BasicSR cuts at the first space
        dataset.paths = list(map(str, hr_files(opt)))
    return CheckedImages(dataset)


def _is_of_hr_files(opt: dict[str, Any]) -> bool:
    return bool(opt.get("type") == "RealESRGANDataset" and opt["io_backend"]["type"] == "disk")


@contextmanager
def tidy_lists(opt: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Write the lists that a section names without empty lines, which BasicSR's data sets take for images.

    A data set that asks for a list, and has none, is given one of its folder.

    Yields:
        Their files in the block, by the section's keys.
    """
    lists = {}
    with tempfile.TemporaryDirectory() as folder:
        for key in LISTS:
            is_missing = key == "meta_info" and opt.get(key) is None and _is_of_hr_files(opt)
            if is_missing or isinstance(opt.get(key), str):
                lists[key] = str(Path(folder, f"{key}.txt"))
                lines = [str(file) for file in hr_files(opt)] if is_missing else lines_of_list(Path(opt[key]))
                Path(lists[key]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        yield lists
