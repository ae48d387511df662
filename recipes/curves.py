"""NLL over iterations, of training batches and held-out images, from the logs: `python recipes/curves.py DIR PICTURE`.

DIR is the folder that recipes/train.py wrote.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

TITLES = {"SRFlow_x4": "photographs, x4", "SRFlow_x8_face": "faces, x8"}
SMOOTHED = 10  # log lines


def main() -> None:
    folder, picture = map(Path, sys.argv[1:])
    figure, axes = plt.subplots(1, len(TITLES), figsize=(10, 3.6))
    for axis, (name, title) in zip(axes, TITLES.items(), strict=True):
        logs = sorted((folder / "experiments" / name).glob("train_*.log"))
        training, held = curves("\n".join(log.read_text() for log in logs))
        steps, values = map(np.array, zip(*sorted(training.items()), strict=True))
        smooth = np.convolve(values, np.ones(SMOOTHED) / SMOOTHED, "valid")
        axis.plot(steps, values, color="lightsteelblue", linewidth=0.7)
        axis.plot(steps[SMOOTHED - 1 :], smooth, label=f"training batches, mean of {SMOOTHED}")
        axis.plot(*zip(*sorted(held.items()), strict=True), "o-", label="held-out images")
        axis.set(
            title=title, xlabel="iteration", ylabel="NLL (bits per dimension)", ylim=np.percentile(values, [0, 97])
        )
        axis.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    sys.stdout.write(f"{picture} is written.\n")


def curves(text: str) -> tuple[dict[int, float], dict[int, float]]:
    """Read the NLL by iteration, of batches and of held-out images: a validation's lines follow its iteration's."""
    training: dict[int, float] = {}
    held: dict[int, float] = {}
    for step, nll, held_nll in re.findall(r"iter: *([\d,]+),.*l_nll: (\S+)|# (?:code_length|nll): ([\d.-]+)", text):
        if step:
            training[int(step.replace(",", ""))] = float(nll)
        else:
            held[max(training)] = float(held_nll)
    return training, held


if __name__ == "__main__":
    main()
