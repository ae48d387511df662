"""Super-resolve any image: the front door, for people who do not train."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints.load import load_network
from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.devices import choose_device
from srflow_plugin.errors import UserError
from srflow_plugin.images.photographs import Photograph, from_array, from_pillow
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.images.tensors import to_array, to_tensor
from srflow_plugin.sampling.draw import Tile

RESAMPLE = 0.8  # places where a sample explodes are drawn again at the temperature times this

Precision = Literal["auto", "float32", "bfloat16"]


def upscale(
    image: np.ndarray | Image.Image | Tensor,
    temperature: float = 0.8,
    num_samples: int = 1,
    seed: int | None = 0,
    scale: int | None = None,
    checkpoint: str | Path | None = None,
    tile: Tile = "auto",
    device: str = "auto",
    precision: Precision = "auto",
) -> Any:
    """Draw super-resolved images of ``image``, in the kind of thing that it is.

    Args:
        image: numpy (H, W) or (H, W, 1 to 4; RGB), uint8, uint16 or float in [0, 1]; Pillow; or torch (3, H, W) or
            (B, 3, H, W) in [0, 1].
        temperature: how far samples may go from the most likely image, 0 to about 1.
        num_samples: how many images. At temperature 0 all are equal.
        seed: of the samples; None: others at each call.
        scale: 4 (photographs) or 8 (faces), for the networks that come with the package. Default: the checkpoint's,
            or 4.
        checkpoint: another SRFlow network.
        tile: see :meth:`SRFlowNet.sample`.
        device: "auto" is a GPU if there is one; else torch's name of it.
        precision: "auto" is bfloat16 on GPUs and float32 on CPUs.

    Returns:
        numpy: (num_samples, scale*H, scale*W[, C]) of the same type. Pillow: a list of images. torch: (num_samples, 3,
        scale*H, scale*W), or (num_samples, B, 3, ...), on the device of ``image``.

    Raises:
        UserError: an argument cannot be used; it is a ValueError.

    >>> upscale(np.zeros((6, 8, 3), np.uint8), num_samples=2).shape
    (2, 24, 32, 3)
    """
    network = find_network(scale, checkpoint, device, precision)
    how = (temperature, num_samples, seed, tile)
    if isinstance(image, Tensor):
        return _upscale_tensor(network, image, *how)
    if isinstance(image, Image.Image):
        return [_to_pillow(sample, image) for sample in draw(network, from_pillow(image), *how)]
    if isinstance(image, np.ndarray):
        return np.stack([_to_array(sample, image) for sample in draw(network, from_array(image), *how)])
    raise UserError(f"image must be a numpy array, a Pillow image or a tensor, not {type(image).__name__}")


def _upscale_tensor(
    network: SRFlowNet, image: Tensor, temperature: float, num_samples: int, seed: int | None, tile: Tile
) -> Tensor:
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.is_floating_point():
        raise UserError(f"a tensor must be float (3, H, W) or (B, 3, H, W), not {image.dtype} {tuple(image.shape)}")
    lq = image.reshape(-1, *image.shape[-3:]).to(next(network.parameters()).device, torch.float32)
    samples = network.sample(lq, temperature, num_samples, seed, tile, resample=RESAMPLE).clamp(0, 1)
    return samples.reshape(num_samples, *image.shape[:-3], *samples.shape[2:]).to(image)


def find_network(
    scale: int | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> SRFlowNet:
    """Load the network that :func:`upscale` uses with these arguments, once: in eval mode, on its device."""
    path = find_checkpoint(checkpoint, scale)
    if precision not in get_args(Precision):
        raise UserError(f"precision must be auto, float32 or bfloat16, not {precision}")
    place = choose_device(device)
    if precision == "auto":
        precision = "bfloat16" if place.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    network = _loaded(path, path.stat().st_mtime_ns, precision, str(place))
    if scale not in (None, network.scale):
        raise UserError(f"{checkpoint} is a network of scale {network.scale}, not {scale}")
    return network


@lru_cache(maxsize=4)
def _loaded(path: Path, changed: int, precision: Literal["float32", "bfloat16"], place: str) -> SRFlowNet:
    """Load a network once; ``changed`` is the time of the file, so that one written anew is read anew."""
    return load_network(path, precision=precision).to(place)


def draw(
    network: SRFlowNet,
    photograph: Photograph,
    temperature: float,
    num_samples: int,
    seed: int | None = 0,
    tile: Tile = "auto",
    progress: bool = False,
) -> list[Photograph]:
    """Draw samples of a photograph, each of its kind; transparency is enlarged bicubically."""
    lq = to_tensor(photograph.rgb).to(next(network.parameters()).device)
    samples = network.sample(lq, temperature, num_samples, seed, tile, progress, RESAMPLE)[:, 0]
    alpha = enlarged_alpha(photograph, network.scale)
    return [photograph.with_pixels(to_array(sample), alpha) for sample in samples]


def bicubic(photograph: Photograph, scale: int) -> Photograph:
    """Enlarge a photograph as MATLAB's imresize does."""
    image = bicubic_upscale(to_tensor(photograph.rgb), scale)[0]
    return photograph.with_pixels(to_array(image), enlarged_alpha(photograph, scale))


def enlarged_alpha(photograph: Photograph, scale: int) -> np.ndarray | None:
    """Enlarge the transparency, if there is any: (scale*H, scale*W)."""
    if photograph.alpha is None:
        return None
    return to_array(bicubic_upscale(to_tensor(photograph.alpha[..., None]), scale)[0])[..., 0]


def _to_array(photograph: Photograph, like: np.ndarray) -> np.ndarray:
    """Give pixels the type and the number of channels of ``like``."""
    if like.dtype.kind == "f":
        channels = photograph.rgb[..., :1] if photograph.is_grey else photograph.rgb
        if photograph.alpha is not None:
            channels = np.concatenate([channels, photograph.alpha[..., None]], axis=2)
        pixels: np.ndarray = channels.astype(like.dtype)
    else:
        pixels = photograph.quantised()
    return pixels.reshape(*pixels.shape[:2], *like.shape[2:])


def _to_pillow(photograph: Photograph, like: Image.Image) -> Image.Image:
    pixels = photograph.quantised()
    if photograph.bits == 16 and photograph.is_grey and photograph.alpha is None:
        image = Image.fromarray(pixels)
    else:
        image = Image.fromarray(pixels if photograph.bits == 8 else (pixels // 257).astype(np.uint8))
    image.info.update(
        {key: value for key, value in (("icc_profile", photograph.icc_profile), ("exif", photograph.exif)) if value}
    )
    return image
