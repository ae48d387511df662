"""The pictures of docs/explanation: `python -m benchmarks.explain docs/pictures`.

The x4 network of the package and a photograph that scikit-image carries, which was not used in training: the network's
parts with their sizes, latents against N(0, 1), samples at several temperatures, and the likelihood of the photograph,
blurred and sampled. The numbers of the pictures are printed as Markdown tables, and what JPEG does to samples.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from srflow_plugin import SRFlowNet, bicubic_downscale, load_network
from srflow_plugin.images.pictures import comparison_grid, heat_map, resized, spread, stacked
from srflow_plugin.images.tensors import to_pixels, to_tensor
from srflow_plugin.metrics.lr_psnr import calculate_lr_psnr

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TOP, LEFT, SIDE = 20, 100, 256  # of the photograph
TEMPERATURES = (0.0, 0.4, 0.8, 1.0)
SAMPLES = 10
QUALITIES = (None, 95, 90, 75, 50)  # of JPEG; None: not compressed
BLURS = (0.0, 0.5, 0.75, 1.0, 1.5, 2.0)  # standard deviations in HR pixels
SHOWN_SIDE = 200
LEVEL_COLOUR, LATENT_COLOUR, ENCODER_COLOUR = "#cfe3f5", "#fbe3b9", "#d9ead3"


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    gt = np.ascontiguousarray(skimage.data.chelsea()[TOP : TOP + SIDE, LEFT : LEFT + SIDE])
    lq = bicubic_downscale(gt, 4)
    net = load_network("srflow_x4")
    draw_network(folder / "explain_network.png", net, *lq.shape[:2])
    with torch.inference_mode():
        draw_latents(folder / "explain_latents.png", net, gt, lq)
        draw_temperatures(folder / "explain_temperatures.jpg", net, gt, lq)
        draw_likelihood(folder / "explain_likelihood.png", net, gt, lq)
        print_compressed(net, gt, lq)


def draw_network(path: Path, net: SRFlowNet, height: int, width: int) -> None:
    """Draw levels, steps, splits and latents, with the sizes that the modules have for an LR image."""
    figure, axes = plt.subplots(figsize=(10, 5.2))
    shapes = net.latent_shapes(height, width)
    channels, (rows, columns) = 3, (net.scale * height, net.scale * width)
    _box(axes, 0, 2, f"HR image\n{channels} x {rows} x {columns}", "white")
    for index, level in enumerate(net.flow.levels):
        x, channels, rows, columns = 2.2 * (index + 1), 4 * channels, rows // 2, columns // 2
        steps = [type(step).__name__ for step in level.bijections]
        text = f"level {index + 1}: squeeze to\n{channels} x {rows} x {columns}\n"
        text += f"{steps.count('TransitionStep')} transition steps\n{steps.count('FlowStep')} flow steps"
        _box(axes, x, 2, f"{text}\n{_count(level):,} parameters", LEVEL_COLOUR)
        _arrow(axes, (x - 1.3, 2), (x - 0.95, 2), both=True)
        _arrow(axes, (x, 0.75), (x, 1.35))
        if index < len(net.flow.splits):
            channels = shapes[index][0]
            _box(axes, x, 3.5, f"split: latent {index + 1}\n{' x '.join(map(str, shapes[index]))}", LATENT_COLOUR)
            _arrow(axes, (x, 2.65), (x, 3.15), both=True)
    x = 2.2 * (len(net.flow.levels) + 1)
    _box(axes, x, 2, f"latent {len(shapes)}\n{' x '.join(map(str, shapes[-1]))}", LATENT_COLOUR)
    _arrow(axes, (x - 1.3, 2), (x - 0.95, 2), both=True)
    blocks = len(net.encoder.body)
    encoder = f"encoder of the LR image, 3 x {height} x {width}: {blocks} RRDBs, {_count(net.encoder):,} parameters; "
    axes.text(4.4, 0.45, f"{encoder}\nits features steer every flow step", ha="center", va="center", bbox=_style("w"))
    axes.set(xlim=(-1.1, x + 1.1), ylim=(0, 4.1))
    axes.axis("off")
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)


def draw_latents(path: Path, net: SRFlowNet, gt: np.ndarray, lq: np.ndarray) -> None:
    """Draw histograms of pixels and of latents, of the photograph and of its bicubic enlargement."""
    pictures = {"photograph": gt, "enlarged LR image": resized_bicubic(lq)}
    latents = {name: net.encode(to_tensor(image), to_tensor(lq))[0] for name, image in pictures.items()}
    figure, axes = plt.subplots(1, 1 + len(latents["photograph"]), figsize=(11, 3.4))
    for name, image in pictures.items():
        axes[0].hist(image.ravel(), bins=np.arange(0, 257, 4), density=True, histtype="step", label=name)
    axes[0].set(title="values of pixels", xlabel="grey level")
    normal = np.linspace(-4, 4, 200)
    sys.stdout.write("| | latent | mean | standard deviation |\n|---|---|---|---|\n")
    for index, of_level in enumerate(zip(*latents.values(), strict=True)):
        one = axes[index + 1]
        for name, latent in zip(latents, of_level, strict=True):
            one.hist(latent.numpy().ravel(), bins=np.linspace(-4, 4, 81), density=True, histtype="step", label=name)
            sys.stdout.write(f"| {name} | {index + 1} | {latent.mean():.3f} | {latent.std():.3f} |\n")
        one.plot(normal, np.exp(-(normal**2) / 2) / np.sqrt(2 * np.pi), "k:", label="N(0, 1)")
        one.set(title=f"latent {index + 1}", xlabel="value")
    axes[-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_temperatures(path: Path, net: SRFlowNet, gt: np.ndarray, lq: np.ndarray) -> None:
    """Draw a sample of one seed at each temperature, and below it where ten samples differ."""
    samples = [(f"{lq.shape[1]}x{lq.shape[0]} pixels", resized(lq, SHOWN_SIDE, SHOWN_SIDE))]
    maps = [("", np.full((SHOWN_SIDE, SHOWN_SIDE, 3), 255, np.uint8))]
    sys.stdout.write(
        "\n| temperature | PSNR | PSNR of the mean | LR-PSNR | standard deviation |\n|---|---|---|---|---|\n"
    )
    for temperature in TEMPERATURES:
        number = SAMPLES if temperature else 1
        drawn = net.sample(to_tensor(lq), temperature, number, seed=0, resample=0.8)[:, 0]
        pictures = [to_pixels(image) for image in drawn]
        deviation = spread(pictures) if number > 1 else np.zeros(gt.shape[:2])
        samples.append((f"temperature {temperature:g}", resized(pictures[0], SHOWN_SIDE, SHOWN_SIDE)))
        shown = resized(heat_map(deviation, "grey levels")[: gt.shape[0]], SHOWN_SIDE, SHOWN_SIDE)
        maps.append((f"differ by {deviation.mean():.1f} levels", shown))
        numbers = (
            np.mean([psnr(picture, gt) for picture in pictures]),
            psnr(np.mean(pictures, 0), gt),
            np.mean([calculate_lr_psnr(picture, gt, lq=lq, scale=4) for picture in pictures]),
            deviation.mean(),
        )
        sys.stdout.write(f"| {temperature:g} | {' | '.join(f'{value:.2f}' for value in numbers)} |\n")
    rows = [[*samples, ("original", resized(gt, SHOWN_SIDE, SHOWN_SIDE))], [*maps, maps[0]]]
    Image.fromarray(stacked([comparison_grid(row, SHOWN_SIDE) for row in rows])).save(path, quality=90)


def draw_likelihood(path: Path, net: SRFlowNet, gt: np.ndarray, lq: np.ndarray) -> None:
    """Draw the likelihood of the photograph as it is blurred, and of samples, all given the same LR image."""
    condition = to_tensor(lq)
    blurred = [cv2.GaussianBlur(gt, (0, 0), sigma) if sigma else gt for sigma in BLURS]
    curves = _likelihoods(net, blurred, condition)
    drawn = [to_pixels(net.sample(condition, tau, seed=0, resample=0.8)[0, 0]) for tau in TEMPERATURES]
    of_samples = _likelihoods(net, drawn, condition)
    sys.stdout.write("\n| image | NLL | code length |\n|---|---|---|\n")
    names = [f"photograph, blurred by {sigma:g}" if sigma else "photograph" for sigma in BLURS]
    names += [f"sample, temperature {tau:g}" for tau in TEMPERATURES]
    for name, nll, bits in zip(names, *(a + b for a, b in zip(curves, of_samples, strict=True)), strict=True):
        sys.stdout.write(f"| {name} | {nll:.2f} | {bits:.2f} |\n")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axes, xs, values in ((left, BLURS, curves), (right, TEMPERATURES, of_samples)):
        axes.plot(xs, values[0], "o-", label="NLL of the float image")
        axes.plot(xs, values[1], "s-", label="code length of the 8-bit image")
        axes.axhline(0, color="grey", linewidth=0.5)
    left.set(xlabel="blur of the photograph, HR pixels", ylabel="bits per dimension", title="the photograph")
    right.set(xlabel="temperature", title="samples")
    left.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def print_compressed(net: SRFlowNet, gt: np.ndarray, lq: np.ndarray) -> None:
    """Print the PSNR of what is drawn for the LR image after JPEG."""
    sys.stdout.write("\n| JPEG quality | bicubic | temperature 0 | temperature 0.8 |\n|---|---|---|---|\n")
    for quality in QUALITIES:
        given, file = lq, io.BytesIO()
        if quality:
            Image.fromarray(lq).save(file, "JPEG", quality=quality)
            given = np.asarray(Image.open(file).convert("RGB"))
        drawn = [to_pixels(net.sample(to_tensor(given), tau, seed=0, resample=0.8)[0, 0]) for tau in (0, 0.8)]
        numbers = [f"{psnr(picture, gt):.2f}" for picture in (resized_bicubic(given), *drawn)]
        sys.stdout.write(f"| {quality or 'none'} | {' | '.join(numbers)} |\n")


def resized_bicubic(lq: np.ndarray) -> np.ndarray:
    """Enlarge four times, bicubically."""
    return np.asarray(cv2.resize(lq, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))


def psnr(image: np.ndarray, gt: np.ndarray) -> float:
    """PSNR of 8-bit images, RGB, in dB."""
    return float(10 * np.log10(255**2 / np.mean((image.astype(float) - gt) ** 2)))


def _likelihoods(net: SRFlowNet, images: Sequence[np.ndarray], lq: Tensor) -> tuple[list[float], list[float]]:
    """NLL and code length of images, in bits per dimension."""
    tensors = [to_tensor(image) for image in images]
    return [float(net(image, lq)) for image in tensors], [float(net.code_length(image, lq)) for image in tensors]


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _style(colour: str) -> dict[str, Any]:
    return {"boxstyle": "round,pad=0.4", "facecolor": ENCODER_COLOUR if colour == "w" else colour, "edgecolor": "grey"}


def _box(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    axes.text(x, y, text, ha="center", va="center", fontsize=8.5, bbox=_style(colour))


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], both: bool = False) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "<->" if both else "->", "color": "grey"})


if __name__ == "__main__":
    main()
