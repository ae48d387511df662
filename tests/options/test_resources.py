"""Mistakes that only weights and data sets show."""

from __future__ import annotations

import mmap
import random
import shutil
import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import lmdb
import pytest
import torch

from srflow_plugin import SRFlowNet
from srflow_plugin.errors import UserError
from srflow_plugin.metrics import published
from srflow_plugin.options.schema import Section
from srflow_plugin.training.setup import load_run
from tests.helpers import UNIX, litter, run_python, truncate, untrained_network


def load(*changes: str) -> Section:
    return load_run("tiny.yml", is_train=True, force=changes).opt


def test_a_checkpoint_of_another_network_is_named(workplace: Path) -> None:
    torch.save({"params": {"conv.weight": torch.zeros(1)}}, "other.pth")
    with pytest.raises(UserError, match=r"other\.pth holds no SRFlow network; its first key is 'conv\.weight'"):
        load("path:pretrain_network_g=other.pth")
    torch.save({"params": {"flow.levels.9.x": torch.zeros(1)}}, "part.pth")
    with pytest.raises(UserError, match=r"part\.pth does not fit network_g: .* is missing \(\d+ keys missing, 1 too"):
        load("path:pretrain_network_g=part.pth")
    arguments = {key: value for key, value in load()["network_g"].items() if key != "type"}
    torch.save({"params": SRFlowNet(**{**arguments, "scale_floor": 0.1}).state_dict()}, "floor.pth")
    with pytest.raises(UserError, match=r"scale_floor is 0\.1 in the checkpoint and 0\.0001 in the network"):
        load("path:pretrain_network_g=floor.pth")
    torch.save({"weights": {}}, "strange.pth")
    with pytest.raises(UserError, match="holds no weights; it has 'weights'"):
        load("path:pretrain_network_g=strange.pth")
    torch.save({"params": {"flow.levels.0.bijections.1.bijections.0.bias": torch.zeros(1, 3, 1, 1)}}, "shape.pth")
    with pytest.raises(UserError, match=r"is \[1, 3, 1, 1\] there, \[1, 12, 1, 1\] in network_g"):
        load("path:pretrain_network_g=shape.pth")


@pytest.mark.parametrize(
    ("key", "path", "ways"),
    [
        ("g", "nowhere.pth", ""),
        ("g", "experiments/first/models/net_g_latest.pth", ", or train first first"),
        ("g", "experiments/known/models/net_g_5.pth", ", or make it: basicsr train -opt options/known.yml"),
        (
            "encoder",
            "experiments/known/models/net_g_5.pth",
            ", or make it: basicsr train -opt options/known.yml; name any RRDB or ESRGAN file, or train without one: "
            "path.pretrain_network_encoder=~",
        ),
    ],
)
def test_the_run_that_makes_a_network_is_named_where_it_is_not_there(
    workplace: Path, key: str, path: str, ways: str
) -> None:
    Path("options").mkdir()
    Path("options/known.yml").touch()
    with pytest.raises(UserError) as error:
        load(f"path:pretrain_network_{key}={path}")
    assert str(error.value).replace("\\", "/").endswith(f"{path} does not exist; correct the path{ways}")


def test_a_network_that_fits_is_taken(workplace: Path) -> None:
    network = untrained_network("net.pth")
    assert load("path:pretrain_network_g=net.pth")["path"]["pretrain_network_g"] == "net.pth"
    torch.save({"params": network.encoder.state_dict()}, "encoder.pth")
    load("path:pretrain_network_encoder=encoder.pth")
    with pytest.raises(UserError, match=r"encoder\.pth holds an RRDB network, .* path\.pretrain_network_encoder"):
        load("path:pretrain_network_g=encoder.pth")


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision.models._utils")  # of how lpips asks for weights
def test_a_perceptual_loss_whose_weights_cannot_be_fetched_is_named(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(workplace / "hub"))
    monkeypatch.setattr(published, "download", fail)
    with pytest.raises(UserError, match=r"train\.perceptual_opt: the weights of LPIPSLoss cannot be had: .*no network"):
        load("train:perceptual_opt:type=LPIPSLoss")


