"""Losses and validations over iterations, from the logs: `python recipes/curves.py DIR PICTURE`.

DIR is the folder that recipes/train.py wrote. Above is the loss of training batches, below the PSNR of validations.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

TITLES = {
    "RRDB_x4": "encoder, x4",
    "SRFlow_x4": "flow, x4",
    "SRFlow_x4_image": "both, x4",
    "SRFlow_x4_consistent": "both, consistent, x4",
    "SRFlow_x4_real": "real photographs, x4",
    "SRFlow_x8_face_image": "faces, x8",
}
LOSSES = {"l_nll": "NLL (bits per dimension)", "l_pix": "L1"}
SMOOTHED = 10  # log lines


def main() -> None:
    folder, picture = map(Path, sys.argv[1:])
    figure, axes = plt.subplots(2, len(TITLES), figsize=(3.2 * len(TITLES), 5), sharex="col", squeeze=False)
    for (above, below), (name, title) in zip(axes.T, TITLES.items(), strict=True):
        text = "\n".join(log.read_text() for log in sorted((folder / "experiments" / name).glob("train_*.log")))
        loss = next(loss for loss in LOSSES if f" {loss}:" in text)
        steps, values = map(np.array, zip(*sorted(by_iteration(text, rf"iter:.* {loss}: (\S+)").items()), strict=True))
        above.plot(steps, values, color="lightsteelblue", linewidth=0.7)
        smooth = np.convolve(values, np.ones(SMOOTHED) / SMOOTHED, "valid")
        above.plot(steps[SMOOTHED - 1 :], smooth)
        above.set(title=title, ylabel=LOSSES[loss], ylim=np.percentile(values, [0, 97]))
        for label, pattern in ("tau = 0", r"# psnr(?:_tau0)?: (\S+)"), ("tau = 0.8", r"# psnr_tau0.8: (\S+)"):
            if measured := by_iteration(text, pattern):
                below.plot(*zip(*measured.items(), strict=True), "o-", label=label)
        below.set(xlabel="iteration", ylabel="PSNR of a validation (dB)")
        below.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    sys.stdout.write(f"{picture} is written.\n")


def by_iteration(text: str, pattern: str) -> dict[int, float]:
    """Find a number by iteration; a validation's lines follow its iteration's, those of the first data set count."""
    found: dict[int, float] = {}
    step = 0
    for line in text.splitlines():
        if iteration := re.search(r"iter: *([\d,]+),", line):
            step = int(iteration[1].replace(",", ""))
        if number := re.search(pattern, line):
            found.setdefault(step, float(number[1]))
    return found


if __name__ == "__main__":
    main()
