"""Benchmarks of time and memory: each part stands by itself, and what they measure is what they say."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.metrics import calculate_psnr
from skimage.data import chelsea

from benchmarks import _measure, adaptive, choice, damaged, explain, gpu, opening_picture, peers, sheets
from srflow_plugin.images.files import read_image, write_image
from srflow_plugin.images.pictures import GAP, TITLE_HEIGHT
from srflow_plugin.images.resize import bicubic_downscale, bicubic_upscale
from srflow_plugin.images.tensors import to_pixels, to_tensor
from tests.helpers import ROOT, noise_image, perturb, run, small_network

SIZES = {"num_feat": 8, "num_block": 2, "num_grow_ch": 4}
QUICK = ["--device", "cpu", "--quick"]


def test_the_copy_of_rrdbnet_is_rrdbnet() -> None:
    copy, theirs = perturb(_measure.RRDBNet(**SIZES)), RRDBNet(3, 3, **SIZES)
    theirs.load_state_dict(copy.state_dict())
    lq = torch.rand(1, 3, 5, 6)
    torch.testing.assert_close(copy(lq), theirs(lq))


def test_ratios_are_those_of_a_round() -> None:
    assert _measure.ratios({"RRDBNet": [1.0, 2.0, 4.0], "ours": [3.0, 4.0, 2.0]}) == {
        "RRDBNet": (1.0, 1.0, 1.0),
        "ours": (2.0, 0.5, 3.0),
    }


# -- beside other networks ---------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Parts, sizes and rounds that were asked for, in place of seconds."""
    asked: list[tuple[str, int, int]] = []

    def timed(part: str, size: int, rounds: int, device: str) -> peers.Figures:
        asked.append((part, size, rounds))
        xs = [str(size)] if part == "networks" else ["1", "2"]
        return {name: {x: [1.0, 3.0, 2.0] for x in xs} for name in ("RRDBNet", "ours, float32, 10 samples")}

    monkeypatch.setattr(peers, "timed", timed)
    monkeypatch.setattr(peers, "memory", lambda size, device: {peers.NOTHING: 0.25, "RRDBNet": 0.75})
    return asked


def test_parts_add_up_and_another_size_begins_anew(measured: list[tuple[str, int, int]], tmp_path: Path) -> None:
    for parts in (["networks", "pixels"], ["memory"], ["samples"]):
        results = peers.measure(parts, 64, 3, "cpu", tmp_path)
    assert measured == [("networks", 64, 3), ("pixels", 64, 2), ("samples", 64, 3)]
    assert results.keys() == {"settings", "networks", "pixels", "memory", "samples"}
    assert json.loads((tmp_path / "peers.json").read_text()) == results
    page = (tmp_path / "peers.md").read_text()
    assert "| ours, float32, 10 samples | 2.000 | 1.00 (1.00 - 1.00) | 10 | 0.200 |" in page
    assert "| RRDBNet | 2.000 | 1.00 (1.00 - 1.00) | 1 | 2.000 | 0.75 |" in page
    assert "| seconds; samples of one image | 1 | 2 |" in page and (tmp_path / "peers.png").stat().st_size > 10_000
    docs = tmp_path / "page.md"
    (tmp_path / "pictures").mkdir()
    docs.write_text(f"before\n\n{peers.MARKS[0]}\nold\n{peers.MARKS[1]}\n\nafter\n")
    for _ in range(2):
        peers.put_on_page(docs, results)
    assert docs.read_text() == f"before\n\n{peers.MARKS[0]}\n\n{peers.tables(results)}\n{peers.MARKS[1]}\n\nafter\n"
    assert (tmp_path / "pictures" / "peers.png").exists()
    assert peers.measure(["steps"], 32, 3, "cpu", tmp_path).keys() == {"settings", "steps"}


def test_sizes_that_windows_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    output = run(sys.executable, "-m", "benchmarks.peers", "out", "--size", "72", code=2)
    assert "--size must be a multiple of 16, not 72" in output


def test_every_part_has_contestants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.Peer, "on", lambda self, device, side: lambda: None)
    for part in peers.AXES:
        names, xs = zip(*((name, x) for name, x, _ in peers.contestants(part, 16, "cpu")), strict=True)
        assert len(set(names)) >= 2 and (len(set(xs)) >= 2 or part == "threads")
    assert not list(peers.contestants("threads", 16, "cuda"))


@pytest.mark.slow
def test_contestants_draw(tmp_path: Path) -> None:
    for name, _, call in peers.contestants("networks", 16, "cpu"):
        assert name in peers.PEERS and call() is None
    assert 0.1 < peers.peak_of("bicubic", 16, "cpu") < 100


