"""Super-resolve any image: the front door, for people who do not train."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srflow_plugin.applications.choice import checkpoint_for
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints.load import load_network
from srflow_plugin.checkpoints.shipped import find_checkpoint
from srflow_plugin.devices import choose_device
from srflow_plugin.errors import UserError
from srflow_plugin.images.photographs import Photograph, cut_rows, from_array, from_pillow, together
from srflow_plugin.images.resize import Downscaler, bicubic_upscale
from srflow_plugin.images.rows import Rows, rows_of
from srflow_plugin.images.tensors import to_array, to_tensor
from srflow_plugin.images.writing import eight_bit
from srflow_plugin.sampling.adaptive import Adaptive
from srflow_plugin.sampling.draw import draw_rows
from srflow_plugin.sampling.explosions import exploded
from srflow_plugin.sampling.temperature import Temperature
from srflow_plugin.sampling.tiling import Band, Tile

RESAMPLE = 0.8  # places where a sample explodes are drawn again at the temperature times this
PIECE = 16  # LR rows that become numbers of a file at once
MIN_OUTSCALE = 0.1
ALPHA_REACH = 2  # LR pixels that bicubic enlargement looks at

Precision = Literal["auto", "float32", "bfloat16"]


class How(NamedTuple):
    """Settings of samples, see :func:`upscale`."""

    temperature: Temperature = 0.8
    num_samples: int = 1
    seed: int | None = 0
    tile: Tile = "auto"
    only: int | None = None
    outscale: float | None = None
    adaptive: Adaptive = None

    @property
    def of_network(self) -> dict[str, Any]:
        """Those that :meth:`SRFlowNet.sample` takes."""
        return {name: value for name, value in self._asdict().items() if name != "outscale"}


class Drawn(NamedTuple):
    """Rows of the samples of a photograph, and what was found in drawing them.

    Attributes:
        samples: the rows, of each sample.
        exploded: for each sample, if it exploded there as it was drawn.
        replaced: share of all samples' pixels that are bicubic, of those that these rows were drawn from.
    """

    samples: list[Photograph]
    exploded: list[bool]
    replaced: float


def upscale(
    image: np.ndarray | Image.Image | Tensor,
    temperature: Temperature = 0.8,
    num_samples: int = 1,
    seed: int | None = 0,
    scale: int | None = None,
    checkpoint: str | Path | None = None,
    tile: Tile = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    outscale: float | None = None,
    only: int | None = None,
    compile: bool = False,
    network: str | None = None,
    adaptive: Adaptive = None,
) -> Any:
    """Draw super-resolved images of ``image``; the same kind of image comes back.

    Args:
        image: numpy (H, W) or (H, W, 1 to 4; RGB), uint8, uint16 or float in [0, 1]; Pillow; or torch (3, H, W) or
            (B, 3, H, W) in [0, 1].
        temperature: how far samples may go from the most likely image, 0 to about 1; or "learned", of networks with a
            learned prior.
        num_samples: how many images. At temperature 0, and learned, all are equal.
        seed: of the samples; None: others at each call.
        scale: 4 (photographs) or 8 (faces), for the networks that come with the package. Default: the checkpoint's,
            or 4.
        checkpoint: another SRFlow network.
        tile: see :meth:`SRFlowNet.sample`.
        device: "auto" is a GPU if there is one; else torch's name of it.
        precision: "auto" is bfloat16 on GPUs and float32 on CPUs.
        outscale: of the results, at most ``scale``: they are downscaled as MATLAB's imresize does. Not for tensors.
        only: the number of the one sample that is drawn, from 0: the same as among others.
        compile: run the network through PyTorch's compiler, which repays its minute in long runs only.
        adaptive: temperature by place, see :meth:`SRFlowNet.sample`.
        network: in place of ``scale`` and ``checkpoint`` a network of the package: "photo", "real", "face", or "auto",
            by which the image is looked at, and JPEG or noise in it mean "real". Default: "photo".

    Returns:
        Images of the kind of ``image``. An array (num_samples, scale*H, scale*W[, C]) of the same type; a list of
        Pillow images; or a tensor (num_samples, 3, scale*H, scale*W), or (num_samples, B, 3, ...), on its device.

    Raises:
        UserError: an argument cannot be used; it is a ValueError.

    >>> upscale(np.zeros((6, 8, 3), np.uint8), num_samples=2).shape
    (2, 24, 32, 3)
    """
    _check_kind(image)
    if network is not None:
        checkpoint = checkpoint_for(image, network, checkpoint, scale)
    net = find_network(scale, checkpoint, device, precision, compile)
    how = How(temperature, num_samples, seed, tile, only, outscale, adaptive)
    if isinstance(image, Tensor):
        return _upscale_tensor(net, image, how)
    if isinstance(image, Image.Image):
        return [_to_pillow(sample) for sample in draw(net, from_pillow(image), how)]
    return np.stack([_to_array(sample, image) for sample in draw(net, from_array(image), how)])


def _check_kind(image: Any) -> None:
    if not isinstance(image, (Tensor, Image.Image, np.ndarray)):
        raise UserError(f"image must be a numpy array, a Pillow image or a tensor, not {type(image).__name__}")
    if not isinstance(image, Tensor):
        return
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or not image.is_floating_point() or not image.numel():
        raise UserError(f"a tensor must be float (3, H, W) or (B, 3, H, W), not {image.dtype} {tuple(image.shape)}")
    if exploded(image).any():  # a little beyond is what resizing leaves
        raise UserError("a tensor must lie in 0 ... 1; divide it by its largest possible value")


def _upscale_tensor(network: SRFlowNet, image: Tensor, how: How) -> Tensor:
    if how.outscale is not None:
        raise UserError("outscale is for arrays and Pillow images; use torch's interpolate for tensors")
    lq = image.reshape(-1, *image.shape[-3:]).to(next(network.parameters()).device, torch.float32)
    number = how.num_samples if how.only is None else 1
    samples = network.sample(lq, **how.of_network, resample=RESAMPLE).clamp(0, 1)
    return samples.reshape(number, *image.shape[:-3], *samples.shape[2:]).to(image)


def find_network(
    scale: int | None = None,
    checkpoint: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    compile: bool = False,
) -> SRFlowNet:
    """Load the network that :func:`upscale` uses with these arguments, once: in eval mode, on its device."""
    path = find_checkpoint(checkpoint, scale)
    if precision not in get_args(Precision):
        raise UserError(f"precision must be auto, float32 or bfloat16, not {precision}")
    place = choose_device(device)
    if precision == "auto":
        precision = "bfloat16" if place.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    network = _loaded(path, path.stat().st_mtime_ns, precision, str(place), compile)
    if scale not in (None, network.scale):
        raise UserError(f"{checkpoint} is a network of scale {network.scale}, not {scale}")
    return network


@lru_cache(maxsize=4)
def _loaded(
    path: Path, changed: int, precision: Literal["float32", "bfloat16"], place: str, compile: bool
) -> SRFlowNet:
    """Load a network once; ``changed`` is the time of the file, so that one written anew is read anew."""
    return load_network(path, precision=precision, compile=compile).to(place)


def draw(network: SRFlowNet, photograph: Photograph, how: How, progress: bool = False) -> list[Photograph]:
    """Draw samples of a photograph in memory, each of its kind."""
    bands = list(draw_bands(network, rows_of(photograph), how, progress))
    return [together(list(parts)) for parts in zip(*(band.samples for band in bands), strict=True)]


def draw_bands(network: SRFlowNet, rows: Rows, how: How, progress: bool = False) -> Iterator[Drawn]:
    """Draw samples of an image whose rows come from top to bottom, and give them out alike.

    Transparency is enlarged bicubically.

    Raises:
        UserError: a number is impossible; before anything is drawn.
    """
    scale, device = network.scale, next(network.parameters()).device
    check_outscale(how.outscale, scale)
    alpha = _Alpha(rows.height, scale)

    def parts() -> Iterator[Tensor]:
        for rgb, own in rows.opaque_bands():
            alpha.add(own)
            yield to_tensor(rgb).to(device)

    shape = (1, 3, rows.height, rows.width)
    bands = draw_rows(network, parts(), shape, **how.of_network, progress=progress, resample=RESAMPLE)
    drawn = _as_photographs(bands, rows.like, alpha, rows.height * rows.width)
    if how.outscale is None or how.outscale == scale:
        return drawn
    return _downscaled(drawn, scale * rows.height, scale * rows.width, how.outscale / scale)


def _as_photographs(bands: Iterator[Band], like: Photograph, alpha: _Alpha, pixels: int) -> Iterator[Drawn]:
    for band in bands:
        exploded, share = band.exploded.tolist(), int(band.replaced.sum()) / (pixels * len(band.images))
        for images in band.images.split(PIECE * alpha.scale, 2):
            own = alpha.take(images.shape[2])
            yield Drawn([like.with_pixels(to_array(image), own) for image in images], exploded, share)
            share = 0.0


def _downscaled(bands: Iterator[Drawn], height: int, width: int, ratio: float) -> Iterator[Drawn]:
    """Downscale what is drawn, as its files would be."""
    downscalers: list[Downscaler] = []
    for band in bands:
        downscalers = downscalers or [Downscaler(height, width, ratio) for _ in band.samples]
        levels = [downscaler.put(one.quantised()) for downscaler, one in zip(downscalers, band.samples, strict=True)]
        kept = [(one.icc_profile, one.exif) for one in band.samples]
        if len(levels[0]):
            yield band._replace(
                samples=[from_array(*one) for one in zip(levels, *zip(*kept, strict=True), strict=True)]
            )
        else:
            yield band._replace(samples=[cut_rows(one, slice(0)) for one in band.samples])


def check_outscale(outscale: float | None, scale: int) -> None:
    """Refuse a scale of the results that the network's is not downscaled to."""
    if outscale is not None and not MIN_OUTSCALE <= outscale <= scale:
        raise UserError(f"outscale must be from {MIN_OUTSCALE} to the network's scale, {scale}, not {outscale:g}")


