"""What methods draw: the networks' own images, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network

from srflow_plugin import load_network
from srflow_plugin.cli.main import srflow_command
from srflow_plugin.images.files import read_image
from srflow_plugin.images.tensors import to_pixels, to_tensor
from srflow_plugin.leaderboard.draw import Method, checkpoint_methods, fingerprint
from srflow_plugin.leaderboard.records import Records
from srflow_plugin.sampling.explosions import count_exploded


def test_the_files_are_the_networks_samples(benchmark_command: list[str]) -> None:
    assert srflow_command(benchmark_command) == 0
    folder = Path("out/images/Set5/net_tau_0.1")
    assert len(list(folder.iterdir())) == 2 * 3
    network, lq = load_network("net.pth"), to_tensor(read_image(Path("LR/img1x4.png")))
    samples = network.sample(lq, 0.1, 3, seed=1)[:, 0]  # of the second image
    for number, sample in enumerate(samples):
        assert np.array_equal(read_image(folder / f"000001_sample{number:05d}.png"), to_pixels(sample))
    records = Records(Path("out/drawn.jsonl")).values["Set5", "net tau 0.1", "img1.png"]
    gt = to_tensor(read_image(Path("HR/img1.png")))
    assert records["code_length"] == pytest.approx(float(network.code_length(gt, lq, 1)), rel=1e-5)
    assert (records["exploded"], records["nonfinite"]) == (count_exploded(samples), 0)
    assert records["seconds"] >= records["network_seconds"] > 0


def test_in_tiles_there_is_no_likelihood(benchmark_command: list[str]) -> None:
    assert srflow_command([*benchmark_command, "--tile", "6"]) == 0
    values = Records(Path("out/drawn.jsonl")).values["Set5", "net tau 0.1", "img1.png"]
    assert (
        "code_length" not in values
        and "encoder_seconds" not in values
        and values["seconds"] == values["network_seconds"]
    )


def test_another_network_in_the_same_table(benchmark_command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
    torch.manual_seed(0)
    rrdb = build_network(dict(network)).eval()
    torch.save({"params_ema": rrdb.state_dict()}, "rrdb.pth")
    path = {"pretrain_network_g": "rrdb.pth", "param_key_g": "params_ema"}
    Path("rrdb.yml").write_text(yaml.safe_dump({"network_g": network, "path": path}))
    command = ["benchmark", "-o", "rrdb", "--set", "Set5", "HR", "LR", "--distance", "stlpips"]
    assert srflow_command([*command, "--network", "RRDB", "rrdb.yml"]) == 0
    assert f"sha256 {fingerprint(Path('rrdb.yml'))} of rrdb.yml" in capsys.readouterr().out
    with torch.no_grad():
        expected = to_pixels(rrdb(to_tensor(read_image(Path("LR/img1x4.png"))))[0])
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


def test_rows_of_a_checkpoint() -> None:
    zero, sampled = checkpoint_methods(Path("a/net.pth"), [0, 0.8], 3)
    assert (zero.name, zero.num_samples, zero.family) == ("net tau 0", 1, "net")
    assert (sampled.name, sampled.num_samples, sampled.family) == ("net tau 0.8", 3, "net")
    assert Method("theirs").family == "theirs"


def test_a_fingerprint_is_of_what_is_in_a_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"abc")
    assert fingerprint(tmp_path / "a.pth") == "ba7816bf8f01"
    before = fingerprint(tmp_path)
    (tmp_path / "b.png").touch()
    assert fingerprint(tmp_path) != before