# -- what waits for a GPU ----------------------------------------------------------------------------------------------


def stand_in(answers: dict[str, Any]) -> Any:
    """Answer in place of the processes of parts: by return code, standard output and error, or an exception."""

    def answer(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        result = answers[command[command.index("--part") + 1]]
        if isinstance(result, Exception):
            raise result
        return subprocess.CompletedProcess(command, *result)

    return answer


def test_a_part_that_fails_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "machine": (0, 'words of a library\n[["gpu", "a card"]]\n', ""),
        "exactness": (1, "", "Traceback ...\nRuntimeError: CUDA error: an illegal memory access was encountered\n"),
        "seeds": subprocess.TimeoutExpired("seeds", 60),
        "waits": (-9, "", ""),
        "sampling": (0, '[["RRDBNet", 12.3456, 1.0]]', ""),
    }
    monkeypatch.setattr(subprocess, "run", stand_in(answers))
    assert not gpu.run_all(list(answers), [], 10, tmp_path)
    page, said = (tmp_path / "gpu.md").read_text(), capsys.readouterr().out
    for line in (
        "| gpu | a card |",
        "Not measured: RuntimeError: CUDA error: an illegal memory access was encountered",
        "Not measured: it takes longer than 60 s",
        "Not measured: it ended with -9",
        "| RRDBNet | 12.3 | 1 |",
    ):
        assert line in page.splitlines() and line in said.splitlines()
    assert json.loads((tmp_path / "gpu.json").read_text()).keys() == answers.keys()


def test_a_part_without_time_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "run", stand_in({"waits": (0, "[]", "")}))
    assert not gpu.run_all(["machine", "waits"], [], 50 / 60, tmp_path)
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert "60 s, and 50 s are left" in results["machine"]["fault"] and results["waits"]["rows"] == []


@pytest.mark.slow
def test_every_part_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    output = run(sys.executable, "-m", "benchmarks.gpu", tmp_path, *QUICK)
    assert "Not measured" not in output
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results.keys() == gpu.PARTS.keys()
    for name, part in gpu.PARTS.items():
        assert {len(row) for row in results[name]["rows"]} <= {len(part.columns), 2}, name
    assert {row[1] for row in results["waits"]["rows"]} == {"does not wait"}
    assert results["seeds"]["rows"][0] == ["again", 0.0, 0.0]


# -- the pictures of the explanation -----------------------------------------------------------------------------------


def test_the_pictures_of_the_explanation_are_drawn_of_any_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(explain, "load_network", lambda name: small_network(log_scale_bound=0.2))
    monkeypatch.setattr(explain, "SIDE", 32)
    monkeypatch.setattr(explain, "SAMPLES", 2)
    monkeypatch.setattr(sys, "argv", ["explain", str(tmp_path)])
    explain.main()
    assert {path.name for path in tmp_path.iterdir()} == {
        "explain_network.png",
        "explain_latents.png",
        "explain_temperatures.jpg",
        "explain_likelihood.png",
    }
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| photograph |")]
    latents, likelihood = rows[:-1], rows[-1]
    assert len(latents) == len(small_network().latent_shapes(8, 8))
    assert float(likelihood[2]) > float(likelihood[1])  # a code length is larger than the NLL


# -- damaged pictures, and the pictures of them ------------------------------------------------------------------------


def picture(side: int = 64, seed: int = 0) -> np.ndarray:
    """Make a smooth picture with some detail."""
    coarse = noise_image(side // 8, side // 8, seed)
    return np.asarray(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))


GREY = np.full((256, 256, 3), 128, np.uint8)


@pytest.mark.parametrize("damage", damaged.DAMAGES, ids=lambda damage: damage.name)
def test_damage_is_what_its_name_says_and_the_same_each_time(damage: damaged.Damage) -> None:
    hr, kind = picture(), damaged.PHOTOGRAPHS
    lq, clean = damaged.damaged(hr, kind, damage, "a"), bicubic_downscale(hr, 4, "replicate")
    np.testing.assert_array_equal(lq, damaged.damaged(hr, kind, damage, "a"))
    assert np.array_equal(lq, clean) == (damage == damaged.CLEAN)
    assert np.array_equal(lq, damaged.damaged(hr, kind, damage, "b")) == (not damage.noise)
    grey = damaged.damaged(GREY, kind, damage, "a").astype(float)
    if damage.noise and not damage.quality:
        assert grey.std() == pytest.approx(damage.noise, rel=0.05) and grey.mean() == pytest.approx(128, abs=1)
    elif not damage.noise:
        assert (grey == 128).all()