class _Alpha:
    """Transparency of an image, whose rows are added as they are read, and taken enlarged as they are drawn."""

    def __init__(self, height: int, scale: int) -> None:
        self.height, self.scale = height, scale
        self.rows: np.ndarray | None = None
        self.first, self.taken = 0, 0  # of the rows that are there; LR rows

    def add(self, rows: np.ndarray | None) -> None:
        if rows is not None:
            self.rows = rows if self.rows is None else np.concatenate([self.rows, rows])

    def take(self, count: int) -> np.ndarray | None:
        """Give so many enlarged rows."""
        if self.rows is None:
            return None
        top, bottom = self.taken, self.taken + count // self.scale
        first, last = max(0, top - ALPHA_REACH), min(self.height, bottom + ALPHA_REACH)
        part = self.rows[first - self.first : last - self.first]
        self.rows = self.rows[first - self.first :]
        self.first, self.taken = first, bottom
        if top == bottom:
            return np.empty((0, self.scale * part.shape[1]), np.float32)
        return _enlarged(part, self.scale)[self.scale * (top - first) : self.scale * (bottom - first)]


def bicubic(photograph: Photograph, scale: int) -> Photograph:
    """Enlarge a photograph as MATLAB's imresize does."""
    image = bicubic_upscale(to_tensor(photograph.rgb), scale)[0]
    return photograph.with_pixels(to_array(image), enlarged_alpha(photograph, scale))


def enlarged_alpha(photograph: Photograph, scale: int) -> np.ndarray | None:
    """Enlarge the transparency, if there is any: (scale*H, scale*W)."""
    return None if photograph.alpha is None else _enlarged(photograph.alpha, scale)


def _enlarged(alpha: np.ndarray, scale: int) -> np.ndarray:
    return to_array(bicubic_upscale(to_tensor(alpha[..., None]), scale)[0])[..., 0]


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


def _to_pillow(photograph: Photograph) -> Image.Image:
    pixels = photograph.quantised()
    if photograph.bits == 16 and photograph.is_grey and photograph.alpha is None:
        image = Image.fromarray(pixels)
    else:
        image = Image.fromarray(eight_bit(pixels))
    image.info.update(
        {key: value for key, value in (("icc_profile", photograph.icc_profile), ("exif", photograph.exif)) if value}
    )
    return image
