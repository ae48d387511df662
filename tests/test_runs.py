"""Runs that are stopped, killed, moved, and resumed; disks that fill up; data that are broken."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from conftest import image_pair

# isort: split
from basicsr.data import build_dataset
from basicsr.models import build_model
from basicsr.utils.logger import initialized_logger

from srflow_plugin import training_state
from srflow_plugin.cli.checks import check_processes
from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.data.loading import BadImageError, CheckedImages, Draws, seed_everything, training_batches
from srflow_plugin.errors import TrainingError, UserError

Options = dict[str, Any]
TRAIN = ["train", "-opt", "tiny.yml", "--force_yml", "logger:use_tb_logger=false", "logger:save_checkpoint_freq=2"]
WITHOUT_VALIDATION = ["val=none"]


def weights(name: str, label: str | int = "latest") -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(f"experiments/{name}/models/net_g_{label}.pth", weights_only=True)


def assert_same(one: dict[str, dict[str, torch.Tensor]], other: dict[str, dict[str, torch.Tensor]]) -> None:
    assert one.keys() == other.keys() == {"params", "params_ema"}
    for kind in one:
        for key, value in one[kind].items():
            assert torch.equal(value, other[kind][key]), f"{kind} {key}"


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """BasicSR sets its logger up once in a process: here, once in a test, to write where the test looks."""
    logging.getLogger("basicsr").handlers.clear()
    initialized_logger.clear()
    yield
    logging.getLogger("basicsr").handlers.clear()
    initialized_logger.clear()


# -- the data ----------------------------------------------------------------------------------------------------------


def draws_of(opt: Options, **arguments: Any) -> Draws:
    return Draws(CheckedImages(build_dataset(opt["datasets"]["train"])), 0, **arguments)


def test_a_draw_is_the_same_whatever_was_drawn_before(tiny_options: Options) -> None:
    draws = draws_of(tiny_options)
    first = [draws[number] for number in range(7)]
    random.seed(5)
    again = draws_of(tiny_options)
    for number in (6, 0, 3):
        assert torch.equal(again[number]["gt"], first[number]["gt"])
    names = [sample["gt_path"] for sample in first]
    assert len(set(names[:3])) == len(set(names[3:6])) == 3  # every image once, then every image once again
    assert not torch.equal(draws_of(tiny_options)[0]["gt"], Draws(draws.images, 1)[0]["gt"])


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 1), (2, 0), (3, 0)])
def test_batches_are_the_same_images_for_any_number_of_processes(
    tiny_options: Options, world_size: int, num_workers: int
) -> None:
    draws = draws_of(tiny_options)
    expected = [draws[number]["gt"] for number in range(12, 24)]
    tiny_options["datasets"]["train"].update(batch_size_per_gpu=6 // world_size, num_worker_per_gpu=num_workers)
    found: list[list[torch.Tensor]] = [[], []]
    for rank in range(world_size):
        opt = {**tiny_options, "dist": True, "rank": rank, "world_size": world_size}
        batches = list(training_batches(draws, opt, first=12, iterations=2))
        assert len(batches) == 2
        for number, batch in enumerate(batches):
            found[number] += list(batch["gt"])
    for number, images in enumerate(found):
        of_batch = expected[6 * number : 6 * number + 6]
        assert all(sum(torch.equal(image, other) for other in of_batch) == 1 for image in images)


def test_seeds_settle_every_generator() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_everything(1, 2)
    first = draw()
    assert draw() != first
    seed_everything(1, 2)
    assert draw() == first
    seed_everything(1, 3)
    assert all(new != old for new, old in zip(draw(), first, strict=True))


# -- resume ------------------------------------------------------------------------------------------------------------


def test_a_run_resumed_within_an_epoch_is_the_same_run(workplace: Path) -> None:
    common = [*TRAIN, *WITHOUT_VALIDATION, "datasets:train:num_worker_per_gpu=1", "train:freeze_encoder_iters=3"]
    assert basicsr_command([*common, "name=whole", "train:total_iter=7"]) == 0
    assert basicsr_command([*common, "name=part", "train:total_iter=4"]) == 0
    assert basicsr_command([*common, "name=part", "train:total_iter=7", "--auto_resume"]) == 0
    assert_same(weights("whole"), weights("part"))
    states = [torch.load(f"experiments/{name}/training_states/6.state") for name in ("whole", "part")]
    assert states[0]["samples"] == states[1]["samples"] == 12
    assert str(states[0]["optimizers"]) == str(states[1]["optimizers"])


def test_a_model_of_basicsr_resumes_as_well(workplace: Path) -> None:
    opt = yaml.safe_load(Path("tiny.yml").read_text())
    opt["model_type"] = "SRModel"
    opt["network_g"] = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1}
    opt["train"] = {key: opt["train"][key] for key in ("optim_g", "scheduler", "ema_decay")}
    opt["train"]["optim_g"]["lr"] = 1e-3  # BasicSR's YAML reads 1e-3 as text
    opt["train"]["pixel_opt"] = {"type": "L1Loss"}
    opt["val"] = None
    Path("tiny.yml").write_text(yaml.safe_dump(opt))
    assert basicsr_command([*TRAIN, "name=whole", "train:total_iter=6"]) == 0
    assert basicsr_command([*TRAIN, "name=part", "train:total_iter=4"]) == 0
    assert basicsr_command([*TRAIN, "name=part", "train:total_iter=6", "--auto_resume"]) == 0
    assert_same(weights("whole"), weights("part"))


def test_best_metrics_are_remembered_and_validation_is_not_repeated(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert basicsr_command([*TRAIN, "train:total_iter=4", "val:save_img=false"]) == 0
    assert capsys.readouterr().err.count("Validation held_out") == 2
    state = torch.load("experiments/tiny/training_states/4.state")
    assert state["best_metric_results"]["held_out"]["psnr_tau0"]["iter"] == 2
    assert basicsr_command([*TRAIN, "train:total_iter=5", "val:save_img=false", "--auto_resume"]) == 0
    output = capsys.readouterr().err
    assert (
        output.count("Validation held_out") == 2
    )  # of iteration 4, which the state was written before, and at the end
    assert "iter:       4" not in output and "iter:       5" in output


def test_a_state_finds_its_networks_from_any_folder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert basicsr_command([*TRAIN, *WITHOUT_VALIDATION, "name=whole", "train:total_iter=4"]) == 0
    assert basicsr_command([*TRAIN, *WITHOUT_VALIDATION, "name=part", "train:total_iter=2"]) == 0
    elsewhere = workplace / "elsewhere"
    elsewhere.mkdir()
    shutil.copy("tiny.yml", elsewhere)
    monkeypatch.chdir(elsewhere)
    (elsewhere / "data").symlink_to(workplace / "data")
    state = workplace / "experiments" / "part" / "training_states" / "2.state"
    resumed = [*TRAIN, *WITHOUT_VALIDATION, "name=part", "train:total_iter=4", f"path:resume_state={state}"]
    assert basicsr_command(resumed) == 0
    there = weights("part")
    monkeypatch.chdir(workplace)
    assert_same(weights("whole"), there)


def test_auto_resume_passes_over_what_is_not_whole(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert basicsr_command([*TRAIN, *WITHOUT_VALIDATION, "train:total_iter=6"]) == 0
    folder = workplace / "experiments" / "tiny"
    truncate(folder / "training_states" / "6.state")
    truncate(folder / "models" / "net_g_4.pth")
    capsys.readouterr()
    assert basicsr_command([*TRAIN, *WITHOUT_VALIDATION, "train:total_iter=7", "--auto_resume"]) == 0
    assert "Resuming training from epoch: 0, iter: 2" in capsys.readouterr().err


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_state_without_its_network_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert basicsr_command([*TRAIN, *WITHOUT_VALIDATION]) == 0
    (workplace / "experiments" / "tiny" / "models" / "net_g_2.pth").unlink()
    capsys.readouterr()
    state = "experiments/tiny/training_states/2.state"
    with pytest.raises(SystemExit) as stop:
        basicsr_command([*TRAIN, *WITHOUT_VALIDATION, f"path:resume_state={state}"])
    assert stop.value.code == 2
    assert "net_g_2.pth, which does not exist" in capsys.readouterr().err


def test_the_last_and_the_best_are_kept(workplace: Path) -> None:
    keep = ["logger:keep_last=2", "logger:keep_best=psnr_tau0", "val:save_img=false", "logger:save_checkpoint_freq=1"]
    assert basicsr_command([*TRAIN, *keep, "train:total_iter=6"]) == 0
    experiment = workplace / "experiments" / "tiny"
    networks = {path.name for path in (experiment / "models").iterdir()}
    assert networks == {"net_g_5.pth", "net_g_6.pth", "net_g_best.pth", "net_g_latest.pth"}
    assert {path.name for path in (experiment / "training_states").iterdir()} == {"5.state", "6.state"}
    best = torch.load(experiment / "training_states" / "6.state")["best_metric_results"]["held_out"]["psnr_tau0"]
    assert best["iter"] in (2, 4)


# -- stops -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(workplace: Path, number: signal.Signals, code: int) -> None:
    common = [*TRAIN, *WITHOUT_VALIDATION, "logger:save_checkpoint_freq=1000000"]
    command = [sys.executable, "-m", "srflow_plugin", *common, "name=part", "train:total_iter=1000000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "iter:       3" in line:
            process.send_signal(number)
            break
    output = process.stderr.read()
    assert process.wait(timeout=60) == code, output
    assert f"Stopped by {number.name} after iteration" in output and "Traceback" not in output
    (state,) = Path("experiments/part/training_states").iterdir()
    last = int(state.stem)
    assert last >= 3
    assert basicsr_command([*common, "name=part", f"train:total_iter={last + 1}", "--auto_resume"]) == 0
    assert basicsr_command([*common, "name=whole", f"train:total_iter={last + 1}"]) == 0
    assert_same(weights("whole"), weights("part"))


def test_a_signal_ends_a_validation_between_two_images(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = CheckedImages.__getitem__

    def stopped(images: CheckedImages, index: int) -> Any:
        if images.opt["phase"] == "val":
            os.kill(os.getpid(), signal.SIGTERM)
        return read(images, index)

    for phase in ("HR", "LRx4"):  # a second data set, so that there is a next image
        shutil.copytree(f"data/val_{phase}.lmdb", f"data/more_{phase}.lmdb")
    monkeypatch.setattr(CheckedImages, "__getitem__", stopped)
    second = [
        "datasets:val_2:name=more",
        "datasets:val_2:type=PairedImageDataset",
        "datasets:val_2:io_backend:type=lmdb",
    ]
    roots = ["datasets:val_2:dataroot_gt=data/more_HR.lmdb", "datasets:val_2:dataroot_lq=data/more_LRx4.lmdb"]
    assert basicsr_command([*TRAIN, *second, *roots, "logger:save_checkpoint_freq=1000", "train:total_iter=4"]) == 0
    assert "Stopped by SIGTERM after iteration 2" in capsys.readouterr().err
    assert Path("experiments/tiny/training_states/2.state").exists()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# -- disks -------------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_checkpoint_before_whole(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = training_state.save_atomically

    def full(state: dict[str, Any], path: Path) -> None:
        if path.name == "net_g_4.pth":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(state, path)

    monkeypatch.setattr(training_state, "save_atomically", full)
    assert basicsr_command([*TRAIN, *WITHOUT_VALIDATION, "train:total_iter=6"]) == 0
    assert "No space left on device" in (output := capsys.readouterr().err)
    assert "the newest checkpoint is that of iteration 2. Training goes on." in output
    assert sorted(path.name for path in Path("experiments/tiny/training_states").iterdir()) == ["2.state", "6.state"]
    monkeypatch.setattr(training_state, "save_atomically", lambda state, path: full(state, Path("net_g_4.pth")))
    with pytest.raises(SystemExit) as stop:
        basicsr_command([*TRAIN, *WITHOUT_VALIDATION, "train:total_iter=1"])
    assert stop.value.code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("basicsr: stopped: The checkpoint could not be written") and "--auto_resume" in last


def test_a_file_too_large_for_its_disk_is_not_left_half(workplace: Path) -> None:
    # what the operating system does, and not a stand-in: no file of this process may grow beyond 20 kB
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from srflow_plugin.files import save_atomically\n"
        "save_atomically({'old': torch.zeros(9)}, Path('a.pth'))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n"
        "    save_atomically({'new': torch.zeros(99999)}, Path('a.pth'))\n"
        "except OSError as error:\n"
        "    sys.exit(error.strerror)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.strip() == os.strerror(errno.EFBIG)
    assert list(torch.load("a.pth")) == ["old"]
    assert sorted(path.name for path in workplace.glob("a.pth*")) == ["a.pth"]


def test_a_working_folder_that_cannot_be_written_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("experiments").write_text("a file where a folder should be")
    with pytest.raises(SystemExit) as stop:
        basicsr_command(TRAIN)
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "experiments" in last and "choose a working folder that can be written" in last


# -- everything at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [["fuzz.py", "--cases", "70", "--seed", "7"], ["torture.py", "--kills", "2"]])
def test_what_clusters_and_users_do(script: list[str]) -> None:
    name, *arguments = script
    command = [sys.executable, str(Path(__file__).with_name(name)), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


# -- faults ------------------------------------------------------------------------------------------------------------


def test_a_step_that_is_not_finite_is_skipped(tiny_options: Options, tmp_path: Path) -> None:
    tiny_options["train"]["max_skipped_steps"] = 3
    Path(tiny_options["path"]["experiments_root"]).mkdir(parents=True)
    model = build_model(tiny_options)
    gt, lq = image_pair(4, 4, 4)
    good = {"gt": gt, "lq": lq, "gt_path": ["a.png", "b.png"]}
    bad = {"gt": gt.clone(), "lq": lq, "gt_path": ["c.png", "bad.png"]}
    bad["gt"][1, 0, 0, 0] = torch.nan

    def step(data: dict[str, Any], iteration: int) -> dict[str, float]:
        model.feed_data(data)
        model.optimize_parameters(iteration)
        return model.get_current_log()

    step(good, 1)
    before = {key: value.clone() for key, value in [*model.net_g.state_dict().items()]}
    ema = {key: value.clone() for key, value in [*model.net_g_ema.state_dict().items()]}
    steps = model.optimizer_g.state[model.net_g.encoder.conv_first.weight]["step"].item()
    assert "skipped_steps" not in model.get_current_log()
    assert step(bad, 2)["skipped_steps"] == 1
    assert step(bad, 3)["skipped_steps"] == 2
    assert all(torch.equal(value, before[key]) for key, value in model.net_g.state_dict().items())
    assert all(torch.equal(value, ema[key]) for key, value in model.net_g_ema.state_dict().items())
    assert model.optimizer_g.state[model.net_g.encoder.conv_first.weight]["step"].item() == steps
    assert step(good, 4)["skipped_steps"] == 2  # in all, none in a row any more
    assert not all(torch.equal(value, before[key]) for key, value in model.net_g.state_dict().items())
    step(bad, 5)
    step(bad, 6)
    with pytest.raises(TrainingError, match="3 iterations in a row, up to 7"):
        step(bad, 7)
    fault = torch.load(Path(tiny_options["path"]["experiments_root"]) / "fault_7.pth", weights_only=True)
    assert fault["files"] == ["c.png", "bad.png"]
    assert torch.equal(fault["gt"].isnan(), bad["gt"].isnan())
    assert all(torch.equal(value, fault["params"][key]) for key, value in model.net_g.state_dict().items())


def test_the_batch_in_parts_takes_the_same_step(tiny_options: Options) -> None:
    tiny_options["network_g"]["noise"] = "none"
    tiny_options["train"]["grad_clip"] = 0.1
    results = []
    for parts in (1, 2, 4):
        tiny_options["train"]["accumulation_steps"] = parts
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        try:
            model = build_model(tiny_options)
        finally:
            torch.set_default_dtype(torch.float32)
        gt, lq = image_pair(4, 4, 4, batch=4, dtype=torch.float64)
        for iteration in range(1, 4):
            model.feed_data({"gt": gt, "lq": lq})
            model.optimize_parameters(iteration)
        results.append((model.get_current_log(), model.net_g.state_dict()))
    for log, state in results[1:]:
        assert log["grad_norm"] > 0.1
        assert log == pytest.approx(results[0][0], abs=1e-9)
        assert all((value.double() - results[0][1][key].double()).abs().max() < 1e-9 for key, value in state.items())


def test_several_gpus_ask_for_a_process_each(tiny_options: Options) -> None:
    opt = {**tiny_options, "num_gpu": 4}
    with pytest.raises(UserError, match=r"torchrun --nproc_per_node=4 -m srflow_plugin train -opt a.yml"):
        check_processes(opt, "a.yml")
    check_processes({**opt, "dist": True}, "a.yml")
    check_processes({**opt, "is_train": False}, "a.yml")


# -- bad data ----------------------------------------------------------------------------------------------------------


def write(path: Path, image: np.ndarray) -> None:
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def folders(workplace: Path) -> Path:
    """The training images as files in pairs/HR and pairs/LR, with tiny.yml reading them."""
    for kind, size in (("HR", (52, 44)), ("LR", (13, 11))):
        (workplace / "pairs" / kind).mkdir(parents=True)
        for path in (workplace / "images" / "train").iterdir():
            write(workplace / "pairs" / kind / path.name, cv2.resize(cv2.imread(str(path)), size))
    return workplace / "pairs"


FROM_FOLDERS = [
    "datasets:train:dataroot_gt=pairs/HR",
    "datasets:train:dataroot_lq=pairs/LR",
    "datasets:train:io_backend:type=disk",
]


def break_image(folder: Path, how: str) -> None:
    hr, lr = folder / "HR" / "1.png", folder / "LR" / "1.png"
    image = cv2.imread(str(hr))
    if how == "truncated":
        truncate(hr)
    elif how == "empty":
        lr.write_bytes(b"")
    elif how == "text":
        hr.write_text("not an image")
    elif how == "corrupt":
        data = bytearray(hr.read_bytes())
        data[len(data) // 2] ^= 255
        hr.write_bytes(data)
    elif how == "16 bits":
        write(hr, image.astype(np.uint16) * 257)
    elif how == "alpha":
        write(lr, np.dstack([cv2.imread(str(lr)), np.full((11, 13), 255, np.uint8)]))
    elif how == "mismatch":
        write(lr, cv2.imread(str(lr))[1:])
    else:
        write(hr, image[:12, :12])
        write(lr, cv2.imread(str(lr))[:3, :3])


BAD_IMAGES = {
    "truncated": "HR/1.png is truncated",
    "empty": "LR/1.png is not a readable image",
    "text": "HR/1.png is not a readable image",
    "corrupt": "HR/1.png is not a readable image",
    "16 bits": "HR/1.png has 16 bits a channel; convert it to 8",
    "alpha": "LR/1.png has an alpha channel; flatten it",
    "mismatch": "HR/1.png is 44x52 and pairs/LR/1.png 10x13: not 4 times",
    "small": "HR/1.png is 12x12, smaller than gt_size 16",
}


@pytest.mark.parametrize("how", BAD_IMAGES)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_image_is_named(folders: Path, capsys: pytest.CaptureFixture[str], how: str, num_workers: int) -> None:
    break_image(folders, how)
    with pytest.raises(SystemExit) as stop:
        basicsr_command([*TRAIN, *FROM_FOLDERS, f"datasets:train:num_worker_per_gpu={num_workers}"])
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("basicsr: error: pairs/") and BAD_IMAGES[how] in last


def test_bad_images_are_skipped_where_asked_for(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    break_image(folders, "truncated")
    break_image(folders, "alpha")
    skip = [*TRAIN, *FROM_FOLDERS, "datasets:train:skip_bad_images=true"]
    assert basicsr_command([*skip, "train:total_iter=6"]) == 0
    output = capsys.readouterr().err
    assert output.count("skipped: pairs/HR/1.png is truncated") == 1  # once in the log, however often
    assert "4 images were skipped or converted, 1 different." in output  # every third of 12 draws
    for number in (0, 2):
        truncate(folders / "HR" / f"{number}.png")
    with pytest.raises(SystemExit):
        basicsr_command(skip)
    assert "noise: no image can be used" in capsys.readouterr().err.splitlines()[-1]


def test_grey_images_are_used_and_named(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folders / "LR" / "0.png", cv2.imread(str(folders / "LR" / "0.png"), cv2.IMREAD_GRAYSCALE))
    assert basicsr_command([*TRAIN, *FROM_FOLDERS]) == 0
    assert "pairs/LR/0.png is grey; it is used as three equal channels" in capsys.readouterr().err


def test_validation_names_a_pair_that_does_not_fit(tiny_options: Options) -> None:
    dataset = build_dataset({**tiny_options["datasets"]["val"], "scale": 8})
    with pytest.raises(BadImageError, match=r"data/val_HR.lmdb: 0 is 44x52 and data/val_LRx4.lmdb: 0 11x13: not 8"):
        CheckedImages(dataset)[0]
