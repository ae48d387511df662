"""Option files, --force_yml, and what is said when they are wrong."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import yaml

from srflow_plugin import SRFlowNet
from srflow_plugin.cli.main import all_commands, basicsr_command, srflow_command
from srflow_plugin.cli.options import parse_options
from srflow_plugin.errors import UserError
from srflow_plugin.option_files import force_options, load_options

ROOT = Path(__file__).resolve().parents[1]


def parse(workplace: Path, *entries: str, is_train: bool = True) -> dict[str, Any]:
    args = Namespace(opt="tiny.yml", launcher="none", auto_resume=False, debug=False, force_yml=list(entries))
    return parse_options(args, workplace, is_train)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.5", 0.5),
        ("5e-4", 5e-4),
        ("1.0E+3", 1e3),
        ("true", True),
        ("none", None),
        ("~", None),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_force_yml_values(text: str, value: Any) -> None:
    opt: dict[str, Any] = {"train": {"x": 0}}
    force_options(opt, [f"train:x={text}"])
    assert opt == {"train": {"x": value}}


def test_force_yml_makes_new_keys_and_runs_nothing(tmp_path: Path) -> None:
    opt: dict[str, Any] = {}
    force_options(opt, ["a:b:c=1", f'x"]=open("{tmp_path}/run", "w"); opt["y=2'])
    assert opt["a"] == {"b": {"c": 1}}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entry", "message"), [("a", "key:subkey=value"), ("=1", "key:subkey"), ("a:b=1", "is a value"), ("c=[1", "YAML")]
)
def test_force_yml_names_what_is_wrong(entry: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        force_options({"a": 1}, [entry])


def test_option_files_hold_no_code(tmp_path: Path) -> None:
    path = tmp_path / "a.yml"
    path.write_text("name: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not a YAML file"):
        load_options(path)


def test_options_are_completed_as_basicsr_does(workplace: Path) -> None:
    opt = parse(workplace)
    experiment = workplace / "experiments" / "tiny"
    assert opt["path"]["models"] == str(experiment / "models")
    assert opt["path"]["visualization"] == str(experiment / "visualization")
    assert opt["datasets"]["val"]["phase"] == "val" and opt["datasets"]["val"]["scale"] == 4
    assert (opt["rank"], opt["world_size"], opt["dist"]) == (0, 1, False)
    assert opt["train"]["optim_g"]["lr"] == 1e-3
    assert not experiment.exists()
    debug = Namespace(opt="tiny.yml", launcher="none", auto_resume=False, debug=True, force_yml=None)
    opt = parse_options(debug, workplace, is_train=True)
    assert (opt["name"], opt["val"]["val_freq"], opt["logger"]["print_freq"]) == ("debug_tiny", 8, 1)


def test_seed_zero_is_honoured(workplace: Path) -> None:
    draws = []
    for _ in range(2):
        parse(workplace, "manual_seed=0")
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


@pytest.mark.parametrize("path", sorted((ROOT / "options").glob("*.yml")), ids=lambda path: path.stem)
def test_shipped_option_files_pass_every_check_but_the_data(path: Path, tmp_path: Path) -> None:
    is_train = path.stem.startswith("train")
    args = Namespace(opt=str(path), launcher="none", auto_resume=False, debug=False, force_yml=None)
    if "quick" in path.stem:
        args.force_yml = [
            f"datasets:{phase}:dataroot_{kind}={tmp_path}/{phase}_{kind}.lmdb"
            for phase in ("train", "val")
            for kind in ("gt", "lq")
        ]
        parse_options(args, tmp_path, is_train)
    else:
        missing = "does not exist"
        with pytest.raises(UserError, match=missing):
            parse_options(args, tmp_path, is_train)


MISTAKES = {
    "misspelt key": ("train:freeze_encoder_iter=1", "train.freeze_encoder_iter is no option; did you mean freeze_encoder_iters?"),
    "misspelt section": ("trian:total_iter=1", "trian is no option; did you mean train?"),
    "misspelt network key": ("network_g:num_step=1", "network_g.num_step is no option of SRFlowNet; did you mean num_steps?"),
    "misspelt network": ("network_g:type=SRFlowNett", "network_g.type: 'SRFlowNett' is not known; did you mean SRFlowNet?"),
    "misspelt model": ("model_type=SRFlow", "model_type: 'SRFlow' is not known; did you mean SRFlowModel?"),
    "misspelt loss": ("train:nll_opt:type=NLL", "train.nll_opt.type: 'NLL' is not known"),
    "misspelt loss key": ("train:nll_opt:weight=1", "train.nll_opt.weight is no option of NLLLoss"),
    "misspelt metric": ("val:metrics:psnr:type=psnr", "val.metrics.psnr.type: 'psnr' is not known; did you mean calculate_psnr?"),
    "misspelt metric key": ("val:metrics:psnr:crop=4", "val.metrics.psnr.crop is no option of calculate_psnr"),
    "missing metric key": ("val:metrics:new:type=calculate_ssim", "val.metrics.new.crop_border is missing"),
    "misspelt data set type": ("datasets:train:type=PairedImage", "datasets.train.type: 'PairedImage' is not known"),
    "misspelt data set key": ("datasets:train:gtsize=16", "datasets.train.gtsize is no option; did you mean gt_size?"),
    "misspelt optimiser": ("train:optim_g:type=Adamm", "train.optim_g.type: 'Adamm' is not known; did you mean Adam?"),
    "misspelt optimiser key": ("train:optim_g:beta=0.9", "train.optim_g.beta is no option of Adam; did you mean betas?"),
    "misspelt scheduler": ("train:scheduler:type=StepLR", "train.scheduler.type: 'StepLR' is not known"),
    "misspelt path": ("path:pretrain_network=x", "path.pretrain_network is no option; did you mean pretrain_network_g?"),
    "text for a number": ("train:total_iter=many", "train.total_iter: 'many' is not a whole number"),
    "text for a learning rate": ("train:optim_g:lr=fast", "train.optim_g.lr: 'fast' is not a number"),
    "number for a text": ("name=5", "name: 5 is not text"),
    "fraction for a whole number": ("network_g:num_block=1.5", "network_g.num_block: 1.5 is not a whole number"),
    "value for a section": ("network_g=SRFlowNet", "network_g: 'SRFlowNet' is not a section with keys"),
    "unknown noise": ("network_g:noise=poisson", "network_g.noise: 'poisson' is not none or uniform or gaussian or conditional"),
    "impossible network": ("network_g:num_levels=1", "num_levels must be at least 2 for scale 4"),
    "scales that differ": ("scale=2", "scale: 2 and network_g.scale: 4 must agree"),
    "misspelt image loss": ("train:pixel_opt:type=L1", "train.pixel_opt.type: 'L1' is not known; did you mean L1Loss?"),
    "bound and floor": ("network_g={type: SRFlowNet, scale_floor: 0.2, log_scale_bound: 1}", "network_g: log_scale_bound must be above 0"),
    "patch that does not divide": ("datasets:train:gt_size=20", "datasets.train.gt_size: 20 must be a multiple of 8"),
    "missing key": ("train:total_iter=none", "train.total_iter is missing"),
    "missing loss": ("train:nll_opt=none", "train.nll_opt"),
    "negative temperature": ("val:temperature=-1", "val.temperature: -1 must be 0 or more"),
    "no samples": ("val:num_samples=0", "val.num_samples: 0 must be 1 or more"),
    "no tile": ("val:tile=0", "val.tile: 0 must be 1 or more"),
    "unknown tile": ("val:tile=big", "val.tile: 'big' is not a whole number or auto or none"),
    "unknown precision": ("network_g:precision=half", "network_g.precision: 'half' is not float32 or bfloat16"),
    "no GPU": ("num_gpu=99", "num_gpu: 99 but this machine has"),
    "missing data set": ("datasets:train:dataroot_gt=nowhere.lmdb", "datasets.train.dataroot_gt: nowhere.lmdb does not exist"),
    "folder for an LMDB": ("datasets:train:dataroot_gt=images/train", "datasets.train.dataroot_gt: images/train is not an LMDB"),
    "no seed": ("manual_seed=-1", "manual_seed: -1 must be 0 or more"),
    "a way out by the name": ("name=../up", "name: '../up' must be a plain name"),
    "a way out by a data set": ("datasets:val:name=..", "datasets.val.name: '..' must be a plain name"),
    "a way out by a suffix": ("val:suffix=/tmp/x", "val.suffix: '/tmp/x' must be a plain name"),
    "code from a folder": ("datasets:val:io_backend={type: memcached, sys_path: .}", "'memcached' is not known"),
    "no such best": ("logger:keep_best=psnr", "logger.keep_best: 'psnr' is not known"),
    "uneven parts": ("train:accumulation_steps=3", "train.accumulation_steps: 3 must divide"),
    "a resample above 1": ("val:resample=1.5", "val.resample: 1.5 must be from 0 to below 1"),
    "a metric's option": ("val:metrics:psnr:crop_border=a", "val.metrics.psnr cannot be computed"),
    "patch larger than images": ("datasets:train:gt_size=64", "0 is 44x52, smaller than gt_size 64"),
    "batch larger than data set": ("datasets:train:batch_size_per_gpu=31", "30 images do not fill a batch of 31"),
    "missing checkpoint": ("path:pretrain_network_g=nowhere.pth", "path.pretrain_network_g: nowhere.pth does not exist"),
    "unreadable checkpoint": ("path:pretrain_network_g=tiny.yml", "path.pretrain_network_g: tiny.yml is not a readable checkpoint"),
    "missing state": ("path:resume_state=nowhere.state", "path.resume_state: nowhere.state does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing(
    workplace: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    entry, message = MISTAKES[mistake]
    before = sorted(workplace.iterdir())
    with pytest.raises(SystemExit) as stop:
        basicsr_command(["train", "-opt", "tiny.yml", "--force_yml", entry])
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert len(errors) == 1 and errors[0].startswith("basicsr: error: ") and message in errors[0]
    assert sorted(workplace.iterdir()) == before


def test_a_checkpoint_of_another_network_is_named(workplace: Path) -> None:
    torch.save({"params": {"conv.weight": torch.zeros(1)}}, "other.pth")
    with pytest.raises(UserError, match=r"other\.pth holds no SRFlow network; its first key is 'conv\.weight'"):
        parse(workplace, "path:pretrain_network_g=other.pth")
    torch.save({"params": {"flow.levels.9.x": torch.zeros(1)}}, "part.pth")
    with pytest.raises(UserError, match=r"part\.pth does not fit network_g: .* is missing \(\d+ keys missing, 1 too"):
        parse(workplace, "path:pretrain_network_g=part.pth")
    arguments = {key: value for key, value in parse(workplace)["network_g"].items() if key != "type"}
    torch.save({"params": SRFlowNet(**{**arguments, "scale_floor": 0.1}).state_dict()}, "floor.pth")
    with pytest.raises(UserError, match=r"scale_floor is 0\.1 in the checkpoint and 0\.0001 in the network"):
        parse(workplace, "path:pretrain_network_g=floor.pth")
    torch.save({"weights": {}}, "strange.pth")
    with pytest.raises(UserError, match="holds no weights; it has 'weights'"):
        parse(workplace, "path:pretrain_network_g=strange.pth")
    torch.save({"params": {"flow.levels.0.bijections.1.bijections.0.bias": torch.zeros(1, 3, 1, 1)}}, "shape.pth")
    with pytest.raises(UserError, match=r"is \[1, 3, 1, 1\] there, \[1, 12, 1, 1\] in network_g"):
        parse(workplace, "path:pretrain_network_g=shape.pth")


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision.models._utils")  # of how lpips asks for weights
def test_a_perceptual_loss_whose_weights_cannot_be_fetched_is_named(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(workplace / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError, match=r"train\.perceptual_opt: the weights of LPIPSLoss cannot be had: .*no network"):
        parse(workplace, "train:perceptual_opt:type=LPIPSLoss")


def test_a_pickle_with_code_does_not_run(workplace: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (Path("ran"),)  # type: ignore[return-value]

    torch.save({"params": Code()}, "code.pth")
    with pytest.raises(UserError, match=r"code\.pth is not a readable checkpoint"):
        parse(workplace, "path:pretrain_network_g=code.pth")
    assert not Path("ran").exists()


def test_testing_without_a_checkpoint_is_refused(workplace: Path) -> None:
    with pytest.raises(UserError, match="name the checkpoint to test"):
        parse(workplace, is_train=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "No such file"), ("", "has no keys"), ("a: [1", "not a YAML file"), ("name: x", "model_type is missing")],
)
def test_bad_option_files(workplace: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str) -> None:
    if text is not None:
        Path("bad.yml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        basicsr_command(["train", "-opt", "bad.yml"])
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(errors) == 1 and message in errors[0]


@pytest.mark.parametrize("command", [basicsr_command, srflow_command, all_commands])
def test_help_and_misspelt_commands(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command(["--help"])
    assert stop.value.code == 0 and "commands" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        command(["trian"])
    assert stop.value.code == 2


def test_options_of_other_models_are_left_to_them(workplace: Path) -> None:
    opt = yaml.safe_load(Path("tiny.yml").read_text())
    opt["model_type"] = "ESRGANModel"
    opt["network_d"] = {"type": "VGGStyleDiscriminator"}
    opt["train"]["gan_opt"] = {"type": "GANLoss"}
    Path("tiny.yml").write_text(yaml.safe_dump(opt))
    assert parse(workplace)["network_d"] == {"type": "VGGStyleDiscriminator"}
