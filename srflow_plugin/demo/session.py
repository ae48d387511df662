"""Answers of the page, without the page."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from srflow_plugin.applications.editing import transfer_content
from srflow_plugin.applications.upscale import RESAMPLE
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.flow import Context
from srflow_plugin.images.photographs import from_pillow
from srflow_plugin.images.pictures import heat_map, spread
from srflow_plugin.images.resize import bicubic_downscale, bicubic_upscale
from srflow_plugin.images.tensors import to_pixels, to_tensor

TEMPERATURES = (0, 0.3, 0.6, 0.8, 0.9, 1.0)
IMAGES_KEPT = 8  # whose encoder features are remembered
EXAMPLES = {  # of scikit-image's photographs: file, left, top, side
    "cat": ("chelsea.png", 115, 40, 256),
    "astronaut": ("astronaut.png", 130, 0, 256),
    "coffee": ("coffee.png", 150, 60, 320),
}


class Answer(NamedTuple):
    """Answer that the page shows: pictures as uint8 RGB (H, W, 3)."""

    pictures: list[tuple[np.ndarray, str]]  # with titles: bicubic, samples, the original if it is known
    spread: np.ndarray | None  # map of the standard deviation
    figures: list[tuple[str, str]]


class Subject(NamedTuple):
    """An LR image, and what is known of it."""

    lq: np.ndarray  # uint8 RGB
    gt: np.ndarray | None
    tensor: Tensor  # the LR image, float (1, 3, h, w)
    features: list[Context]
    bicubic: np.ndarray


class Session:
    """Network, and the images that it has seen lately.

    Args:
        network: in eval mode.
        max_pixels: of an LR image; larger ones are refused.
    """

    def __init__(self, network: SRFlowNet, max_pixels: int) -> None:
        self.network = network
        self.max_pixels = max_pixels
        self.features: OrderedDict[bytes, list[Context]] = OrderedDict()

    def upscale(self, image: Image.Image, is_gt: bool, temperature: float, num_samples: int, seed: int) -> Answer:
        """Draw samples of an LR image, or with ``is_gt`` of the LR image of an HR image."""
        subject = self._subject(image, is_gt)
        samples = self._samples(subject, temperature, num_samples if temperature > 0 else 1, seed)
        differences = heat_map(spread(samples), "grey levels") if len(samples) > 1 else None
        titles = [f"sample {number}" for number in range(len(samples))]
        return Answer(_pictures(subject, samples, titles), differences, self._figures(subject, samples))

    def compare_temperatures(self, image: Image.Image, is_gt: bool, seed: int) -> Answer:
        """Draw one sample at each of TEMPERATURES, of the same seed."""
        subject = self._subject(image, is_gt)
        samples = [self._samples(subject, temperature, 1, seed)[0] for temperature in TEMPERATURES]
        titles = [f"temperature {temperature:g}" for temperature in TEMPERATURES]
        figures = [
            (title, ", ".join(f"{name} {value:.2f} dB" for name, value in self._scores(subject, sample).items()))
            for title, sample in zip(["bicubic", *titles], [subject.bicubic, *samples], strict=True)
        ]
        return Answer(_pictures(subject, samples, titles), None, figures)

    def transfer(self, edited: Image.Image, original: Image.Image) -> np.ndarray:
        """Give an edited HR image the light of the original: uint8 RGB."""
        (edited_lq, edited_gt), (lq, gt) = self._pair(edited, True), self._pair(original, True)
        assert edited_gt is not None and gt is not None
        if edited_gt.shape != gt.shape:
            raise UserError("both images must have the same size")
        with torch.no_grad():
            result = transfer_content(self.network, self._tensor(edited_gt), self._tensor(edited_lq), self._tensor(lq))
        return to_pixels(result[0])

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
        return to_tensor(pixels).to(next(self.network.parameters()).device)

    def _features(self, lq: np.ndarray, tensor: Tensor) -> list[Context]:
        """Look up the encoder's features of an LR image, from memory where it was there lately."""
        key = hashlib.sha256(repr(lq.shape).encode() + lq.tobytes()).digest()
        if key not in self.features:
            self.features[key] = self.network.features(tensor)
        self.features.move_to_end(key)
        while len(self.features) > IMAGES_KEPT:
            self.features.popitem(last=False)
        return self.features[key]

    def _subject(self, image: Image.Image, is_gt: bool) -> Subject:
        lq, gt = self._pair(image, is_gt)
        tensor = self._tensor(lq)
        bicubic = to_pixels(bicubic_upscale(tensor, self.network.scale)[0])
        with torch.no_grad():
            return Subject(lq, gt, tensor, self._features(lq, tensor), bicubic)

    def _samples(self, subject: Subject, temperature: float, num_samples: int, seed: int) -> list[np.ndarray]:
        with torch.no_grad():
            drawn = self.network.sample(
                subject.tensor, temperature, num_samples, seed, resample=RESAMPLE, features=subject.features
            )
        return [to_pixels(sample) for sample in drawn[:, 0]]

    def _scores(self, subject: Subject, image: np.ndarray) -> dict[str, float]:
        scores = {"LR-PSNR": psnr(bicubic_downscale(image, self.network.scale), subject.lq)}
        return scores if subject.gt is None else {**scores, "PSNR": psnr(image, subject.gt)}

    def _figures(self, subject: Subject, samples: list[np.ndarray]) -> list[tuple[str, str]]:
        scores, bicubic = [self._scores(subject, sample) for sample in samples], self._scores(subject, subject.bicubic)
        figures = []
        for name in bicubic:
            values = [score[name] for score in scores]
            spread = f"{np.mean(values):.2f} dB ({min(values):.2f} to {max(values):.2f})"
            figures += [(f"{name} of the samples", spread), (f"{name} of bicubic", f"{bicubic[name]:.2f} dB")]
        if subject.gt is not None:
            bits = self.network.code_length(self._tensor(subject.gt), subject.tensor, features=subject.features)
            figures.append(("code length of the original", f"at most {float(bits):.3f} bits per dimension"))
        return figures


def example(name: str) -> Image.Image:
    """Cut a part out of one of scikit-image's photographs."""
    file, left, top, side = EXAMPLES[name]
    with Image.open(Path(skimage.__file__).parent / "data" / file) as image:
        return image.convert("RGB").crop((left, top, left + side, top + side))


def transfer_example() -> tuple[Image.Image, Image.Image]:
    """Make a photograph into which a part in another light has been pasted, and the photograph."""
    original = example("cat")
    edited, left_top = original.copy(), (10, 30)
    other_light = ImageEnhance.Color(ImageEnhance.Brightness(original).enhance(1.5)).enhance(0.3)
    edited.paste(other_light.crop((*left_top, 120, 140)), left_top)
    return edited, original


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 images (H, W, 3), in dB."""
    error = np.square(image.astype(np.float64) - other).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def _pictures(subject: Subject, samples: list[np.ndarray], titles: list[str]) -> list[tuple[np.ndarray, str]]:
    pictures = [(subject.bicubic, "bicubic"), *zip(samples, titles, strict=True)]
    return pictures if subject.gt is None else [*pictures, (subject.gt, "original")]
