"""The nodes: load a network, draw samples of images with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import folder_paths
import numpy as np
import torch
from comfy import model_management
from comfy.utils import ProgressBar
from torch import Tensor

from srflow_plugin import SRFlowNet, load_network
from srflow_plugin.applications.enlarge import face_warning
from srflow_plugin.applications.upscale import RESAMPLE
from srflow_plugin.checkpoints.shipped import BY_NAME, find_checkpoint
from srflow_plugin.images.pictures import heat_map, spread
from srflow_plugin.sampling.draw import draw_rows
from srflow_plugin.sampling.tiling import BYTES_PER_LQ_PIXEL, MAX_SIDE

FOLDER = "upscale_models"
LARGEST_SEED = 2**64 - 1
MOST_SAMPLES = 64
logger = logging.getLogger(__name__)


class Model(NamedTuple):
    """A network, on the CPU while nothing is drawn, and its name."""

    network: SRFlowNet
    name: str


class LoadSRFlow:
    """Load a network of the package, or a file of ComfyUI's folder upscale_models."""

    RETURN_TYPES = ("SRFLOW_MODEL",)
    RETURN_NAMES = ("srflow_model",)
    FUNCTION = "load"
    CATEGORY = "loaders"
    DESCRIPTION = (
        "Load an SRFlow network: srflow_x4 (clean photographs), srflow_x4_real (JPEG, noise), srflow_x8_face (faces of "
        "20x20), or a file."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        names = [*sorted(BY_NAME), *folder_paths.get_filename_list(FOLDER)]
        return {
            "required": {
                "model_name": (names, {"tooltip": "A network of the package, or a file of models/upscale_models."}),
                "precision": (
                    ["auto", "float32", "bfloat16"],
                    {"default": "auto", "tooltip": "auto is bfloat16 on NVIDIA GPUs that have it, else float32."},
                ),
            }
        }

    @classmethod
    def IS_CHANGED(cls, model_name: str, precision: str) -> int:  # noqa: N802
        """Time of the file, so that one written anew is read anew."""
        return _path(model_name).stat().st_mtime_ns

    def load(self, model_name: str, precision: str) -> tuple[Model]:
        if precision == "auto":
            is_able = model_management.get_torch_device().type == "cuda" and torch.cuda.is_bf16_supported()
            precision = "bfloat16" if is_able else "float32"
        path = _path(model_name)
        return (Model(load_network(path, precision=precision), path.stem),)


class SampleSRFlow:
    """Draw super-resolved samples of images, and a map of where the samples of an image differ."""

    RETURN_TYPES = ("IMAGE", "IMAGE")
    RETURN_NAMES = ("samples", "spread")
    FUNCTION = "sample"
    CATEGORY = "image/upscaling"
    DESCRIPTION = (
        "Draw images that the small one may come from. The same image, seed and temperature give the same pictures as "
        "`srflow upscale`. Large images are drawn in tiles without seams. Spread is a map of where the samples differ, "
        "in grey levels; blank for one sample."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "srflow_model": ("SRFLOW_MODEL",),
                "image": ("IMAGE",),
                "temperature": (
                    "FLOAT",
                    {
                        "default": 0.8,
                        "min": 0.0,
                        "max": 1.5,
                        "step": 0.05,
                        "tooltip": "How far samples may go from the most likely image, which 0 gives.",
                    },
                ),
                "num_samples": (
                    "INT",
                    {"default": 1, "min": 1, "max": MOST_SAMPLES, "tooltip": "Of each image, one after the other."},
                ),
                "seed": ("INT", {"default": 0, "min": 0, "max": LARGEST_SEED, "control_after_generate": True}),
            },
            "optional": {
                "tile": (
                    "INT",
                    {
                        "default": 0,
                        "min": 0,
                        "max": 4096,
                        "tooltip": "Pixels of the small image a side; 0: as large as the free memory allows.",
                    },
                )
            },
        }

    def sample(
        self, srflow_model: Model, image: Tensor, temperature: float, num_samples: int, seed: int, tile: int = 0
    ) -> tuple[Tensor, Tensor]:
        network, (height, width) = srflow_model.network, image.shape[1:3]
        for note in face_warning(network, srflow_model.name, height, width):
            logger.warning(note)
        device = model_management.get_torch_device()
        needed = model_management.module_size(network) + BYTES_PER_LQ_PIXEL * min(height * width, MAX_SIDE**2)
        model_management.free_memory(needed, device)
        how = {"temperature": temperature, "num_samples": num_samples, "seed": seed, "tile": tile or "auto"}
        bar = ProgressBar(len(image) * height)
        network.to(device)
        try:
            drawn = [_drawn(network, one[None, ..., :3].movedim(-1, 1).to(device), how, bar) for one in image]
        finally:
            network.to("cpu")
        return torch.cat(drawn), torch.cat([_map(samples) for samples in drawn])


def _drawn(network: SRFlowNet, lq: Tensor, how: dict[str, Any], bar: ProgressBar) -> Tensor:
    """Draw the samples of one image (1, 3, h, w): (num_samples, scale*h, scale*w, 3), in [0, 1] on the CPU."""
    return torch.cat(list(_bands(network, lq, how, bar)), 1)


def _bands(network: SRFlowNet, lq: Tensor, how: dict[str, Any], bar: ProgressBar) -> Iterator[Tensor]:
    """Draw rows of tiles from top to bottom; between two of them the work can be stopped."""
    wild, replaced = torch.zeros(how["num_samples"], dtype=torch.bool), 0
    model_management.throw_exception_if_processing_interrupted()
    for band in draw_rows(network, [lq], lq.shape, **how, resample=RESAMPLE):
        yield band.images.clamp(0, 1).movedim(1, -1).float().cpu()
        wild, replaced = wild | band.exploded.cpu(), replaced + int(band.replaced.sum())
        bar.update(band.images.shape[2] // network.scale)
        model_management.throw_exception_if_processing_interrupted()
    if wild.any() and how["temperature"]:
        logger.warning("SRFlow: samples that exploded in places, which were drawn again, calmer: %d", int(wild.sum()))
    if replaced:
        logger.warning("SRFlow: %d pixels of the small image are bicubic: the network does not know such", replaced)


def _map(samples: Tensor) -> Tensor:
    """Draw in colour where samples (N, H, W, 3) differ: (1, H + a scale, W, 3); blank where there is one alone."""
    height, width = samples.shape[1:3]
    is_alone = len(samples) == 1
    values = np.full((height, width), np.nan) if is_alone else spread([255 * sample.numpy() for sample in samples])
    return torch.from_numpy(heat_map(values, "grey levels")).float()[None] / 255


def _path(model_name: str) -> Path:
    """Path of a network that the list has."""
    if model_name in BY_NAME:
        return find_checkpoint(model_name)
    return Path(folder_paths.get_full_path_or_raise(FOLDER, model_name))


NODE_CLASS_MAPPINGS = {"LoadSRFlow": LoadSRFlow, "SampleSRFlow": SampleSRFlow}
NODE_DISPLAY_NAME_MAPPINGS = {"LoadSRFlow": "Load SRFlow Model", "SampleSRFlow": "Upscale Image (SRFlow samples)"}
