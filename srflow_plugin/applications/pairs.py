"""HR images with their LR images, from files to a network and back. For the commands."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
from torch import Tensor

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.files import complete_or_absent
from srflow_plugin.flow.precision import to_complete
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.images.pictures import heat_map
from srflow_plugin.images.resize import bicubic_downscale
from srflow_plugin.images.tensors import to_pixels, to_tensor
from srflow_plugin.progress import say, tell
from srflow_plugin.sampling.explosions import exploded

LOSSY = (".jpg", ".jpeg", ".jfif", ".webp")  # endings of images that lose detail


def read_lq(net: SRFlowNet, path: Path) -> Tensor:
    """Read an LR image for a network: (1, 3, h, w) on its device."""
    return to_tensor(read_image(path)).to(next(net.parameters()).device)


def read_pair(
    net: SRFlowNet, path: Path, lq_path: Path | None = None, like: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Read an HR image, cropped to a multiple of the scale, and its LR image: (1, 3, H, W) and (1, 3, h, w).

    Args:
        net: for which; the images come to its device.
        path: of the HR image.
        lq_path: of the LR image. Default: MATLAB's bicubic downscale.
        like: an HR image whose size this one must have.
    """
    image = read_image(path)
    height, width = (size - size % net.scale for size in image.shape[:2])
    if not height or not width:
        raise UserError(f"{path} is smaller than {net.scale} pixels")
    if (height, width) != image.shape[:2]:
        tell(f"{path}: cropped to {width}x{height}, a multiple of {net.scale}")
    image = image[:height, :width]
    if like is not None and (height, width) != like.shape[2:]:
        raise UserError(f"{path} has {width}x{height} pixels, not {like.shape[3]}x{like.shape[2]} as the other image")
    small = read_image(lq_path) if lq_path else bicubic_downscale(image, net.scale)
    if small.shape[:2] != (height // net.scale, width // net.scale):
        expected = f"{width // net.scale}x{height // net.scale}"
        raise UserError(f"{lq_path} has {small.shape[1]}x{small.shape[0]} pixels; {path} needs {expected}")
    device = next(net.parameters()).device
    return to_tensor(image).to(device), to_tensor(small).to(device)


def in_float64(net: SRFlowNet, *images: Tensor) -> tuple[SRFlowNet, list[Tensor]]:
    """Copy a network and images for computing in float64, in which the round trip of an 8 bit image is exact.

    Where their device has no float64, the copies are on the CPU.
    """
    place = to_complete(next(net.parameters())).device
    return deepcopy(net).to(place).double(), [image.to(place).double() for image in images]


def to_picture(image: Tensor) -> np.ndarray:
    """Round an image (1, 3, H, W) to uint8 RGB; say so where it is no picture."""
    where = exploded(image)
    if where.any():
        tell(
            f"{int(where.sum())} of {where.numel()} pixels are not finite or far outside [0, 1]: the network does not "
            "know such an image; it knows photographs that were made smaller (docs/how-to/avoid_exploding_samples.md)"
        )
    return to_pixels(image[0])


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB (H, W, 3) and say where."""
    write_image(path, picture)
    lost = " It is lossy; PNG keeps every value." if path.suffix.lower() in LOSSY else ""
    say(f"{path} is written.{lost}")


def write_map(path: Path, values: Tensor, unit: str, what: str = "") -> None:
    """Write a map (1, H, W), in colour or as .npy; print its mean, and of ``what``."""
    numbers = values[0].cpu().numpy()
    bad = numbers.size - int(np.isfinite(numbers).sum())
    if bad:
        tell(f"{bad} of {numbers.size} pixels are not finite: the network does not know such an image")
    say(f"mean {numbers.mean():.4f} {unit}{what}")
    if path.suffix == ".npy":
        with complete_or_absent(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, numbers)
        say(f"{path} is written.")
    else:
        write_picture(path, heat_map(numbers, unit))
