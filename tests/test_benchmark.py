"""srflow benchmark: what it draws, scores and tells, and that it does nothing twice."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.metrics import calculate_metric
from skimage.data import chelsea

from srflow_plugin import SRFlowNet, bicubic_downscale, load_network
from srflow_plugin.benchmark import draw
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.data.images import read_image
from srflow_plugin.data.prepare import find_images


@pytest.fixture
def benchmark(workplace: Path) -> list[str]:
    """A command for two images, a small network, and a folder of another method's files."""
    for folder in ("HR", "LR", "LR3", "LR8", "theirs"):
        Path(folder).mkdir()
    for number in range(3):
        cv2.imwrite(f"LR3/{number}.png", np.zeros((7, 9, 3), np.uint8))
    for number, path in enumerate(find_images(Path("images/train"))[:2]):
        image = np.ascontiguousarray(read_image(path)[:40, :48])
        cv2.imwrite(f"HR/img{number}.png", image)
        cv2.imwrite(f"LR/img{number}x4.png", bicubic_downscale(image, 4))
        cv2.imwrite(f"LR8/img{number}x8.png", bicubic_downscale(image, 8))
        cv2.imwrite(f"theirs/img{number}_their_name.png", image)
    opt = yaml.safe_load(Path("tiny.yml").read_text())["network_g"]
    torch.manual_seed(0)
    network = SRFlowNet(**{key: value for key, value in opt.items() if key != "type"})
    torch.save({"params": network.state_dict()}, "net.pth")
    sets = ["--set", "Set5", "HR", "LR", "--set", "again", "HR", "LR"]
    methods = ["--checkpoint", "net.pth", "--temperature", "0", "0.1", "--num-samples", "3", "--bicubic"]
    return ["benchmark", "-o", "out", *sets, *methods, "--images", "theirs", "theirs", "--distance", "stlpips"]