def test_more_blur_and_stronger_jpeg_are_farther_from_the_clean_picture() -> None:
    hr, clean = picture(), bicubic_downscale(picture(), 4, "replicate").astype(float)
    errors = {
        one.name: np.abs(damaged.damaged(hr, damaged.PHOTOGRAPHS, one, "a") - clean).mean() for one in damaged.DAMAGES
    }
    for less, more in (("JPEG 95", "JPEG 75"), ("JPEG 75", "JPEG 50"), ("blur 1", "blur 2"), ("noise 5", "noise 10")):
        assert errors[less] < errors[more]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with two x4 networks, one for x8, HR images, and a page; few damages."""
    monkeypatch.chdir(tmp_path)
    few = [damaged.CLEAN, damaged.Damage("JPEG 50", quality=50)]
    monkeypatch.setattr(damaged, "PHOTOGRAPHS", damaged.PHOTOGRAPHS._replace(damages=few))
    monkeypatch.setattr(damaged, "FACES", damaged.FACES._replace(crop=32))
    for name, network in (("one", small_network()), ("other", perturb(small_network(), 1)), ("x8", small_network(8))):
        torch.save({"params": network.state_dict()}, f"{name}.pth")
    torch.save({"params": RRDBNet(3, 3, **SIZES).state_dict()}, "rrdb.pth")
    section = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, **SIZES}
    Path("encoder.yml").write_text(json.dumps({"network_g": section, "path": {"pretrain_network_g": "rrdb.pth"}}))
    for folder, side in (("HR", 66), ("faces", 40)):
        Path(folder).mkdir()
        for seed in range(2):
            write_image(Path(folder, f"{seed}.png"), picture(side, seed))
    Path("page.md").write_text(f"before\n{damaged.MARKS[0]}\nold\n{damaged.MARKS[1]}\nafter\n")
    return tmp_path


def test_a_second_run_measures_what_is_new(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    real = damaged.measure

    def noted(network: Any, one: damaged.DamagedSet, pair: Any, columns: Any) -> Any:
        asked.append((columns[0].network.name, one.name))
        return real(network, one, pair, columns)

    monkeypatch.setattr(damaged, "measure", noted)
    sets = ["--photographs", "a=HR", "--page", "page.md"]
    damaged.main(["out", "one.pth", *sets])
    assert asked == [("bicubic", "a")] * 4 + [("one", "a")] * 4
    more = ["renamed=one.pth", "new=other.pth", "encoder.yml", "x8.pth"]
    damaged.main(["out", *more, *sets, "--faces", "f=faces"])
    assert asked[8:] == [("bicubic", "f")] * 2 + [("new", "a")] * 4 + [("encoder", "a")] * 4 + [("x8", "f")] * 2
    page = Path("page.md").read_text()
    assert page.startswith("before\n") and page.endswith("after\n") and "old\n" not in page
    rows = json.loads(Path("out/results.json").read_text())
    (clean,) = (row for row in rows if (row["set"], row["damage"], row["method"]) == ("a", "clean", "bicubic"))
    psnrs = []
    for seed in range(2):
        gt = picture(66, seed)[:64, :64]
        image = bicubic_upscale(to_tensor(bicubic_downscale(gt, 4, "replicate")), 4)[0]
        psnrs.append(calculate_psnr(to_pixels(image)[..., ::-1], gt[..., ::-1], 4, test_y_channel=True))
    assert clean["psnr_y"] == pytest.approx(np.mean(psnrs))
    table = [line for line in page.splitlines() if line.startswith("| a, JPEG 50 |")]
    assert len(table) == 5 and f"| bicubic | {clean['psnr_y']:.2f} |" in page
    assert "| x8 tau 0.9 |" in page and "| PSNR-Y, dB | bicubic | renamed tau 0 | renamed tau 0.8 | new tau 0 |" in page
    assert "| new tau 0.8 | encoder |" in page and "| new tau 0 | bicubic | PSNR-Y | " in page


def test_verdicts_name_the_worst_place() -> None:
    def rows(damage: str, *values: tuple[str, float | None, float, float]) -> list[dict[str, Any]]:
        return [
            {"set": "a", "damage": damage, "network": network, "tau": tau, "psnr_y": psnr, "distance": distance}
            | {"method": network if tau is None else f"{network} tau {tau:g}"}
            for network, tau, psnr, distance in values
        ]

    said = damaged.verdicts(
        rows("clean", ("bicubic", None, 30, 0.1), ("real", 0.0, 20, 0.9), ("real", 0.8, 20, 0.9))
        + rows(
            "x",
            ("bicubic", None, 25, 0.4),
            ("real", 0.0, 26, 0.3),
            ("real", 0.8, 24, 0.1),
            ("old", 0.0, 24, 0.3),
            ("old", 0.8, 20, 0.3),
        )
        + rows(
            "y",
            ("bicubic", None, 25, 0.4),
            ("real", 0.0, 25.3, 0.3),
            ("real", 0.8, 24, 0.2),
            ("old", 0.0, 26, 0.3),
            ("old", 0.8, 20, 0.15),
        )
    )
    assert said.splitlines()[2:] == [
        "| real tau 0 | bicubic | PSNR-Y | +0.30 | a, y |",
        "| real tau 0.8 | bicubic | ST-LPIPS | +0.2000 | a, y |",
        "| real tau 0.8 | old tau 0.8 | ST-LPIPS | -0.0500 | a, y |",
        "| old tau 0 | bicubic | PSNR-Y | -1.00 | a, x |",
        "| old tau 0.8 | bicubic | ST-LPIPS | +0.1000 | a, x |",
        "| old tau 0.8 | real tau 0.8 | ST-LPIPS | -0.2000 | a, x |",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["out", "one.pth", "one=other.pth", "--photographs", "a=HR"], "two networks have one name"),
        (["out", "no.pth", "--photographs", "a=HR"], "no.pth"),
        (["out", "one.pth"], "give --photographs or --faces"),
        (["out", "one.pth", "--photographs", "HR"], "NAME=FOLDER is needed, not HR"),
        (["out", "one.pth", "--photographs", "a=faces"], "is another image than would be made now"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    bench: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    damaged.make_sets(Path("out"), "a", Path("HR"), damaged.PHOTOGRAPHS)
    with pytest.raises(SystemExit) as stop:
        damaged.main(arguments)
    assert stop.value.code == 2 and complaint in capsys.readouterr().err


def test_sheets_show_a_place_of_each_photograph(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "SIDE", 8)
    monkeypatch.setattr(sheets, "FREE", [sheets.Photograph("0.png", 8, 6)])
    columns = ["one=one.pth@0", "one=one.pth@0.8"]
    sheets.main(["out", *columns, "--free", "HR", "--docs", "docs.jpg"])
    assert {path.stem for path in Path("out").iterdir()} == {"rocket", "astronaut", "coffee", "chelsea", "0", "all"}
    width, height = 32 + GAP, 32 + TITLE_HEIGHT
    assert read_image(Path("out/rocket.png")).shape[:2] == (height, 4 * width - GAP)  # as it is: no original
    sheet = read_image(Path("out/0.png"))
    assert sheet.shape[:2] == (height, 5 * width - GAP)
    np.testing.assert_array_equal(sheet[TITLE_HEIGHT:, -32:], picture(66)[32:64, 24:56])
    assert read_image(Path("docs.jpg")).shape[0] == 4 * (height + GAP) - GAP
    lq = sheets.pictures_of(sheets.FREE[0], Path("HR"))[0]
    np.testing.assert_array_equal(sheet[TITLE_HEIGHT::4, :32:4], lq[8:16, 6:14])


@pytest.mark.parametrize(
    ("word", "complaint"),
    [
        ("one=x8.pth@0", "is not a network of scale 4"),
        ("one.pth", "LABEL=NETWORK@TAU is needed"),
        ("a=no.pth@0", "no.pth"),
    ],
)
def test_columns_that_cannot_be_drawn_are_refused(
    bench: Path, capsys: pytest.CaptureFixture[str], word: str, complaint: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        sheets.main(["out", word])
    assert stop.value.code == 2 and complaint in capsys.readouterr().err and not Path("out").exists()


def test_the_opening_picture_has_a_row_of_a_jpeg_file(bench: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening_picture, "CLEAN", [opening_picture.Example("chelsea", 40, 115, 64, 4)])
    monkeypatch.setattr(opening_picture, "REAL", opening_picture.Example("coffee", 60, 240, 64, 4))
    for arguments, rows in (([], 1), (["--real", "one.pth"], 2)):
        opening_picture.main(["opening.jpg", *arguments])
        assert read_image(Path("opening.jpg")).shape[0] == rows * (256 + TITLE_HEIGHT + GAP) - GAP


# -- temperature by place ----------------------------------------------------------------------------------------------


def test_temperature_by_place_is_compared_at_equal_psnr() -> None:
    plain = {str(tau): {"a": {"image": "a", "psnr": 30 - tau, "stlpips": 0.1 * tau}} for tau in (0, 1, 2)}
    for psnr, expected in ((28.5, 0.15), (30, 0.0), (27.9, math.nan), (30.1, math.nan)):
        row = {"image": "a", "psnr": psnr, "stlpips": 0.2}
        found = adaptive.plain_stlpips(row, {**plain, "2, 0.5": {"a": row}})
        assert found == pytest.approx(expected, nan_ok=True)

    def line(psnr: float) -> str:
        values = {"set": "few", "lr_psnr": 50.0, "grain": None, "exploded": 0}
        rows = [
            {**values, "setting": setting, "image": image, "psnr": value, "stlpips": distance}
            for image, more in (("a", 0.0), ("b", 0.02))
            for setting, value, distance in (("0", 30.0, 0.0), ("1", 28.0, 0.2), ("1, 0.5", psnr, 0.2 + more))
        ]
        rows[0]["grain"] = rows[1]["grain"] = rows[2]["grain"] = 0.5  # the other image has nothing flat
        return adaptive.tables(rows).splitlines()[-1]

    assert line(29) == "| 1, 0.5 | 29.00 | 0.2100 | +0.1100 ± 0.0100 | 50.00 | 0.50 | 0 |"
    assert line(27) == "| 1, 0.5 | 27.00 | 0.2100 |  | 50.00 | 0.50 | 0 |"


def test_what_is_measured_of_temperature_by_place_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adaptive, "load_network", lambda path: small_network(log_scale_bound=0.2))
    monkeypatch.setattr(
        adaptive, "stlpips_of_each", lambda images, gt: [abs(image - gt.mean()).mean() for image in images]
    )
    for folder in ("hr", "lr"):
        (tmp_path / folder).mkdir()
    for number in range(2):
        hr = noise_image(40, 44, number)
        hr[:, :32] = 100
        write_image(tmp_path / "hr" / f"{number}.png", hr)
        write_image(tmp_path / "lr" / f"{number}.png", bicubic_downscale(hr, 4, "replicate"))
    command = ["adaptive", str(tmp_path / "results.jsonl"), "--set", "few", str(tmp_path / "hr"), str(tmp_path / "lr")]
    monkeypatch.setattr(sys, "argv", command)
    adaptive.main()
    table, kept = capsys.readouterr().out, (tmp_path / "results.jsonl").read_text()
    rows = {cells[0].strip(): cells[1:] for cells in (line.split("|")[1:-1] for line in table.splitlines()[4:])}
    assert table.startswith("few, 2 images:") and len(kept.splitlines()) == 2 * len(rows)
    assert list(rows)[:8] == ["0", "0.6", "0.7", "0.8", "0.9", "0.8, 0.3", "0.8, 0.5", "0.8, 0.7"]
    assert list(rows)[-2:] == ["0.9, 0.5, features", "0.9, 1.25, features"]
    grain = {name: float(cells[4]) for name, cells in rows.items()}
    assert grain["0"] == 0 < grain["0.9, 0.3"] < grain["0.9, 0.7"] < grain["0.9"] < grain["0.9, 1.25"]

    monkeypatch.setattr(adaptive, "draw", None)  # nothing is drawn again
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{adaptive.MARKS[0]}\nold\n{adaptive.MARKS[1]}\n\nafter\n")
    sys.argv += ["--page", str(page)]
    adaptive.main()
    assert page.read_text() == f"before\n\n{adaptive.MARKS[0]}\n\n{table}\n{adaptive.MARKS[1]}\n\nafter\n"
    assert (tmp_path / "results.jsonl").read_text() == kept and capsys.readouterr().out == table


# -- networks that pictures choose -------------------------------------------------------------------------------------


def test_a_row_for_each_kind_of_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hr = np.ascontiguousarray(chelsea()[:192, 40:232])  # at its own size it has marks of JPEG
    for folder, image in (("lr", bicubic_downscale(hr, 4)), ("hr", hr)):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "a.png", image)
    choice.main([str(tmp_path / "lr"), "--hr", str(tmp_path / "hr")])
    head, _, clean, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("| 2 pictures |") and clean.startswith("| clean | 0 of 2 | none found |")
    assert [line.split(" | ")[0].strip("| ") for line in rows] == list(choice.CHANGES)[1:]
    assert "| JPEG 75 | 2 of 2 | 75 (2 found) |" in "\n".join(rows)
