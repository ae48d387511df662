"""HR and LR images paired by name, and read."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from srflow_plugin.errors import UserError
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.leaderboard.sets import Pair, find_set, read_pair
from tests.helpers import litter, noise_image

NUMBERS = [str(number) for number in range(1, 12)]  # 1 begins 10 and 11, too
ACCENT = "caf\u00e9"


def make_set(folder: Path, hr: list[str], lr: list[str]) -> tuple[Path, Path]:
    for name, files in (("HR", hr), ("LR", lr)):
        (folder / name).mkdir()
        for file in files:
            (folder / name / (file if "." in file else f"{file}.png")).touch()
    return folder / "HR", folder / "LR"


@pytest.mark.parametrize(
    ("hr", "lr"),
    [
        (NUMBERS, NUMBERS),
        (NUMBERS, [f"{name}x4" for name in NUMBERS]),
        (NUMBERS, [f"{name}_x4" for name in NUMBERS]),
        (NUMBERS, [f"{name}_LR" for name in NUMBERS]),
        (NUMBERS, [f"{name}LRx4" for name in NUMBERS]),
        (NUMBERS, [f"LR{name}" for name in NUMBERS]),
        (NUMBERS, [f"small-{name}" for name in NUMBERS]),
        (NUMBERS, [f"{name}.jpg" for name in NUMBERS]),
        ([f"{name}_HR" for name in NUMBERS], NUMBERS),
        ([f"img_{name}_SRF_4_HR" for name in NUMBERS], [f"img_{name}_SRF_4_LR" for name in NUMBERS]),
        (["0801", "0802"], ["0801x4m", "0802x4m"]),
        (["baby_GT", "bird_GT"], ["baby_LRBI_x4", "bird_LRBI_x4"]),
        (["HR_a", "HR_b"], ["LR_a", "LR_b"]),
        (["a", "a_b"], ["a_x4", "a_b_x4"]),
        (["a", "b"], ["ax4", "b"]),
        (["bo", "box4"], ["bo", "box4"]),
        (["x2", "x4"], ["x2x4", "x4x4"]),
        (["Baby", "Bird"], ["baby", "bird"]),
        ([ACCENT], [unicodedata.normalize("NFD", ACCENT)]),
    ],
)
def test_images_are_paired_by_name(hr: list[str], lr: list[str], tmp_path: Path) -> None:
    folders = make_set(tmp_path, hr, lr)
    for folder in folders:
        litter(folder)
    pairs = find_set("one", *folders).pairs
    partners = {pair.hr.stem: pair.lr.name.removesuffix(".png") for pair in pairs}
    assert partners == dict(zip(hr, lr, strict=True))
    assert [pair.number for pair in pairs] == [*range(len(hr))]
    assert [pair.hr for pair in pairs] == sorted(pair.hr for pair in pairs)


@pytest.mark.parametrize(
    ("hr", "lr", "message"),
    [
        (["a", "b"], ["a", "c"], r"^one: .*HR/b\.png has no partner of its own; give both the same name"),
        (["a", "b", "c"], ["a", "b"], "^one: .*HR has 3 images and .*LR 2; .*c.png has no partner"),
        (["a"], ["a", "b"], "^one: .*HR has 1 images and .*LR 2; .*b.png has no partner"),
        (["1"], ["10"], "1.png has no partner"),
        (["1", "2"], ["10x4", "11x4"], "1.png has no partner"),
        (["1"], ["1_2"], "1.png has no partner"),
        (["a"], ["cat"], "a.png has no partner"),
        (["1", "2"], ["1x4", "1x3"], "1.png has no partner"),
        (["1", "2"], ["2x4", "3x4"], "1.png has no partner"),
        (["1"], ["1x4_1"], "1 may belong to 1x4_1 and 1x4_1; give both the same name"),
        (["a.png", "a.jpg"], ["a", "b"], r"one: .*a\.(png|jpg) and .*a\.(png|jpg) have one name; keep one"),
    ],
)
def test_what_is_no_pair_is_named(hr: list[str], lr: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        find_set("one", *make_set(tmp_path, hr, lr))


@pytest.mark.parametrize(
    ("hr", "lr", "scale"),
    [
        ((48, 64), (12, 16), 4),
        ((321, 481), (80, 120), 4),
        ((323, 483), (80, 120), 4),
        ((321, 481), (160, 240), 2),
        ((321, 481), (40, 60), 8),
        ((11, 481), (2, 120), 4),  # the first alone might be 5, too
        ((15, 15), (3, 3), 5),
    ],
)
def test_hr_images_are_cropped_to_a_multiple(
    hr: tuple[int, int], lr: tuple[int, int], scale: int, tmp_path: Path
) -> None:
    pair = Pair(0, tmp_path / "hr.png", tmp_path / "lr.png")
    write_image(pair.hr, noise_image(*hr))
    write_image(pair.lr, noise_image(*lr))
    pictures = read_pair(pair)
    assert (pictures.scale, pictures.hr_size) == (scale, hr)
    assert np.array_equal(pictures.gt, read_image(pair.hr)[: scale * lr[0], : scale * lr[1]])
    assert np.array_equal(pictures.lq, read_image(pair.lr))


@pytest.mark.parametrize(
    ("hr", "lr", "message"),
    [
        ((321, 481), (81, 121), "is 481x321 and .* 121x81: crop the first to a whole multiple of the second"),
        ((48, 64), (12, 15), "crop the first"),
        ((48, 64), (48, 64), "crop the first"),
        ((48, 64), (16, 12), "crop the first"),
        ((12, 16), (48, 64), "are HR and LR swapped?"),
    ],
)
def test_sizes_that_do_not_belong_together(
    hr: tuple[int, int], lr: tuple[int, int], message: str, tmp_path: Path
) -> None:
    pair = Pair(0, tmp_path / "hr.png", tmp_path / "lr.png")
    write_image(pair.hr, noise_image(*hr))
    write_image(pair.lr, noise_image(*lr))
    with pytest.raises(UserError, match=message):
        read_pair(pair)
