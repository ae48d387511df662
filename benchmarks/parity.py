"""Distance of this project's networks from recorded outputs of the released ones, array by array.

    python benchmarks/parity.py FOLDER

FOLDER holds, for each network NAME, NAME.npz (recorded inputs and outputs), NAME_keys.json (the released keys and
shapes) and make_weights.py, whose ``state_dict_from_keys`` makes the recorded network's weights. Prints for each array
the largest absolute error, and that error relative to the array's largest value, in float32 and in float64.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import srflow_plugin
from srflow_plugin import SRFlowNet


def computed(net: SRFlowNet, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute the answers of ``net`` to the recorded inputs, in the released code's units."""
    gt, lq = arrays["gt"], arrays["lr"]
    latents, logdet = net.encode(gt, lq)
    given = [arrays[name] for name in sorted(arrays) if name.startswith("decode_latent_")]
    sr = net.decode(given, lq)
    sr_latents, sr_logdet = net.encode(sr, lq)
    features = net.encoder(lq)[{4: 1, 8: 2}[net.scale]]
    corner = arrays["fea_up1"].shape[2:]
    return {
        **{f"encoded_latent_{index}": latent for index, latent in enumerate(latents)},
        "logdet": logdet + split_log_density(latents),
        "nll": 3 * net(gt, lq),  # bits per pixel there, per dimension here
        "sr": sr,
        "sr_logdet": -(sr_logdet + split_log_density(sr_latents)),
        "fea_up1": features[:, :, : corner[0], : corner[1]],
    }


def split_log_density(latents: list[Tensor]) -> Tensor:
    """Log-density of all latents but the last, which the released log-determinant counts in."""
    normal = torch.distributions.Normal(0.0, 1.0)
    return torch.stack([normal.log_prob(latent).sum((1, 2, 3)) for latent in latents[:-1]]).sum(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    spec = importlib.util.spec_from_file_location("make_weights", folder / "make_weights.py")
    assert spec and spec.loader
    make_weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_weights)

    sys.stdout.write(
        "| network | array | largest value | float32: absolute, relative | float64: absolute, relative |\n"
    )
    sys.stdout.write("|---|---|---|---|---|\n")
    for recorded in sorted(folder.glob("*.npz")):
        state = make_weights.state_dict_from_keys(folder / f"{recorded.stem}_keys.json")
        net = srflow_plugin.load_network({key: torch.from_numpy(value) for key, value in state.items()})
        arrays = {name: torch.from_numpy(array).double() for name, array in np.load(recorded).items()}
        with torch.no_grad():
            ours = [
                computed(net.to(dtype), {name: array.to(dtype) for name, array in arrays.items()})
                for dtype in (torch.float32, torch.float64)
            ]
        for name in ours[0]:
            largest = arrays[name].abs().max().item()
            errors = [(values[name].double() - arrays[name]).abs().max().item() for values in ours]
            columns = " | ".join(f"{error:.1e}, {error / largest:.1e}" for error in errors)
            sys.stdout.write(f"| {recorded.stem} | {name} | {largest:.4g} | {columns} |\n")


if __name__ == "__main__":
    main()
