"""Every metric against an independent implementation: the largest difference over noisy photographs.

`python benchmarks/metrics.py`: PSNR and SSIM against scikit-image, LR-PSNR against scikit-image on BasicSR's imresize
rounded as MATLAB rounds, LPIPS and the maps of S10 against the package `lpips` on the same weights (AlexNet without its
download, at random), S10 against its formula written out in numpy, SSIM on tensors against BasicSR's on arrays.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import cv2
import lpips
import numpy as np
import skimage.data
import torch
import torchvision
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tqdm import tqdm

import srflow_plugin
from srflow_plugin.metrics.samples import measure

# isort: split
from basicsr.utils.matlab_functions import calculate_weights_indices

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "cat")
SAMPLES = 3


def main() -> None:
    alexnet = torchvision.models.alexnet

    def without_download(*args: object, **kwargs: object) -> torch.nn.Module:
        torch.manual_seed(0)
        network: torch.nn.Module = alexnet(weights=None)
        return network

    torchvision.models.alexnet = without_download
    networks = [lpips.LPIPS(net="alex", spatial=spatial, verbose=False) for spatial in (False, True)]
    differences: defaultdict[str, float] = defaultdict(float)
    for number, name in enumerate(tqdm(PHOTOGRAPHS, unit="image")):
        gt = np.ascontiguousarray(getattr(skimage.data, name)()[40:264, 40:296, ::-1])
        lq = srflow_plugin.bicubic_downscale(gt, 4)
        rng = np.random.default_rng(number)
        samples = [(gt + rng.normal(0, 8, gt.shape)).round().clip(0, 255).astype(np.uint8) for _ in range(SAMPLES)]
        for sample in samples:
            theirs = {
                "psnr": peak_signal_noise_ratio(gt, sample, data_range=255),
                "ssim": scikit_ssim(gt, sample),
                "lr_psnr": peak_signal_noise_ratio(matlab_downscale(sample), lq, data_range=255),
                "lpips": networks[0](*map(tensor, (sample, gt))).item(),
            }
            for metric, value in theirs.items():
                section = {"type": f"calculate_{metric}", **({"crop_border": 0} if metric in ("psnr", "ssim") else {})}
                ours = measure([sample], gt, lq, section)
                differences[metric] = max(differences[metric], abs(ours - value))
            ours = measure([sample], gt, lq, {"type": "calculate_ssim_pt", "crop_border": 0})
            differences["ssim on tensors"] = max(differences["ssim on tensors"], abs(ours - scikit_ssim(gt, sample)))
        maps = np.stack([networks[1](*map(tensor, (sample, gt)))[0, 0].detach().double().numpy() for sample in samples])
        closest = maps.mean((1, 2)).min()
        formula = 100 * (closest - maps.min(0).mean()) / closest
        ours = measure(samples, gt, lq, {"type": "calculate_diversity"})
        differences["S, percent"] = max(differences["S, percent"], abs(ours - formula))
        deviation = np.sqrt(np.mean((np.stack(samples) - np.mean(samples, axis=0)) ** 2, axis=0)).mean()
        ours = measure(samples, gt, lq, {"type": "calculate_pixel_std"})
        differences["pixel std"] = max(differences["pixel std"], abs(ours - deviation))
    for metric, difference in differences.items():
        sys.stdout.write(f"{metric}: {difference:.1e}\n")


def scikit_ssim(gt: np.ndarray, image: np.ndarray) -> float:
    """Compute SSIM where the window is whole, as the field does."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, full = structural_similarity(gt, image, data_range=255, channel_axis=2, full=True, **options)
    return float(full[5:-5, 5:-5].mean())


def matlab_downscale(image: np.ndarray) -> np.ndarray:
    """Downscale by BasicSR's weights in float64, rounded after each dimension."""
    result = image.astype(np.float64)
    for _ in range(2):
        weights, indices, before, after = calculate_weights_indices(
            len(result), len(result) // 4, 0.25, "cubic", 4, True
        )
        padded = np.pad(result, ((before, after), *[(0, 0)] * (result.ndim - 1)), mode="symmetric")
        windows = padded[indices.numpy().astype(int)]
        result = np.einsum("rk,rk...->r...", weights.double().numpy(), windows)
        result = np.floor(result + 0.5).clip(0, 255).swapaxes(0, 1)
    return result.astype(np.uint8)


def tensor(image: np.ndarray) -> torch.Tensor:
    rgb: torch.Tensor = lpips.im2tensor(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return rgb


if __name__ == "__main__":
    main()
