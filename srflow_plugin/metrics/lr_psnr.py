"""LR-PSNR: does a super-resolved image become its LR image again?"""

from __future__ import annotations

from typing import Any

import numpy as np
from basicsr.metrics import calculate_psnr

from srflow_plugin.images.resize import Border, bicubic_downscale


def calculate_lr_psnr(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    lq: np.ndarray | None = None,
    scale: int = 4,
    lr_border: Border = "symmetric",
    crop_border: int = 0,
    **kwargs: Any,
) -> float:
    """PSNR in dB, on RGB, of an image's MATLAB downscale to the LR image: 8 bit against 8 bit (SRFlow, section 4).

    Args:
        img: super-resolved, uint8 (H, W, 3).
        img2: ground truth, whose downscale stands in for ``lq`` where that is not at hand.
        lq: LR image, uint8 (H / scale, W / scale, 3); SRFlowModel hands it over.
        scale: of the downscale.
        lr_border: of the downscale, as ``lq`` was made: "symmetric", or "replicate" for the common Set5 ... files.
        crop_border: LR pixels left out at each edge.
    """
    if lq is None:
        if img2 is None:
            raise ValueError("LR-PSNR needs the LR image, or the ground truth to make it from")
        lq = bicubic_downscale(img2, scale, lr_border)
    return float(calculate_psnr(bicubic_downscale(img, scale, lr_border), lq, crop_border))
