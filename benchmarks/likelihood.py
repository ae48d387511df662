"""Code length of images of any size, and the round trip where a GPU would compute convolutions in TF32.

    python benchmarks/likelihood.py sizes NETWORK HR_FOLDER LR_FOLDER
    python benchmarks/likelihood.py tf32 NETWORK HR_FOLDER LR_FOLDER

"sizes" prints the mean code length of whole images and of each cut to an odd number of LR pixels, as it is and as it
was before version 0.3 (noise extended with the image, bits divided by the extended size). "tf32" emulates TF32 on the
CPU: it rounds what convolutions multiply to 10 bits wherever PyTorch's setting allows it. Printed are the largest
errors of the round trip in grey levels and the number of wrong 8 bit values, as it is and with the flow's protection
taken away.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from srflow_plugin import SRFlowNet, load_network
from srflow_plugin.images.files import find_images, read_image
from srflow_plugin.images.tensors import to_tensor

ODD_SIZES = {"1x1": (1, 1), "5x5": (5, 5), "9x9": (9, 9), "31x31": (31, 31), "57x57": (57, 57)}


class TF32(TorchFunctionMode):
    """Convolutions as a GPU computes them by default."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.conv2d, torch.nn.functional.conv2d) and torch.backends.cudnn.allow_tf32:
            args = (ten_bits(args[0]), ten_bits(args[1]), *args[2:])
        return func(*args, **(kwargs or {}))


def ten_bits(x: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent)


def images(args: argparse.Namespace) -> Iterator[tuple[str, Tensor, Tensor]]:
    for hr, lr in zip(find_images(args.hr), find_images(args.lr), strict=True):
        yield hr.name, to_tensor(read_image(hr)), to_tensor(read_image(lr))


def before(network: SRFlowNet, gt: Tensor, lq: Tensor) -> float:
    """Code length as it was: the noise is extended with the image, the bits divided by the extended size."""
    noise = torch.rand(gt.shape[1:], generator=torch.Generator().manual_seed(0)) - 0.5
    return network.encoding(gt + noise / 256, lq).nll().item() + math.log2(256)


def sizes(network: SRFlowNet, args: argparse.Namespace) -> None:
    parts: dict[str, Callable[[Tensor], Tensor]] = {
        "whole": lambda lq: lq,
        "to an odd height and width": lambda lq: lq[
            :, :, : lq.shape[2] - (1 - lq.shape[2] % 2), : lq.shape[3] - (1 - lq.shape[3] % 2)
        ],
        **{name: lambda lq, size=size: lq[:, :, : size[0], : size[1]] for name, size in ODD_SIZES.items()},  # type: ignore[misc]
    }
    sys.stdout.write("| images | before | code length | of these extended |\n|---|---|---|---|\n")
    pairs = list(images(args))
    for name, cut in parts.items():
        values = []
        for _, whole_gt, whole in pairs:
            lq = cut(whole)
            gt = whole_gt[:, :, : network.scale * lq.shape[2], : network.scale * lq.shape[3]]
            is_extended = network.padded_lq(lq).shape != lq.shape
            values.append((before(network, gt, lq), network.code_length(gt, lq).item(), is_extended))
        means = np.mean(values, axis=0)
        sys.stdout.write(f"| {name} | {means[0]:.4f} | {means[1]:.4f} | {sum(value[2] for value in values)} |\n")


def tf32(network: SRFlowNet, args: argparse.Namespace) -> None:
    sys.stdout.write(
        "| image | float32 | TF32, before | wrong values | TF32 | wrong values |\n|---|---|---|---|---|---|\n"
    )
    for name, gt, lq in images(args):
        cells = [f"{error(network, gt, lq)[0]:.4f}"]
        unprotected = patch("srflow_plugin.flow.precision._exact_cudnn", lambda: lambda: None)
        for scope in (unprotected, nullcontext()):
            with scope, TF32():
                largest, wrong = error(network, gt, lq)
                cells += [f"{largest:.4f}", f"{wrong}"]
        sys.stdout.write(f"| {name} | {' | '.join(cells)} |\n")


def error(network: SRFlowNet, gt: Tensor, lq: Tensor) -> tuple[float, int]:
    """Largest error of the round trip in grey levels, number of wrong 8 bit values."""
    back = network.decode(network.encode(gt, lq)[0], lq)
    wrong = (255 * back.clamp(0, 1)).round() != (255 * gt).round()
    return 255 * (back - gt).abs().max().item(), int(wrong.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sizes", "tf32"])
    parser.add_argument("network")
    parser.add_argument("hr", type=Path)
    parser.add_argument("lr", type=Path)
    args = parser.parse_args()
    with torch.no_grad():
        {"sizes": sizes, "tf32": tf32}[args.what](load_network(args.network), args)


if __name__ == "__main__":
    main()
