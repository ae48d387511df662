"""Metrics of other packages: any object that is called with ``(sr, gt)``, by its dotted name.

A class, or a function that takes no images, makes the metric, once, with the other keys of its section. Images are RGB
float tensors (1, 3, H, W) in [0, 1], on the GPU if there is one. The result is one number.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from basicsr.utils import img2tensor
from basicsr.utils.registry import METRIC_REGISTRY

from srflow_plugin.devices import choose_device
from srflow_plugin.errors import UserError, short
from srflow_plugin.flow.precision import COMPLETE

Better = Literal["higher", "lower"]
NOT_ARGUMENTS = ("type", "better", "over", "crop_border")  # keys of a section that are not the object's
_made: dict[str, Any] = {}  # by name and arguments


def find_metric(name: str) -> Callable[..., Any]:
    """Find a metric by its name; one of another package, by its dotted name, is registered with BasicSR first.

    Raises:
        UserError: nothing of that dotted name can be imported or called.
    """
    if "." in name and name not in METRIC_REGISTRY:
        imported(name)
        METRIC_REGISTRY._do_register(name, _adapted(name))
    metric: Callable[..., Any] = METRIC_REGISTRY.get(name)
    return metric


def imported(name: str) -> Callable[..., Any]:
    """Import what a dotted name names."""
    module, _, rest = name.rpartition(".")
    names = [rest]
    while True:
        try:
            found: Any = import_module(module)
            break
        except ImportError as error:
            is_missing = isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(error.name)
            if not is_missing or "." not in module:
                raise UserError(f"{name} cannot be imported: {' '.join(str(error).split())}") from error
            module, _, rest = module.rpartition(".")
            names.insert(0, rest)
    for part in names:
        if not hasattr(found, part):
            raise UserError(f"{name} cannot be imported: {found.__name__} has no {part}")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{name} cannot be called: it is a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def better_of(section: dict[str, Any]) -> Better | None:
    """Say which values of a metric are better, as far as it says so: as pyiqa's metrics do, or torchmetrics'."""
    made: Any = _object(section["type"], {key: value for key, value in section.items() if key not in NOT_ARGUMENTS})
    lower = getattr(made, "lower_better", None)
    if lower is None and getattr(made, "higher_is_better", None) is not None:
        lower = not made.higher_is_better
    return None if lower is None else "lower" if lower else "higher"


def settle_better(section: dict[str, Any]) -> None:
    """Put into a section which values are better, where its metric says so.

    Raises:
        UserError: the section says otherwise.
    """
    own = better_of(section)
    if own is not None and section.get("better", own) != own:
        raise UserError(f"better: {short(section['better'])}, and {section['type']} says {own}; leave it out")
    if own is not None:
        section["better"] = own


def _adapted(name: str) -> Callable[..., float]:
    """Make a metric that BasicSR can call: of uint8 BGR images (H, W, 3)."""

    def metric(img: np.ndarray, img2: np.ndarray, crop_border: int = 0, better: Any = None, **arguments: Any) -> float:
        measure = _object(name, arguments)
        images = [image_tensor(image, crop_border) for image in (img, img2)]
        # torchmetrics' say in update what they take; some of theirs take one image.
        is_of_two = _takes(getattr(measure, "update", measure), *images)
        with torch.no_grad():
            value = measure(*(images if is_of_two else images[:1]))
        if hasattr(measure, "reset"):  # torchmetrics' would average over all images
            measure.reset()
        if isinstance(value, torch.Tensor | np.ndarray | np.generic) and np.prod(value.shape) == 1:
            value = value.item()
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{name} gives {short(value)}, which is no number")
        return float(value)

    return metric


def _object(name: str, arguments: dict[str, Any]) -> Callable[..., Any]:
    """Make the metric of a dotted name and arguments, once."""
    key = f"{name} {sorted(arguments.items())!r}"
    if key not in _made:
        found = imported(name)
        if inspect.isclass(found) or not _takes(found, None, None, **arguments):
            found, arguments = found(**arguments), {}
            if not callable(found):
                raise UserError(f"{name} gives a {type(found).__name__}, which cannot be called with (sr, gt)")
        if isinstance(found, torch.nn.Module):
            found = found.to(_device()).eval()
        _made[key] = partial(found, **arguments) if arguments else found
    return _made[key]  # type: ignore[no-any-return]


def _takes(function: Callable[..., Any], *positional: Any, **arguments: Any) -> bool:
    """Say whether a function can be called so, as far as it shows."""
    try:
        inspect.signature(function).bind(*positional, **arguments)
    except TypeError:
        return False
    except ValueError:  # of a function in C, without a signature
        return True
    return True


def image_tensor(image: np.ndarray, border: int = 0) -> torch.Tensor:
    """Turn a uint8 BGR image (H, W, 3) into an RGB tensor in [0, 1], without its border: (1, 3, h, w).

    It is on the GPU, if there is one that has float64, which metrics compute in.
    """
    if border:
        image = image[border:-border, border:-border]
    tensor: torch.Tensor = img2tensor(image / np.float32(255))[None]
    return tensor.to(_device())


def _device() -> torch.device:
    device = choose_device()
    return device if device.type in COMPLETE else torch.device("cpu")