def test_a_pickle_with_code_does_not_run(workplace: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return Path.touch, (Path("ran"),)

    torch.save({"params": Code()}, "code.pth")
    with pytest.raises(UserError, match=r"code\.pth is not a readable checkpoint"):
        load("path:pretrain_network_g=code.pth")
    assert not Path("ran").exists()


def break_lmdb(how: str) -> None:
    folder = Path("data/train_HR.lmdb")
    meta_info = folder / "meta_info.txt"
    if how == "truncated":
        truncate(folder / "data.mdb")
    elif how == "line":
        meta_info.write_text(meta_info.read_text() + "3 (44,52,3)\n")
    elif how == "empty list":
        meta_info.write_text("")
    elif how == "no list":
        meta_info.unlink()
    elif how == "no file":
        (folder / "data.mdb").unlink()
    elif how == "listed too many":
        for phase in ("HR", "LRx4"):
            (folder.with_name(f"train_{phase}.lmdb") / "meta_info.txt").open("a").write("3.png (44,52,3) 1\n")
    else:
        with lmdb.open(str(folder)) as database, database.begin(write=True) as transaction:
            transaction.delete(b"1")
        meta_info.write_text("".join(meta_info.read_text().splitlines(keepends=True)[::2]))


BROKEN = {
    "truncated": "train_HR.lmdb/data.mdb cannot be read: .*truncated; make it again with `srflow prepare`",
    "line": "train_HR.lmdb/meta_info.txt: line 4 is b'3 .*; make it again",
    "empty list": "train_HR.lmdb/meta_info.txt is empty; make it again",
    "no list": "data/train_HR.lmdb is not an LMDB; make one with `srflow prepare`, or io_backend.type: disk",
    "no file": "train_HR.lmdb/data.mdb cannot be read: .*No such file",
    "listed too many": "train_HR.lmdb: meta_info.txt lists 4 images, the LMDB has 3; make it again",
    "missing image": "data/train_HR.lmdb has no image 1; make the pair again",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_data_set_that_is_not_whole_is_named(workplace: Path, how: str) -> None:
    break_lmdb(how)
    with pytest.raises(UserError, match=f"^datasets.train.*{BROKEN[how]}"):
        load()


def test_an_empty_folder_is_named(workplace: Path) -> None:
    shutil.rmtree("images/val")
    litter(Path("images/val"))
    folder = ["datasets.val.io_backend.type=disk", "datasets.val.dataroot_gt=images/val"]
    with pytest.raises(UserError, match=r"datasets\.val\.dataroot_gt: images/val has no images"):
        load(*folder, "datasets.val.dataroot_lq=images/val")


READ_ALL = """
import lmdb
with lmdb.open("data/train_HR.lmdb", readonly=True, lock=False) as database, database.begin() as transaction:
    print([value[-1:] for _, value in transaction.cursor()])
"""


@UNIX
def test_an_lmdb_that_would_end_the_process_gets_a_line(workplace: Path) -> None:
    file = workplace / "data" / "train_HR.lmdb" / "data.mdb"
    whole, rng, killed, refused = file.read_bytes(), random.Random(0), 0, 0
    size = mmap.PAGESIZE
    headers = [struct.unpack_from("<QHH", whole, start) for start in range(0, len(whole), size)]
    nodes = [page for page, (number, _, kind) in enumerate(headers) if number == page and kind in (1, 2)]
    for _ in range(12):
        data = bytearray(whole)
        for page in nodes:
            for place in rng.sample(range(12, 24), 3):
                data[page * size + place] = rng.randrange(256)
        file.write_bytes(data)
        killed += run_python(READ_ALL, cwd=workplace).returncode < 0
        try:
            load()
        except UserError as told:
            refused += 1
            assert "train_HR.lmdb/data.mdb cannot be read: " in str(told) and "\n" not in str(told)
    assert nodes and killed and refused >= killed


@pytest.mark.parametrize("line", ["0.png (9{},9,3) 1", "0.png (9,9{},3) 1", "a\x1b[31m{}\n", "{}"], ids=range(4))
def test_a_list_of_an_lmdb_with_endless_numbers_gets_a_line(workplace: Path, line: str) -> None:
    (workplace / "data" / "train_HR.lmdb" / "meta_info.txt").write_text(line.format("9" * 5000))
    with pytest.raises(UserError, match=r"meta_info\.txt: line 1 is b'.*; make it again") as told:
        load()
    assert len(str(told.value)) < 300 and "\n" not in str(told.value)
