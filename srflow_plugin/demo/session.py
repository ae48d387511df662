"""Answers of the page, without the page."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skimage
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from srflow_plugin.applications.choice import Choice, choose
from srflow_plugin.applications.editing import transfer_content
from srflow_plugin.applications.redraw import RedrawnPhotograph, redraw_photograph
from srflow_plugin.applications.upscale import RESAMPLE, bicubic, enlarged_alpha
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.flow import Context
from srflow_plugin.images.files import DAMAGED, FORMATS
from srflow_plugin.images.photographs import Photograph, bled
from srflow_plugin.images.pictures import heat_map, spread
from srflow_plugin.images.resize import bicubic_downscale
from srflow_plugin.images.rows import open_rows, read_photograph, rows_of
from srflow_plugin.images.tensors import to_array, to_tensor
from srflow_plugin.sampling.draw import draw

TEMPERATURES = (0, 0.3, 0.6, 0.8, 0.9, 1.0)
IMAGES_KEPT = 8  # whose encoder features are remembered
PIXELS_KEPT = 65_536  # of an LR image whose features are remembered; larger ones are drawn in tiles
BICUBIC = "{:.2%} of it is bicubic: even the image of temperature 0 explodes there, as the network knows no such image."
EXAMPLES = {  # of scikit-image's photographs: file, left, top, side
    "cat": ("chelsea.png", 115, 40, 256),
    "astronaut": ("astronaut.png", 130, 0, 256),
    "coffee": ("coffee.png", 150, 60, 320),
}


class Answer(NamedTuple):
    """Answer that the page shows."""

    pictures: list[tuple[str, Photograph]]  # with titles: bicubic, samples, the original if it is known
    lq: Photograph
    spread: np.ndarray | None  # map of the standard deviation, uint8 RGB
    figures: list[tuple[str, str]]
    notes: list[str]  # lines on what is not as one would think


class Subject(NamedTuple):
    """An LR image, and what is known of it."""

    lq: Photograph
    gt: Photograph | None
    tensor: Tensor  # the LR image, float (1, 3, h, w)
    features: list[Context] | None  # of an image that is not too large
    bicubic: Photograph


class Session:
    """Network, and the images that it has seen lately.

    Args:
        network: in eval mode.
        max_pixels: of an LR image; larger ones are refused.
        name: of the network.
    """

    def __init__(self, network: SRFlowNet, max_pixels: int, name: str = "") -> None:
        self.network = network
        self.name = name
        self.max_pixels = max_pixels
        self.features: OrderedDict[bytes, list[Context]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, is_hr: bool) -> Photograph:
        """Read an uploaded file as ``srflow upscale`` does, if it is not too large for the page.

        Args:
            path: of the file.
            is_hr: it is the HR image; its LR image must not be too large.

        Raises:
            UserError: with the name of the file, and not where it lies.
        """
        try:
            size = _size(path)
            if size:
                self._check_size(*size, is_hr)
            return read_photograph(path)
        except Image.DecompressionBombError:
            raise self._too_large(path.name) from None
        except UserError as error:
            raise UserError(str(error).replace(str(path), path.name)) from None

    def choose(self, path: Path, is_hr: bool) -> Choice:
        """Let an uploaded file choose its network; of an HR image the LR image does."""
        photograph = self.read(path, is_hr)
        return choose(rows_of(self._pair(photograph, True)[0]) if is_hr else open_rows(path))

    def upscale(self, photograph: Photograph, is_gt: bool, temperature: float, num_samples: int, seed: int) -> Answer:
        """Draw samples of an LR image, or with ``is_gt`` of the LR image of an HR image."""
        subject = self._subject(photograph, is_gt)
        samples, notes = self._samples(subject, temperature, num_samples if temperature > 0 else 1, seed)
        differences = heat_map(spread([_pixels(one) for one in samples]), "grey levels") if len(samples) > 1 else None
        titles = [f"sample {number}" for number in range(len(samples))]
        pictures, figures = _pictures(subject, samples, titles), self._figures(subject, samples)
        return Answer(pictures, subject.lq, differences, figures, notes)

    def compare_temperatures(self, photograph: Photograph, is_gt: bool, seed: int) -> Answer:
        """Draw one sample at each of TEMPERATURES, of the same seed."""
        subject = self._subject(photograph, is_gt)
        drawn = [self._samples(subject, temperature, 1, seed) for temperature in TEMPERATURES]
        samples = [sample for (sample,), _ in drawn]
        notes = [note for _, lines in drawn for note in lines]
        titles = [f"temperature {temperature:g}" for temperature in TEMPERATURES]
        figures = [
            (title, ", ".join(f"{name} {value:.2f} dB" for name, value in self._scores(subject, sample).items()))
            for title, sample in zip(["bicubic", *titles], [subject.bicubic, *samples], strict=True)
        ]
        return Answer(_pictures(subject, samples, titles), subject.lq, None, figures, notes[:1])

    def transfer(self, edited: Photograph, original: Photograph) -> Photograph:
        """Give an edited HR image the light of the original."""
        (edited_lq, edited_gt), (lq, gt) = self._pair(edited, True), self._pair(original, True)
        assert edited_gt is not None and gt is not None
        if edited_gt.rgb.shape != gt.rgb.shape:
            raise UserError("both images must have the same size")
        with torch.no_grad():
            result = transfer_content(self.network, *map(self._tensor, (edited_gt, edited_lq, lq)))
        return edited_gt.with_pixels(to_array(result[0]), edited_gt.alpha)

    def redraw(
        self,
        picture: Photograph,
        lq: Photograph | None,
        mask: np.ndarray,
        temperature: float = 0,
        seed: int = 0,
        factor: float | None = None,
    ) -> RedrawnPhotograph:
        """Draw what is painted in a picture anew; see :func:`srflow_plugin.applications.redraw.redraw_photograph`."""
        return redraw_photograph(self.network, picture, mask, lq, temperature, seed, factor)

    def _check_size(self, width: int, height: int, is_hr: bool) -> None:
        """Refuse a size that the page does not take."""
        scale = self.network.scale
        if is_hr and min(width, height) < scale:
            raise UserError(f"the image is smaller than {scale} pixels")
        if width * height > self.max_pixels * (scale**2 if is_hr else 1):
            raise self._too_large(f"{width}x{height}")

    def _too_large(self, what: str) -> UserError:
        return UserError(
            f"{what} is more than this page takes ({self.max_pixels} LR pixels); cut the image, use srflow upscale, or "
            "start srflow demo with a larger --max-pixels"
        )

    def _pair(self, photograph: Photograph, is_gt: bool) -> tuple[Photograph, Photograph | None]:
        """LR and HR image."""
        scale = self.network.scale
        height, width = photograph.rgb.shape[:2]
        self._check_size(width, height, is_gt)
        if not is_gt:
            return photograph, None
        height, width = (size - size % scale for size in (height, width))
        rgb, alpha = photograph.rgb[:height, :width], photograph.alpha
        gt = photograph.with_pixels(rgb, None if alpha is None else alpha[:height, :width])
        small_alpha = None if gt.alpha is None else bicubic_downscale(_levels(gt.alpha), scale) / np.float32(255)
        return gt.with_pixels(bicubic_downscale(_pixels(gt), scale) / np.float32(255), small_alpha), gt

    def _tensor(self, photograph: Photograph) -> Tensor:
        return to_tensor(bled(photograph)).to(next(self.network.parameters()).device)

    def _features(self, tensor: Tensor) -> list[Context] | None:
        """Look up the encoder's features of an LR image, from memory where it was there lately."""
        if tensor.shape[2] * tensor.shape[3] > PIXELS_KEPT:
            return None
        key = hashlib.sha256(repr(tensor.shape).encode() + tensor.cpu().numpy().tobytes()).digest()
        with self._lock:  # another thread could forget them in between
            features = self.features.pop(key) if key in self.features else self.network.features(tensor)
            self.features[key] = features  # as the newest
            while len(self.features) > IMAGES_KEPT:
                self.features.popitem(last=False)
        return features

    def _subject(self, photograph: Photograph, is_gt: bool) -> Subject:
        lq, gt = self._pair(photograph, is_gt)
        tensor = self._tensor(lq)
        with torch.no_grad():
            return Subject(lq, gt, tensor, self._features(tensor), bicubic(lq, self.network.scale))

    def _samples(
        self, subject: Subject, temperature: float, num_samples: int, seed: int
    ) -> tuple[list[Photograph], list[str]]:
        """Draw samples; a line says of which the network could not draw all."""
        how: dict[str, Any] = {"features": subject.features, "tile": None if subject.features else "auto"}
        drawn = draw(self.network, subject.tensor, temperature, num_samples, seed, resample=RESAMPLE, **how)
        alpha = enlarged_alpha(subject.lq, self.network.scale)
        samples = [subject.lq.with_pixels(to_array(sample), alpha) for sample in drawn.images[:, 0]]
        share = drawn.replaced / (num_samples * subject.tensor[0, 0].numel())
        return samples, [BICUBIC.format(share)] if share else []

    def _scores(self, subject: Subject, picture: Photograph) -> dict[str, float]:
        small = bicubic_downscale(_pixels(picture), self.network.scale)
        scores = {"LR-PSNR": psnr(small, _pixels(subject.lq))}
        return scores if subject.gt is None else {**scores, "PSNR": psnr(_pixels(picture), _pixels(subject.gt))}

    def _figures(self, subject: Subject, samples: list[Photograph]) -> list[tuple[str, str]]:
        scores, bicubic = [self._scores(subject, sample) for sample in samples], self._scores(subject, subject.bicubic)
        figures = []
        for name in bicubic:
            values = [score[name] for score in scores]
            spread = f"{np.mean(values):.2f} dB ({min(values):.2f} to {max(values):.2f})"
            figures += [(f"{name} of the samples", spread), (f"{name} of bicubic", f"{bicubic[name]:.2f} dB")]
        if subject.gt is not None and subject.features is not None:
            gt = self._tensor(subject.gt)
            bits = self.network.code_length(gt, subject.tensor, features=subject.features)
            figures.append(("code length of the original", f"at most {float(bits):.3f} bits per dimension"))
        return figures


def notes_on(path: Path) -> list[str]:
    """Say what of an uploaded file is not taken."""
    return [f"{path.name}: {note}." for note in open_rows(path).notes]


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


def _size(path: Path) -> tuple[int, int] | None:
    """Read the size of an image without its pixels; None where whoever reads these will say what is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as image:
                return image.size
        except DAMAGED:
            return None


def _pictures(subject: Subject, samples: list[Photograph], titles: list[str]) -> list[tuple[str, Photograph]]:
    pictures = [("bicubic", subject.bicubic), *zip(titles, samples, strict=True)]
    return pictures if subject.gt is None else [*pictures, ("original", subject.gt)]


def _pixels(photograph: Photograph) -> np.ndarray:
    """Round the colours of a photograph to uint8 RGB."""
    return _levels(photograph.rgb)


def _levels(values: np.ndarray) -> np.ndarray:
    levels: np.ndarray = (255 * values).round().astype(np.uint8)
    return levels