def test_a_whole_benchmark(benchmark: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert srflow_command(benchmark) == 0
    table = capsys.readouterr().out
    assert Path("out/table.md").read_text() in table
    rows = {
        line.split("|")[1].strip(): line for line in table.split("## again")[0].splitlines() if line.startswith("|")
    }
    assert list(rows)[2:] == ["bicubic", "net tau 0", "net tau 0.1", "theirs", "*bicubic*"]
    assert "28.42" in rows["*bicubic*"] and "published: x4, Y, border 4" in rows["*bicubic*"]
    assert f"tau 0.1, 3 samples, seed 0, sha256 {draw.fingerprint(Path('net.pth'))}" in rows["net tau 0.1"]
    summary = {(row["set"], row["method"]): row for row in json.loads(Path("out/summary.json").read_text())}
    theirs = summary["Set5", "theirs"]
    assert theirs["psnr"] == theirs["lr_psnr"] == float("inf") and theirs["distance"] == 0 and "diversity" not in theirs
    sampled, mean = summary["Set5", "net tau 0.1"], summary["again", "net tau 0.1"]
    assert sampled["psnr_best"] >= sampled["psnr"] and sampled["diversity"] > 0 and sampled["pixel_std"] > 0
    timeless = [{k: v for k, v in row.items() if k != "set" and "seconds" not in k} for row in (sampled, mean)]
    assert timeless[0] == timeless[1] and len(timeless[0]) > 15
    with Path("out/per_image.csv").open() as file:
        per_image = list(csv.DictReader(file))
    assert len(per_image) == 2 * 4 * 2
    of_row = [float(row["psnr"]) for row in per_image if (row["set"], row["method"]) == ("Set5", "net tau 0.1")]
    assert sampled["psnr"] == pytest.approx(np.mean(of_row))
    assert {path.name for path in Path("out/figures").iterdir()} >= {"Set5_curves.png", "Set5_000000.png"}


def test_the_files_are_the_networks_samples(benchmark: list[str]) -> None:
    assert srflow_command(benchmark) == 0
    folder = Path("out/images/Set5/net_tau_0.1")
    assert len(list(folder.iterdir())) == 2 * 3
    lq = read_image(Path("LR/img1x4.png"))
    samples = load_network("net.pth").sample(draw._tensor(lq, "cpu"), 0.1, 3, seed=0)[:, 0]
    for number, sample in enumerate(samples):
        assert np.array_equal(read_image(folder / f"000001_sample{number:05d}.png"), draw.tensor2img(sample))


def test_it_goes_on_and_does_nothing_twice(
    benchmark: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert srflow_command(benchmark) == 0
    table = Path("out/table.md").read_text()
    drawn = Path("out/drawn.jsonl").read_text().splitlines(keepends=True)
    calls = []
    sample = SRFlowNet.sample
    monkeypatch.setattr(SRFlowNet, "sample", lambda *args, **kwargs: calls.append(1) or sample(*args, **kwargs))
    assert srflow_command(benchmark) == 0
    assert not calls and Path("out/table.md").read_text() == table

    # as a kill leaves it: a record half written, a picture missing
    Path("out/drawn.jsonl").write_text("".join(drawn[:-1]) + drawn[-1][:9])
    Path("out/images/Set5/net_tau_0/000000_sample00000.png").unlink()
    assert srflow_command(benchmark) == 0
    assert len(calls) == 2

    def without_seconds(text: str) -> list[list[str]]:
        return [line.split("|")[:-3] for line in text.splitlines()]

    assert without_seconds(Path("out/table.md").read_text()) == without_seconds(table)

    with pytest.raises(SystemExit) as stop:
        srflow_command([*benchmark, "--seed", "1"])
    assert stop.value.code == 2 and "out holds a benchmark with another seed" in capsys.readouterr().err
    shutil.copy("HR/img0.png", "HR/img2.png")
    with pytest.raises(SystemExit):
        srflow_command(benchmark)
    assert "Set5: HR has 3 images and LR 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--checkpoint", "none.pth"], "none.pth does not exist"),
        (["--images", "theirs", "LR"], "two methods are called 'theirs'"),
        (["--images", "small", "LR"], "LR/img0x4.png is 10x12, its ground truth 40x48"),
        (["--images", "empty", "data"], "data has no 000000_sample00000.png and no img0*.png"),
        (["--images", "../up", "LR"], "method '../up': a plain name is needed"),
        (["--set", "uneven", "images/train", "LR3"], "crop the first to a whole multiple of the second"),
        (["--set", "x8", "HR", "LR8"], "net.pth is a network of scale 4, x8 of scale 8"),
        (["--temperature", "-1"], "--temperature must be 0 or more"),
        (["--set", "no", "HR", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_mistakes_get_one_line(
    benchmark: list[str], capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        srflow_command([*benchmark, *change])
    assert stop.value.code == 2
    errors: list[Any] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("srflow: error: ")]
    assert len(errors) == 1 and message in errors[0]


def test_another_network_in_the_same_table(benchmark: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
    torch.manual_seed(0)
    rrdb = build_network(dict(network)).eval()
    torch.save({"params_ema": rrdb.state_dict()}, "rrdb.pth")
    path = {"pretrain_network_g": "rrdb.pth", "param_key_g": "params_ema"}
    Path("rrdb.yml").write_text(yaml.safe_dump({"network_g": network, "path": path}))
    command = ["benchmark", "-o", "rrdb", "--set", "Set5", "HR", "LR", "--distance", "stlpips"]
    assert srflow_command([*command, "--network", "RRDB", "rrdb.yml"]) == 0
    assert f"sha256 {draw.fingerprint(Path('rrdb.yml'))} of rrdb.yml" in capsys.readouterr().out
    with torch.no_grad():
        expected = draw.tensor2img(rrdb(draw._tensor(read_image(Path("LR/img1x4.png")), "cpu")))
    assert np.array_equal(read_image(Path("rrdb/images/Set5/RRDB/000001_sample00000.png")), expected)
    times = (Path("rrdb/times.md")).read_text().splitlines()
    assert times[0] == "## Set5, seconds per image" and float(times[4].split("|")[3]) > 0

    for change, message in (
        ({"network_g": {**network, "type": "NoNet"}}, "network_g cannot be built"),
        ({"network_g": {**network, "num_feat": 9}}, "rrdb.pth does not fit network_g of bad.yml"),
        ({"network_g": {**network, "scale": 2}}, "does not fit"),
        ({"path": {"pretrain_network_g": "no.pth"}}, "no.pth does not exist"),
        ({"path": {}}, "bad.yml needs network_g and path.pretrain_network_g"),
    ):
        Path("bad.yml").write_text(yaml.safe_dump({"network_g": network, "path": path, **change}))
        with pytest.raises(SystemExit) as stop:
            srflow_command([*command, "--network", "bad", "bad.yml"])
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_scores_of_one_and_of_several_processes(benchmark: list[str]) -> None:
    scores = {}
    for workers in ("1", "2"):
        assert srflow_command([*benchmark, "-o", workers, "--workers", workers]) == 0
        lines = Path(workers, "scores.jsonl").read_text().splitlines()
        scores[workers] = [json.loads(line) for line in lines]
        for line in scores[workers]:
            assert line[-1].pop("score_seconds") > 0
    assert len(scores["1"]) == len(scores["2"]) == 2 * 2 * 4
    for one, other in zip(scores["1"], scores["2"], strict=True):
        assert one[:-1] == other[:-1]
        assert one[-1] == pytest.approx(other[-1], rel=1e-5, abs=1e-5)  # sums in other orders, with other threads


def test_niqe_is_basicsrs(benchmark: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        srflow_command([*benchmark, "--niqe"])
    assert "too small for NIQE" in capsys.readouterr().err
    Path("large").mkdir()
    image = np.ascontiguousarray(chelsea()[:208, :208, ::-1])
    cv2.imwrite("large/a.png", image)
    Path("small").mkdir()
    cv2.imwrite("small/a.png", bicubic_downscale(image, 4))
    command = ["benchmark", "-o", "niqe", "--set", "one", "large", "small", "--images", "GT", "large", "--niqe"]
    assert srflow_command([*command, "--distance", "stlpips"]) == 0
    niqe = json.loads(Path("niqe/summary.json").read_text())[0]["niqe"]
    assert niqe == pytest.approx(calculate_metric({"img": image}, {"type": "calculate_niqe", "crop_border": 4}))
