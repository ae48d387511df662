"""Other methods' files: exact names, and nothing by half a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from srflow_plugin.errors import UserError
from srflow_plugin.leaderboard.outputs import find_outputs
from srflow_plugin.leaderboard.sets import BenchmarkSet, Pair
from tests.helpers import litter

BESIDE = ["{}_grid", "{}_bicubic", "{}_mean", "{}_std", "{}_sheet"]  # what our commands write with samples
HR = ["1", "10", "11"]
LR = ["1x4", "10x4", "11x4"]


def make(folder: Path, files: list[str]) -> None:
    folder.mkdir(parents=True)
    litter(folder)
    for file in files:
        (folder / (file if file.endswith((".jpg", ".PNG")) else f"{file}.png")).touch()


def data_set(hr: list[str], lr: list[str] | None = None) -> BenchmarkSet:
    names = enumerate(zip(hr, lr or hr, strict=True))
    return BenchmarkSet("Set", [Pair(n, Path(f"HR/{one}.png"), Path(f"LR/{other}.png")) for n, (one, other) in names])


def all_of(*templates: str, names: list[str] = HR) -> list[str]:
    return [template.format(name) for template in templates for name in names]


@pytest.mark.parametrize("place", ["", "Set"])
@pytest.mark.parametrize(
    ("files", "samples"),
    [
        (all_of("{}"), ["{hr}"]),
        (all_of("{}", *BESIDE), ["{hr}"]),
        (all_of("{}", "{}_compared", "{}_0"), ["{hr}"]),  # the exact name before any other
        (all_of("{}.jpg"), ["{hr}.jpg"]),
        (all_of("{}", names=LR), ["{lr}"]),
        (all_of("{}_sample0", "{}_sample1", "{}_mean"), ["{hr}_sample0", "{hr}_sample1"]),
        (all_of(*(f"{{}}_sample{n}" for n in range(11))), [f"{{hr}}_sample{n}" for n in range(11)]),  # 10 after 9
        (all_of("{}_run", "{}_run_grid", "{}_run_bicubic", names=LR), ["{lr}_run"]),  # basicsr test
        (all_of("{}_run_0", "{}_run_1", "{}_run_grid", names=LR), ["{lr}_run_0", "{lr}_run_1"]),
        (all_of("{}x4_SwinIR"), ["{hr}x4_SwinIR"]),
        (all_of("{}_1", "{}_2"), ["{hr}_1", "{hr}_2"]),
        (["000000_sample00000", "000001_sample00000", "000002_sample00000"], ["{number:06d}_sample00000"]),
    ],
)
def test_samples_are_found_by_exact_names(place: str, files: list[str], samples: list[str], tmp_path: Path) -> None:
    make(tmp_path / "out" / place, files)
    found = find_outputs(tmp_path / "out", data_set(HR, LR))
    for number, (hr, lr) in enumerate(zip(HR, LR, strict=True)):
        names = [sample.format(hr=hr, lr=lr, number=number) for sample in samples]
        expected = [name if "." in name else f"{name}.png" for name in names]
        assert [path.name for path in found[number]] == expected


def test_a_pattern_that_was_guessed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "out", all_of("{}_net"))
    find_outputs(tmp_path / "out", data_set(HR))
    assert "its {HR name}_net*.png are taken for Set" in capsys.readouterr().err
    make(tmp_path / "exact", HR)
    find_outputs(tmp_path / "exact", data_set(HR))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("hr", "files", "message"),
    [
        (["1"], ["10", "11"], r"out has no 1\.png, 1_sample0\.png or 000000_sample00000\.png for 1\.png of Set"),
        (["1"], ["1_grid"], "has no 1.png"),
        (["1"], ["1_bicubic", "1_std", "1_mean"], "has no 1.png"),
        (["1"], ["1.5", "1a", "11", "01", "a1"], "has no 1.png"),
        (["img"], ["image", "imgs", "img2"], "has no img.png"),
        (["Img"], ["img"], "has no Img.png"),
        (["1"], ["1_2"], r"samples 2 of \{HR name\}_\*\.png; they must count from 0"),
        (["1"], ["1_sample0", "1_sample2"], "samples 0, 2 of .* none left out"),
        (["1", "2"], ["1"], r"has 0 files 2\*\.png for 2\.png, 1 for another image of Set"),
        (["1", "2"], ["1_sample0", "1_sample1", "2_sample0"], r"has 1 files 2_sample\*\.png for 2\.png, 2 for another"),
        (["1", "2"], ["1", "1_net", "2_net"], r"has 0 files 2\*\.png for 2\.png"),
        (["1"], ["1_a", "1_b"], r"has several kinds of files \(\{HR name\}_a\*\.png, \{HR name\}_b\*\.png\)"),
        (["1"], ["1_net_tau0", "1_net_tau0.8"], "has several kinds of files"),
        (["1"], ["1.png", "1.jpg"], r"1\.(png|jpg) and .*1\.(png|jpg) would be the same sample"),
        (["1"], ["1_sample0", "1_sample00"], "would be the same sample"),
        (["1"], ["000000_sample00000", "000001_sample00000"], "samples of 2 images, Set has 1: .* another data set"),
        (["1", "2"], ["000000_sample00000"], r"has 0 files 000001_sample\*\.png for 2\.png"),
        (["1"], [], "has no images"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_refused(hr: list[str], files: list[str], message: str, tmp_path: Path) -> None:
    make(tmp_path / "out", [file.removesuffix(".png") for file in files])
    with pytest.raises(UserError, match=message):
        find_outputs(tmp_path / "out", data_set(hr))


def test_a_file_is_of_the_image_with_the_longest_name(tmp_path: Path) -> None:
    make(tmp_path / "out", ["a", "a_b", "a_b_c"])
    found = find_outputs(tmp_path / "out", data_set(["a", "a_b", "a_b_c"]))
    assert [[path.stem for path in of_image] for of_image in found] == [["a"], ["a_b"], ["a_b_c"]]
    make(tmp_path / "net", ["a_net", "a_b_net"])
    found = find_outputs(tmp_path / "net", data_set(["a", "a_b"]))
    assert [[path.stem for path in of_image] for of_image in found] == [["a_net"], ["a_b_net"]]
