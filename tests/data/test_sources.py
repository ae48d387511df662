"""Images by whatever is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from srflow_plugin.data import sources
from srflow_plugin.data.known_sets import KNOWN_SETS, KnownSet
from srflow_plugin.data.sources import agreed, images_of, known_sets_of
from srflow_plugin.errors import UserError
from tests.helpers import ARCHIVED, make_archive, noise_png


def test_folders_archives_and_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("folder/a.png").write_bytes(noise_png(0))
    make_archive(Path("set.zip"), ARCHIVED)
    downloads = Path("downloads")
    assert images_of("folder", downloads) == [Path("folder/a.png")]
    assert images_of("set.zip/top/LR", downloads) == [downloads / "set" / "top" / "LR" / "a.png"]
    monkeypatch.setattr(sources, "fetch", lambda part, folder: [folder / f"{part.folder}.png"])
    names = ["DIV2K_train_HR.png", "Flickr2K_HR.png"]
    assert images_of("DF2K", downloads) == [downloads / name for name in names]
    with pytest.raises(UserError, match=r"Set6 is no folder, archive \(\.zip, .*\) or known data set \(DIV2K, "):
        images_of("Set6", downloads)


def test_a_folder_may_have_the_name_of_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert known_sets_of(["Set5", "mine", "DF2K"]) == KNOWN_SETS["Set5"] + KNOWN_SETS["DF2K"]
    Path("Set5").mkdir()
    assert known_sets_of(["Set5"]) == []


def test_sets_that_are_prepared_alike() -> None:
    def of(*names: str) -> list[KnownSet]:
        return [part for name in names for part in KNOWN_SETS[name]]

    assert agreed("border", [], "symmetric") == "symmetric"
    assert agreed("border", of("Set5", "Set14"), "symmetric") == "replicate"
    assert agreed("center_crop", of("CelebA"), None) == 160
    for setting, option in (("border", "--border"), ("kind", "--format")):
        with pytest.raises(UserError, match=f"not prepared alike; say {option}, or prepare them one by one"):
            agreed(setting, of("Set5", "DIV2K"), None)
    with pytest.raises(UserError, match="--center-crop"):
        agreed("center_crop", of("CelebA", "DIV2K"), None)


def test_what_is_left_out_of_a_folder_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "._a.png", "b.gif", "c.mov", "d.mov"):
        (tmp_path / name).write_bytes(noise_png(0))
    assert images_of(str(tmp_path), tmp_path) == [tmp_path / "a.png"] and "3 files left out" in capsys.readouterr().err
    (tmp_path / "sub").mkdir()
    images_of(str(tmp_path), tmp_path)
    assert capsys.readouterr().err == (
        f"{tmp_path}: 4 files left out, no images that training reads (2 .mov, 1 .gif, 1 folder)\n"
    )
