"""What the page shows of an image, without the page."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage
import torch
from basicsr.metrics import calculate_psnr
from PIL import Image
from torch import Tensor

from srflow_plugin.applications import transfer_content
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.data.photographs import from_pillow
from srflow_plugin.data.resize import bicubic_downscale
from srflow_plugin.errors import UserError
from srflow_plugin.flow import Context
from srflow_plugin.metrics.lr_psnr import calculate_lr_psnr
from srflow_plugin.pictures import bicubic_upscale, heat_map
from srflow_plugin.upscaling import RESAMPLE

IMAGES_KEPT = 8  # whose encoder features are remembered
EXAMPLES = {  # of scikit-image's photographs: file, left, top, side
    "cat": ("chelsea.png", 115, 40, 256),
    "astronaut": ("astronaut.png", 130, 0, 256),
    "coffee": ("coffee.png", 150, 60, 320),
}


class Answer(NamedTuple):
    """What the page shows: pictures as uint8 RGB (H, W, 3)."""

    bicubic: np.ndarray
    samples: list[np.ndarray]
    spread: np.ndarray | None  # map of the standard deviation
    gt: np.ndarray | None
    figures: list[tuple[str, str]]


class Session:
    """A network, and the images that it has seen lately.

    Args:
        network: in eval mode.
        max_pixels: of an LR image; larger ones are refused.
    """

    def __init__(self, network: SRFlowNet, max_pixels: int) -> None:
        self.network = network
        self.max_pixels = max_pixels
        self.features: OrderedDict[bytes, list[Context]] = OrderedDict()

    def upscale(self, image: Image.Image, is_gt: bool, temperature: float, num_samples: int, seed: int) -> Answer:
        """Samples of an LR image, or with ``is_gt`` of the LR image of an HR image."""
        lq, gt = self._pair(image, is_gt)
        tensor = self._tensor(lq)
        with torch.no_grad():
            features = self._features(lq, tensor)
            number = num_samples if temperature > 0 else 1
            drawn = self.network.sample(tensor, temperature, number, seed, resample=RESAMPLE, features=features)[:, 0]
        samples = [_pixels(sample) for sample in drawn]
        bicubic = _pixels(bicubic_upscale(tensor, self.network.scale)[0])
        spread = None
        if number > 1:
            spread = heat_map(np.std(np.stack(samples).astype(np.float64), axis=0).mean(2), "grey levels")[..., ::-1]
        figures = self._figures(lq, gt, tensor, features, bicubic, samples)
        return Answer(bicubic, samples, spread, gt, figures)

    def transfer(self, edited: Image.Image, original: Image.Image) -> np.ndarray:
        """An edited HR image with the light of the original, uint8 RGB."""
        (edited_lq, edited_gt), (lq, gt) = self._pair(edited, True), self._pair(original, True)
        assert edited_gt is not None and gt is not None
        if edited_gt.shape != gt.shape:
            raise UserError("both images must have the same size")
        with torch.no_grad():
            result = transfer_content(self.network, self._tensor(edited_gt), self._tensor(edited_lq), self._tensor(lq))
        return _pixels(result[0])

    def _pair(self, image: Image.Image, is_gt: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """LR and HR image, uint8 RGB."""
        scale = self.network.scale
        pixels = image.width * image.height // (scale**2 if is_gt else 1)
        if pixels > self.max_pixels:
            raise UserError(
                f"{image.width}x{image.height} is more than this page takes ({self.max_pixels} LR pixels); "
                "cut the image, or use srflow upscale"
            )
        rgb = (255 * from_pillow(image).rgb).round().astype(np.uint8)
        if not is_gt:
            return rgb, None
        height, width = (size - size % scale for size in rgb.shape[:2])
        if not height or not width:
            raise UserError(f"the image is smaller than {scale} pixels")
        gt = np.ascontiguousarray(rgb[:height, :width])
        return bicubic_downscale(gt, scale), gt

    def _tensor(self, pixels: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / 255)[None]
        return tensor.to(next(self.network.parameters()).device)

    def _features(self, lq: np.ndarray, tensor: Tensor) -> list[Context]:
        """The encoder's features of an LR image, from memory where it was there lately."""
        key = hashlib.sha256(repr(lq.shape).encode() + lq.tobytes()).digest()
        if key not in self.features:
            self.features[key] = self.network.features(tensor)
        self.features.move_to_end(key)
        while len(self.features) > IMAGES_KEPT:
            self.features.popitem(last=False)
        return self.features[key]

    def _figures(
        self,
        lq: np.ndarray,
        gt: np.ndarray | None,
        tensor: Tensor,
        features: list[Context],
        bicubic: np.ndarray,
        samples: list[np.ndarray],
    ) -> list[tuple[str, str]]:
        scale = self.network.scale
        consistency = [calculate_lr_psnr(sample, lq=lq, scale=scale) for sample in samples]
        figures = [
            ("LR-PSNR of the samples, mean and lowest", f"{np.mean(consistency):.2f}, {min(consistency):.2f} dB"),
            ("LR-PSNR of bicubic", f"{calculate_lr_psnr(bicubic, lq=lq, scale=scale):.2f} dB"),
        ]
        if gt is not None:
            psnr = [calculate_psnr(sample, gt, crop_border=0) for sample in samples]
            nll = float(self.network.code_length(self._tensor(gt), tensor, features=features))
            figures += [
                ("PSNR of the samples, mean and best", f"{np.mean(psnr):.2f}, {max(psnr):.2f} dB"),
                ("PSNR of bicubic", f"{calculate_psnr(bicubic, gt, crop_border=0):.2f} dB"),
                ("NLL of the original", f"{nll:.3f} bits per dimension"),
            ]
        return figures


def example(name: str) -> Image.Image:
    """A part of one of scikit-image's photographs."""
    file, left, top, side = EXAMPLES[name]
    with Image.open(Path(skimage.__file__).parent / "data" / file) as image:
        return image.convert("RGB").crop((left, top, left + side, top + side))


def _pixels(image: Tensor) -> np.ndarray:
    return (255 * image.clamp(0, 1)).round().byte().cpu().numpy().transpose(1, 2, 0)
