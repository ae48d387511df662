"""Pairs as BasicSR finds them, sooner; lists as people write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from basicsr.data import data_util, paired_image_dataset
from basicsr.data.paired_image_dataset import PairedImageDataset
from basicsr.data.single_image_dataset import SingleImageDataset
from PIL import Image

from srflow_plugin.data import pairing
from srflow_plugin.data.build import tidy_lists
from srflow_plugin.data.pairing import image_sizes, names_of_list, paired_quickly, pairs_of_folders, pairs_of_list
from srflow_plugin.errors import UserError
from tests.helpers import litter

KEYS = ["lq", "gt"]


def make_files(folder: Path, lq: list[str], gt: list[str]) -> list[str]:
    for name, files in (("LR", lq), ("HR", gt)):
        (folder / name).mkdir()
        for file in files:
            (folder / name / file).touch()
    return [str(folder / "LR"), str(folder / "HR")]


@pytest.mark.parametrize("template", ["{}", "{}x4", "lr_{}"])
def test_folders_are_paired_as_basicsr_does(template: str, tmp_path: Path) -> None:
    names = ["b", "a.1", "ü", "10", "1"]
    folders = make_files(tmp_path, [f"{template.format(name)}.png" for name in names], [f"{n}.png" for n in names])
    theirs = data_util.paired_paths_from_folder(folders, KEYS, template)
    ours = pairs_of_folders(folders, KEYS, template)
    assert sorted(map(str, ours)) == sorted(map(str, theirs)) and len(ours) == 5
    (tmp_path / "list.txt").write_text("".join(f"{name}.png (4,4,3)\n" for name in names))
    arguments = (folders, KEYS, str(tmp_path / "list.txt"), template)
    assert pairs_of_list(*arguments) == data_util.paired_paths_from_meta_info_file(*arguments)


def test_what_systems_leave_in_folders_is_no_image(tmp_path: Path) -> None:
    folders = make_files(tmp_path, ["a.png", "b.ppm", "c.JFIF"], ["a.png", "b.ppm", "c.JFIF"])
    expected = pairs_of_folders(folders, KEYS, "{}")
    assert len(expected) == 3
    litter(tmp_path / "HR")  # in one, so that they have no partners
    assert pairs_of_folders(folders, KEYS, "{}") == expected
    with paired_quickly(SingleImageDataset):
        dataset = SingleImageDataset({"dataroot_lq": folders[1], "io_backend": {"type": "disk"}})
    assert [Path(path).name for path in dataset.paths] == ["a.png", "b.ppm", "c.JFIF"]


@pytest.mark.parametrize(
    ("lq", "gt", "message"),
    [
        (["0001x4.png"], ["0001.png"], r"set filename_tmpl: '\{\}x4'$"),
        (["lr-0001.png"], ["0001.png"], r"set filename_tmpl: 'lr-\{\}'$"),
        (["0001.jpg"], ["0001.png"], "give both images the same name$"),
        (["other.png"], ["0001.png"], "HR/0001.png has no .*LR/0001.png; give both images the same name$"),
        (["1.png", "2.png"], ["1.png"], "LR has 2 images and .*HR 1: 2.png has no partner; remove it$"),
    ],
)
def test_an_image_without_partner_is_named(lq: list[str], gt: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        pairs_of_folders(make_files(tmp_path, lq, gt), KEYS, "{}")


class Counted(str):
    """File name that counts how often one is compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_the_work_does_not_grow_with_the_square(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pairing, data_util):
        monkeypatch.setattr(
            module, "scandir", lambda folder, *others: [Counted(f"{number}.png") for number in range(1000)]
        )
    counts = []
    for pair in (pairs_of_folders, data_util.paired_paths_from_folder):
        Counted.comparisons = 0
        assert len(pair(["LR", "HR"], KEYS, "{}")) == 1000
        counts.append(Counted.comparisons)
    assert counts[0] < 5 * 1000 < 400 * 1000 < counts[1]


def test_basicsrs_functions_are_replaced_while_a_data_set_is_built_alone() -> None:
    with paired_quickly(PairedImageDataset):
        assert paired_image_dataset.paired_paths_from_folder is pairs_of_folders
    assert paired_image_dataset.paired_paths_from_folder is data_util.paired_paths_from_folder


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.png (480,480,3)\nb.png (480,480,3)\n", ["a.png", "b.png"]),
        ("a.png\nb.png\n\n\n", ["a.png", "b.png"]),
        ("\ufeffa.png\r\n\r\n  b.png  \r\n", ["a.png", "b.png"]),
        ("my photo.png (4, 4, 3)\nsub/b.png 4,4\n", ["my photo.png", "sub/b.png"]),
        ("a.png (480,480,3) 1\n", ["a.png"]),
        ("a.png\t(480,480,3)", ["a.png"]),
    ],
)
def test_lists_are_read_as_people_write_them(text: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert names_of_list(tmp_path / "list.txt") == names


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_list_of_nothing_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match="names no images"):
        names_of_list(tmp_path / "list.txt")
    with pytest.raises(UserError, match=r"nowhere\.txt cannot be read: No such file"):
        names_of_list(tmp_path / "nowhere.txt")


def test_lists_reach_other_data_sets_without_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("000 100 (720,1280,3)\n\n001 100 (720,1280,3)\n\n")
    opt = {"meta_info_file": str(tmp_path / "list.txt"), "name": "a"}
    with tidy_lists(opt) as lists:
        assert Path(lists["meta_info_file"]).read_text() == "000 100 (720,1280,3)\n001 100 (720,1280,3)\n"
    assert opt["meta_info_file"] == str(tmp_path / "list.txt") and not Path(lists["meta_info_file"]).exists()


def test_sizes_are_read_from_the_first_bytes(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((5, 7, 3), np.uint8))
    files = [tmp_path / name for name in ("a.png", "b.jpg", "c.bmp", "d.png", "e.png")]
    for file in files[:3]:
        image.save(file)
    files[3].write_bytes(b"no image")
    assert image_sizes(files) == [(5, 7), (5, 7), (5, 7), None, None]
