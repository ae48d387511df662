"""Files that ``torch.save`` wrote: what is looked at before and after PyTorch reads them, without running code.

PyTorch's own reader checks no checksum, and believes whatever sizes a file claims.
"""

from __future__ import annotations

import math
import pickletools
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from srflow_plugin.checkpoints.foreign import what_is
from srflow_plugin.errors import UserError

FOLDER = 0x10  # among the attributes of MS-DOS
ZIP = b"PK\x03\x04"
PICKLES = 5  # of a file older than PyTorch 1.6, at its start: two numbers, the machine, the contents, storages
# What weights and training states are made of. PyTorch would also load what takes all memory from a small file.
NAMES = re.compile(
    r"collections (OrderedDict|Counter)|builtins (set|complex)|__builtin__ (set|complex)|_codecs encode|"
    r"torch\._utils (_rebuild_tensor(_v2)?|_rebuild_parameter)|torch (\w+Storage|Size|device|b?float\d+|u?int\d+|bool)|"
    r"torch (float8_\w+|complex\d+)|torch\.storage UntypedStorage|torch\.nn\.parameter Parameter|"
    r"numpy(\._?core\.multiarray scalar| dtype|\.dtypes \w+)"
)
# What training programs write beside weights, with what it is made of: here each becomes an empty object.
BESIDE = {
    "mmengine.logging.history_buffer HistoryBuffer": (
        *("__builtin__ getattr", "builtins getattr", "numpy ndarray", "numpy dtype"),
        *(f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    )
}
MOST_SHARED = 4  # times a file's size: networks of one file may share weights, as params and params_ema
DEEPEST = 100  # dictionaries and lists within each other


class Beside:
    """Empty object, in the place of one beside the weights."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def read_torch(path: Path, device: Any = "cpu") -> Any:
    """Read what ``torch.save`` wrote, on a device or as PyTorch's ``map_location`` says.

    What is known to stand beside the weights (BESIDE) is left out: it becomes an empty object.

    Raises:
        UserError: it is damaged, would run code, or claims what it does not hold.
        Exception: whatever PyTorch raises where it is something else.
    """
    with path.open("rb") as file:
        is_zip = file.read(len(ZIP)) == ZIP
        if is_zip:
            _check_members(path)
        file.seek(0)
        names = dict.fromkeys(_names(file, is_zip))
        beside = {name for kind, parts in BESIDE.items() if kind in names for name in (kind, *parts)}
        for name in names:
            if name not in beside and not NAMES.fullmatch(name):
                reason = "which is not loaded because that could run code or take all memory"
                raise UserError(f"{path} is not a readable checkpoint: it holds {name.replace(' ', '.')}, {reason}")
        file.seek(0)
        stand_ins: Any = [(Beside, name.replace(" ", ".")) for name in beside]
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
            warnings.simplefilter("ignore")  # of other kinds of files
            # As an open file: torch goes by the name otherwise.
            state = torch.load(file, map_location=device, weights_only=True)
    _check_sizes(state, path)
    return state


def _check_members(path: Path) -> None:
    """Compare every part of the archive with its checksum; refuse what is compressed, as PyTorch writes none."""
    kind = what_is(path)
    if kind:
        raise UserError(f"{path} is not a readable checkpoint: it is {kind}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size = sum(member.file_size for member in members)
            if size > path.stat().st_size or any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise UserError(f"{path} is not a readable checkpoint: it is compressed; write it anew with torch.save")
            bad = archive.testzip() if len({*archive.namelist()}) == len(members) else "a name that is there twice"
            if any(member.external_attr & FOLDER for member in members):  # of which PyTorch would read zeros
                bad = "a part that says it is a folder"
    except (zipfile.BadZipFile, zlib.error, EOFError, OverflowError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        bad = str(error) or "a part that is cut off"
    if bad:
        raise UserError(f"{path} is damaged ({bad}): its disk or its download failed; take another copy")


def _names(file: IO[bytes], is_zip: bool) -> Iterator[str]:
    """List what a file's pickles would import."""
    if is_zip:
        with zipfile.ZipFile(file) as archive:
            pickles = [archive.open(name) for name in archive.namelist() if name.endswith("/data.pkl")]
    else:
        pickles = [file] * PICKLES
    for pickle in pickles:
        try:
            yield from (str(argument) for code, argument, _ in pickletools.genops(pickle) if code.name == "GLOBAL")
        except ValueError:  # no pickle: PyTorch will say so
            return


def _check_sizes(state: Any, path: Path) -> None:
    """Refuse tensors that are more than the file, and what is nested without end."""
    size = path.stat().st_size
    total, count, left = 0, 0, [(state, 0)]
    while left:
        value, depth = left.pop()
        count += 1
        if count > 10 * size or depth > DEEPEST:
            raise UserError(f"{path} is not a checkpoint: it is nested without end")
        if isinstance(value, Tensor):
            if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_quantized:
                raise UserError(
                    f"{path} is not a readable checkpoint: a tensor of it is a {value.layout} {value.dtype}"
                )
            claimed = math.prod(max(1, length) for length in value.shape) * value.itemsize
            total += claimed
            held = 0 if value.is_meta else value.untyped_storage().nbytes() if value.numel() else size
            if claimed > held or total > MOST_SHARED * size:
                raise UserError(
                    f"{path} is not a readable checkpoint: a tensor of it claims to be {list(value.shape)}, more than "
                    "the file holds"
                )
        elif isinstance(value, Mapping):
            left += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple | set):
            left += [(part, depth + 1) for part in value]
