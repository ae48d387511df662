"""Everything that this package adds to BasicSR's registries, in one place; importing this module adds it."""

from __future__ import annotations

from basicsr.utils import registry

from srflow_plugin.archs.rrdbnet_x8_arch import RRDBNetX8
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.losses.lpips_loss import LPIPSLoss, STLPIPSLoss
from srflow_plugin.losses.nll_loss import NLLLoss
from srflow_plugin.metrics.calibration import calculate_coverage, calculate_crps, calculate_energy_score
from srflow_plugin.metrics.code_length import calculate_code_length, calculate_nll
from srflow_plugin.metrics.diversity import calculate_diversity, calculate_pixel_std
from srflow_plugin.metrics.lpips_metric import calculate_lpips, calculate_stlpips
from srflow_plugin.metrics.lr_psnr import calculate_lr_psnr
from srflow_plugin.models.prior_model import SRFlowPriorModel
from srflow_plugin.models.srflow_model import SRFlowModel

METRICS = (
    calculate_code_length,
    calculate_coverage,
    calculate_crps,
    calculate_diversity,
    calculate_energy_score,
    calculate_lpips,
    calculate_lr_psnr,
    calculate_nll,
    calculate_pixel_std,
    calculate_stlpips,
)

for added, to in (
    ((SRFlowNet, RRDBNetX8), registry.ARCH_REGISTRY),
    ((NLLLoss, LPIPSLoss, STLPIPSLoss), registry.LOSS_REGISTRY),
    ((SRFlowModel, SRFlowPriorModel), registry.MODEL_REGISTRY),
    (METRICS, registry.METRIC_REGISTRY),
):
    for thing in added:
        to.register(thing)
