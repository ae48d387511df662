"""SRFlow for BasicSR: a conditional normalizing flow that learns the distribution of super-resolved images.

Importing this package makes BasicSR importable on today's libraries and fills its registries with ``SRFlowNet``,
``RRDBNetX8``, ``NLLLoss``, ``LPIPSLoss``, ``SRFlowModel`` and the metrics of :mod:`srflow_plugin.metrics`.

To read the method, in order: :mod:`srflow_plugin.flow` (the invertible network), :mod:`srflow_plugin.archs` (with the
LR encoder, as one network), :mod:`srflow_plugin.models` (training and validation).
"""

from srflow_plugin import compat

compat.apply()

from srflow_plugin.archs.rrdbnet_x8_arch import RRDBNetX8  # noqa: E402
from srflow_plugin.archs.srflow_arch import SRFlowNet  # noqa: E402
from srflow_plugin.checkpoints import load_network  # noqa: E402
from srflow_plugin.data.resize import bicubic_downscale  # noqa: E402
from srflow_plugin.losses.lpips_loss import LPIPSLoss  # noqa: E402
from srflow_plugin.losses.nll_loss import NLLLoss  # noqa: E402
from srflow_plugin.metrics.diversity import calculate_diversity, calculate_pixel_std  # noqa: E402
from srflow_plugin.metrics.lpips_metric import calculate_lpips, calculate_stlpips  # noqa: E402
from srflow_plugin.metrics.lr_psnr import calculate_lr_psnr  # noqa: E402
from srflow_plugin.metrics.nll import calculate_nll  # noqa: E402
from srflow_plugin.models.srflow_model import SRFlowModel  # noqa: E402
from srflow_plugin.upscaling import upscale  # noqa: E402

__version__ = "0.1.0"
__all__ = [
    "LPIPSLoss",
    "NLLLoss",
    "RRDBNetX8",
    "SRFlowModel",
    "SRFlowNet",
    "bicubic_downscale",
    "calculate_diversity",
    "calculate_lpips",
    "calculate_lr_psnr",
    "calculate_nll",
    "calculate_pixel_std",
    "calculate_stlpips",
    "load_network",
    "upscale",
]
