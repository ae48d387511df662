"""Arguments that several commands have, each with one meaning everywhere. Needs no torch."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from srflow_plugin.checkpoints.shipped import WORDS
from srflow_plugin.errors import UserError, nearest
from srflow_plugin.files import check_is_file, check_new_file
from srflow_plugin.progress import tell
from srflow_plugin.sampling.temperature import LEARNED, Temperature, is_learned, is_number

DEFAULT_TEMPERATURE = 0.8
LARGEST = 2**31 - 1  # of numbers that have no other limit
LONGEST = 40  # characters of a number
MOST_SAMPLES, MOST_TEMPERATURE, MOST_TILE = 10_000, 100, 2**16  # beyond all use
STEEP = 1.2  # temperature above which nearly every sample breaks in places


def add_checkpoint(parser: argparse.ArgumentParser, **settings: Any) -> None:
    """Add ``--checkpoint`` and ``--scale``: which network."""
    parser.add_argument(
        "--checkpoint",
        metavar="NETWORK",
        help="SRFlow network: a file of this project or a released one, or srflow_x4, srflow_x4_real, srflow_x8_face "
        "of the package, or hf://user/name of the Hugging Face Hub (default: the package's for --scale)",
        **settings,
    )
    parser.add_argument(
        "--scale",
        type=in_range(int, low=2),
        help="4: photographs; 8: faces, aligned, 20 pixels high (default: the checkpoint's, or 4)",
    )


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add ``--network``: which network of the package."""
    parser.add_argument(
        "--network",
        type=_network,
        choices=WORDS,
        help="network of the package, in place of --checkpoint and --scale; auto: each picture chooses, and JPEG or "
        "noise in it mean real; a face is never guessed (default: auto, without --checkpoint and --scale 8)",
    )


def add_temperature(
    parser: argparse._ActionsContainer, what: str = "of the samples", learned: bool = False, **settings: Any
) -> None:
    """Add ``--temperature``; ``learned``: it may be that of the learned prior, too."""
    defaults: dict[str, Any] = {
        "type": _temperature if learned else _number_of_temperature,
        "default": DEFAULT_TEMPERATURE,
    }
    parser.add_argument(
        "--temperature",
        help=f"temperature {what}: 0 draws the smoothest image, up to about 1 sharper and bolder ones"
        + ("; learned: one sharp image, of networks with a learned prior" if learned else "")
        + " (default: %(default)s)",
        **{**defaults, **settings},
    )


def add_adaptive(parser: argparse._ActionsContainer) -> None:
    """Add ``--adaptive``."""
    parser.add_argument(
        "--adaptive",
        type=_share,
        metavar="SHARE",
        help="share of the temperature that flat areas get, 0 to 1, for less grain there "
        "(default: the same temperature everywhere)",
    )


def add_samples(parser: argparse.ArgumentParser, default: int) -> None:
    """Add ``--num-samples`` and ``--seed``."""
    parser.add_argument(
        "--num-samples",
        type=in_range(int, low=1, most=MOST_SAMPLES),
        default=default,
        help="images for each input (default: %(default)s)",
    )
    add_seed(parser)


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add ``--seed``."""
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        help="other seeds give other samples (default: 0)",
    )


def add_tile(parser: argparse.ArgumentParser) -> None:
    """Add ``--tile``."""
    parser.add_argument(
        "--tile",
        type=_tile,
        default="auto",
        metavar="N|auto|none",
        help="side of tiles in LR pixels; auto: as memory allows; none: whole images (default: auto)",
    )


def add_resample(parser: argparse.ArgumentParser, default: float | None) -> None:
    """Add ``--resample``."""
    parser.add_argument(
        "--resample",
        type=_resample,
        default=default,
        metavar="FACTOR|off",
        help="where a sample explodes, draw that place again at the temperature times FACTOR "
        f"(default: {'off' if default is None else default})",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:1, mps, xpu, ...: any device of torch (default: auto, a GPU if there is one)",
    )


def add_compile(parser: argparse.ArgumentParser) -> None:
    """Add ``--compile``."""
    parser.add_argument(
        "--compile",
        action="store_true",
        help="run the network through PyTorch's compiler: repays its start of a minute in long runs",
    )


def add_output(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``-o`` and ``--overwrite``."""
    parser.add_argument("-o", "--output", type=Path, required=True, help=what)
    add_overwrite(parser)


