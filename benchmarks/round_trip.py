"""Round trip of a trained network, HR -> latents -> HR in float32: its errors.

    python benchmarks/round_trip.py -opt options/test_SRFlow_x4_quick.yml

Takes the network, the checkpoint and the data sets from an option file for `basicsr test`. Prints for each image the
largest error in grey levels and how many 8 bit values differ after rounding.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from srflow_plugin import load_network  # before BasicSR, which it makes importable

# isort: split
from basicsr.data import build_dataset

from srflow_plugin.training.setup import load_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", required=True, help="option file for `basicsr test`")
    parser.add_argument("--force_yml", nargs="+", default=[])
    args = parser.parse_args()
    opt = load_run(args.opt, is_train=False, force=args.force_yml).opt
    network = load_network(opt["path"]["pretrain_network_g"], opt["path"].get("param_key_g", "params"))
    for dataset_opt in opt["datasets"].values():
        dataset = build_dataset(dataset_opt)
        for index in range(len(dataset)):
            item = dataset[index]
            gt, lq = item["gt"][None], item["lq"][None]
            with torch.no_grad():
                latents, _ = network.encode(gt, lq)
                back = network.decode(latents, lq)
            error = 255 * (back - gt).abs().max().item()
            wrong = int(((255 * back).round() != (255 * gt).round()).sum())
            name = Path(item["gt_path"]).stem
            sys.stdout.write(f"{dataset_opt['name']:10} {name:14} {error:.2e} grey levels, {wrong} values differ\n")


if __name__ == "__main__":
    main()
