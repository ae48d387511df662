"""srflow std-map: where samples differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srflow_plugin import load_network
from srflow_plugin.applications.maps import sample_std
from srflow_plugin.images.files import read_image
from srflow_plugin.images.tensors import to_tensor
from tests.helpers import refusal, srflow


@pytest.mark.usefixtures("studio")
def test_numbers_and_a_picture(capsys: pytest.CaptureFixture[str]) -> None:
    srflow("std-map lr.png -o std.npy --num-samples 3 --seed 2")
    mean = next(float(line.split()[1]) for line in capsys.readouterr().out.splitlines() if line.startswith("mean"))
    numbers = np.load("std.npy")
    assert numbers.shape == (44, 52) and numbers.mean() == pytest.approx(mean, abs=1e-4)
    expected = sample_std(load_network("net.pth"), to_tensor(read_image(Path("lr.png"))), 0.8, 3, seed=2, resample=0.8)
    assert numbers == pytest.approx(expected[0].numpy(), abs=1e-4)
    srflow("std-map lr.png -o std.png --num-samples 3")
    assert read_image(Path("std.png")).shape[1] == 52 and read_image(Path("std.png")).shape[0] > 44


@pytest.mark.usefixtures("studio")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere.png -o a.png", "nowhere.png does not exist"),
        ("lr.png -o a.png --num-samples 1", "num_samples must be 2 or more"),
        ("lr.png -o a.png --temperature -1", "argument --temperature: -1 must be 0 or more"),
        ("lr.png -o a.png --resample 1", "argument --resample: 1 must be from 0 to below 1"),
        ("lr.png -o a.png --resample nan", "argument --resample: nan must be from 0 to below 1"),
        ("lr.png -o a.png --temperature=-inf", "argument --temperature: -inf must be 0 or more"),
        ("lr.png -o a.png --temperature 1e999", "argument --temperature: 1e999 must be 0 or more, and finite"),
        ("lr.png -o a.png --seed 9223372036854775808", "argument --seed: 9223372036854775808 must be from -922"),
        ("lr.png -o a.png --seed nan", "argument --seed: invalid whole number value: 'nan'"),
        ("lr.png -o a.png --num-samples 9999999999", "argument --num-samples: 9999999999 is too large"),
        ("lr.png -o a.png --tile 0", "argument --tile: 0 must be 1 or more"),
        ("lr.png -o a.png --scale 0", "argument --scale: 0 must be 2 or more"),
        ("lr.png -o a.png --device gpu", "device 'gpu' is not known; use auto"),
        ("lr.png -o a.pth", "a.pth must end in .png"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert message in refusal(capsys, "std-map", *arguments.split(), "--checkpoint", "net.pth")
