"""SRFlow: a conditional normalizing flow that learns the distribution of super-resolved images; a plugin for BasicSR.

>>> import torch, srflow_plugin
>>> network = srflow_plugin.load_network("srflow_x4")
>>> network.sample(torch.rand(1, 3, 5, 6), num_samples=2, seed=0).shape
torch.Size([2, 1, 3, 20, 24])

Importing the package costs next to nothing: every name is imported when it is first used. Where BasicSR is installed,
:mod:`srflow_plugin.compat` makes it run on today's libraries, and fills its registries when it is imported.

To read the method, in order: :mod:`srflow_plugin.flow` (the invertible network), :mod:`srflow_plugin.archs` (with the
LR encoder, as one network), :mod:`srflow_plugin.sampling`, :mod:`srflow_plugin.models` (training and validation).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from srflow_plugin import compat
from srflow_plugin._version import __version__

if TYPE_CHECKING:
    from srflow_plugin.applications.redraw import redraw
    from srflow_plugin.applications.upscale import upscale
    from srflow_plugin.archs.rrdbnet_x8_arch import RRDBNetX8
    from srflow_plugin.archs.srflow_arch import SRFlowNet
    from srflow_plugin.checkpoints.load import load_network
    from srflow_plugin.images.resize import bicubic_downscale
    from srflow_plugin.losses.lpips_loss import LPIPSLoss, STLPIPSLoss
    from srflow_plugin.losses.nll_loss import NLLLoss
    from srflow_plugin.metrics.calibration import calculate_coverage, calculate_crps, calculate_energy_score
    from srflow_plugin.metrics.code_length import calculate_code_length, calculate_nll
    from srflow_plugin.metrics.diversity import calculate_diversity, calculate_pixel_std
    from srflow_plugin.metrics.lpips_metric import calculate_lpips, calculate_stlpips
    from srflow_plugin.metrics.lr_psnr import calculate_lr_psnr
    from srflow_plugin.models.prior_model import SRFlowPriorModel
    from srflow_plugin.models.srflow_model import SRFlowModel

__all__ = [
    "LPIPSLoss",
    "NLLLoss",
    "RRDBNetX8",
    "SRFlowModel",
    "SRFlowNet",
    "SRFlowPriorModel",
    "STLPIPSLoss",
    "__version__",
    "bicubic_downscale",
    "calculate_code_length",
    "calculate_coverage",
    "calculate_crps",
    "calculate_diversity",
    "calculate_energy_score",
    "calculate_lpips",
    "calculate_lr_psnr",
    "calculate_nll",
    "calculate_pixel_std",
    "calculate_stlpips",
    "load_network",
    "redraw",
    "upscale",
]

_HOMES = {
    "redraw": "applications.redraw",
    "upscale": "applications.upscale",
    "RRDBNetX8": "archs.rrdbnet_x8_arch",
    "SRFlowNet": "archs.srflow_arch",
    "load_network": "checkpoints.load",
    "bicubic_downscale": "images.resize",
    "LPIPSLoss": "losses.lpips_loss",
    "STLPIPSLoss": "losses.lpips_loss",
    "NLLLoss": "losses.nll_loss",
    "calculate_coverage": "metrics.calibration",
    "calculate_crps": "metrics.calibration",
    "calculate_energy_score": "metrics.calibration",
    "calculate_code_length": "metrics.code_length",
    "calculate_nll": "metrics.code_length",
    "calculate_diversity": "metrics.diversity",
    "calculate_pixel_std": "metrics.diversity",
    "calculate_lpips": "metrics.lpips_metric",
    "calculate_stlpips": "metrics.lpips_metric",
    "calculate_lr_psnr": "metrics.lr_psnr",
    "SRFlowPriorModel": "models.prior_model",
    "SRFlowModel": "models.srflow_model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


compat.follow_basicsr()