def add_lq(parser: argparse.ArgumentParser, of: str) -> None:
    """Add ``--lq``: the LR image of an HR image."""
    parser.add_argument("--lq", type=Path, metavar="LR", help=f"LR image (default: MATLAB's bicubic downscale of {of})")


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def in_range(
    kind: Callable[[str], float], low: float, below: float = math.inf, most: float = LARGEST
) -> Callable[[str], float]:
    """Make a type of arguments: numbers from ``low`` to below ``below`` or, without that, to ``most``."""

    def convert(text: str) -> float:
        if len(text) > LONGEST:
            raise argparse.ArgumentTypeError(f"{text[:LONGEST]}... is too long for a number")
        number = kind(text)
        if not low <= number < below:
            limit = f"from {low} to below {below}" if below < math.inf else f"{low} or more"
            raise argparse.ArgumentTypeError(f"{text} must be {limit}{'' if number < math.inf else ', and finite'}")
        if below == math.inf and number > most:
            raise argparse.ArgumentTypeError(f"{text} is too large; at most {most:,}")
        return number

    convert.__name__ = {int: "whole number", float: "number"}.get(kind, "value")  # type: ignore[call-overload]
    return convert


def check_picture(path: Path, overwrite: bool, others: Sequence[str] = ()) -> None:
    """Say at once that a picture cannot be written there; ``others``: suffixes that are taken beside images'."""
    from srflow_plugin.images.files import IMAGE_SUFFIXES

    check_suffix(path, (*IMAGE_SUFFIXES, *others))
    check_new_file(path, overwrite)


def check_folder(path: Path, names: Sequence[str], overwrite: bool) -> None:
    """Say at once that files cannot be written to a folder; it may be there, or be made."""
    if path.is_dir():
        for name in names:
            check_new_file(path / name, overwrite)
    elif path.exists():
        raise UserError(f"{path} is a file; name a folder, which is made if it is not there")
    else:
        check_new_file(path)


def check_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file name with another ending."""
    if path.suffix.lower() not in suffixes:
        raise UserError(f"{path} must end in {' or '.join(suffixes)}")


def tell_if_steep(temperature: Temperature) -> None:
    """Say that samples of so high a temperature are broken."""
    if is_number(temperature) and temperature > STEEP:
        tell(f"temperature {temperature:g} is above {STEEP}, where nearly every sample breaks in places; 0.8 is usual")


def check_inputs(*paths: Path | None) -> None:
    """Say at once that a file is not there, or is none; None is passed over."""
    for path in paths:
        if path is not None:
            check_is_file(path)


seed = in_range(int, low=-(2**63), below=2**63)  # what torch takes


def window(text: str) -> int:
    """Read the side of a window, an odd number."""
    number = int(in_range(int, low=3, below=1000)(text))
    if number % 2 == 0:
        raise argparse.ArgumentTypeError(f"{text} must be odd")
    return number


def _temperature(text: str) -> Temperature:
    return LEARNED if is_learned(text) else _number_of_temperature(text)


def _tile(text: str) -> Any:
    if text in ("auto", "none"):
        return None if text == "none" else "auto"
    return in_range(int, low=1, most=MOST_TILE)(text)


def _network(text: str) -> str:
    if text not in WORDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not known{nearest(text, WORDS)}")
    return text


def _resample(text: str) -> Any:
    return None if text == "off" else in_range(float, low=0, below=1)(text)


def _share(text: str) -> float:
    number = in_range(float, low=0)(text)
    if number > 1:
        raise argparse.ArgumentTypeError(f"{text} must be from 0 to 1")
    return number


_number_of_temperature = in_range(float, low=0, most=MOST_TEMPERATURE)
_temperature.__name__, _tile.__name__, _resample.__name__ = "temperature", "tile", "factor"
_share.__name__ = "number"
