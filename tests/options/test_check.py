"""Mistakes in option files: one line each, before anything is written; those that the file shows without torch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.errors import UserError
from srflow_plugin.options.check import check_file, notes
from srflow_plugin.options.files import load_options
from srflow_plugin.options.schema import Section
from srflow_plugin.training.setup import load_run
from tests.helpers import ROOT, TINY, run_python
from tests.training.test_degradations import option_file as degrading_options

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
    "a list for a data set type": ("datasets:train:type=[a]", "datasets.train.type: ['a'] is not known"),
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
    "impossible network": ("network_g:num_levels=1", "num_levels must be at least 2 for scale 4"),
    "scales that differ": ("scale=2", "scale: 2 and network_g.scale: 4 must agree"),
    "misspelt image loss": ("train:pixel_opt:type=L1", "train.pixel_opt.type: 'L1' is not known; did you mean L1Loss?"),
    "bound and floor": ("network_g={type: SRFlowNet, scale_floor: 0.2, log_scale_bound: 1}", "network_g: log_scale_bound must be above 0"),
    "patch that does not divide": ("datasets:train:gt_size=20", "datasets.train.gt_size: 20 must be a multiple of 8"),
    "missing key": ("train:total_iter=none", "train.total_iter is missing"),
    "missing loss": ("train:nll_opt=none", "train.nll_opt"),
    "misspelt temperature": ("val:temperature=learnt", "val.temperature: 'learnt' is not a number or learned or a list"),
    "negative temperature": ("val:temperature=-1", "val.temperature: -1 must be 0 or more"),
    "no samples": ("val:num_samples=0", "val.num_samples: 0 must be 1 or more"),
    "no tile": ("val:tile=0", "val.tile: 0 must be 1 or more"),
    "unknown tile": ("val:tile=big", "val.tile: 'big' is not a whole number or auto or none"),
    "unknown precision": ("network_g:precision=half", "network_g.precision: 'half' is not float32 or tf32 or bfloat16"),
    "misspelt mixed precision": ("train:amp=bf16", "train.amp: 'bf16' is not bfloat16 or float16 or none; did you mean bfloat16?"),
    "mixed precision that SRFlowModel has not": ("train:amp=float16", "train.amp: float16 is not for SRFlowModel; use bfloat16"),
    "mixed precision of a training's validation": ("val:amp=bfloat16", "val.amp is of tests; a training validates as train.amp says: set that"),
    "missing data set": ("datasets:train:dataroot_gt=nowhere.lmdb", "datasets.train.dataroot_gt: nowhere.lmdb does not exist"),
    "folder for an LMDB": ("datasets:train:dataroot_gt=images/train", "datasets.train.dataroot_gt: images/train is not an LMDB"),
    "no seed": ("manual_seed=-1", "manual_seed: -1 must be 0 or more"),
    "a way out by the name": ("name=../up", "name: '../up' must be a plain name"),
    "a way out by a data set": ("datasets:val:name=..", "datasets.val.name: '..' must be a plain name"),
    "a line in a name": ('name="a\\nb"', r"name: 'a\nb' must be a plain name"),
    "a colour in a name": ('name="a\\e[31mb"', r"name: 'a\x1b[31mb' must be a plain name"),
    "another direction in a name": ('datasets:val:name="a\\u202eb"', r"datasets.val.name: 'a\u202eb' must be a plain name"),
    "a long name": (f"name={'n' * 240}", "letters; shorten it"),
    "a long metric": (f"val:metrics:{'m' * 130}:type=calculate_psnr", "has more than 120 letters; shorten its name"),
    "no such user": ("path:pretrain_network_g=~nouser/x", "~nouser/x: this system knows no such user"),
    "no such user's data": ("datasets:train:dataroot_gt=~nouser/x", "~nouser/x: this system knows no such user"),
    "no such user's folder": ("path:experiments_root=~nouser/x", "~nouser/x: this system knows no such user"),
    "no such user's list": ("datasets:train:meta_info_file=~nouser/x", "~nouser/x: this system knows no such user"),
    "a width in a template": ('datasets:val:filename_tmpl="{:>1500000000}"', "filename_tmpl: '{:>1500000000}' must hold {} once"),
    "another number in a template": ('datasets:val:filename_tmpl="{1}"', "filename_tmpl: '{1}' must hold {} once"),
    "an attribute in a template": ('datasets:val:filename_tmpl="{.__class__}"', "must hold {} once"),
    "no place in a template": ("datasets:val:filename_tmpl=x4", "filename_tmpl: 'x4' must hold {} once"),
    "an open template": ('datasets:val:filename_tmpl="{}{"', "must hold {} once"),
    "too many samples": ("val:num_samples=100000000", "val.num_samples: 100000000 must be at most 10000"),
    "too many workers": ("datasets:train:num_worker_per_gpu=100000", "num_worker_per_gpu: 100000 must be at most 512"),
    "too large a batch": ("datasets:train:batch_size_per_gpu=1000000", "batch_size_per_gpu: 1000000 must be at most 65536"),
    "too hot": ("val:temperature=1e30", "val.temperature: 1e+30 must be at most 100"),
    "too many steps": ("network_g:num_steps=100000", "network_g: num_steps must be at most 256, not 100000"),
    "too many blocks": ("network_g:num_block=100000", "network_g: num_block must be at most 500, not 100000"),
    "too wide": ("network_g:hidden_channels=10000000", "network_g: hidden_channels must be at most 4096, not 10000000"),
    "too many levels": ("network_g:num_levels=60", "network_g: num_levels must be at most 8, not 60"),
    "a seed beyond numpy's": ("manual_seed=1099511627776", "manual_seed: 1099511627776 must be at most 2147483648"),
    "a list without an end": ("datasets:train:meta_info_file=/dev/zero", "/dev/zero is not a file, but a device or a pipe"),
    "a secret": ("logger:wandb:api_key=x", "logger.wandb.api_key would stand in the log"),
    "a way out by a suffix": ("val:suffix=/tmp/x", "val.suffix: '/tmp/x' must be a plain name"),
    "code from a folder": ("datasets:val:io_backend={type: memcached, sys_path: .}", "'memcached' is not known"),
    "no such best": ("logger:keep_best=psnr", "logger.keep_best: 'psnr' is not known"),
    "uneven parts": ("train:accumulation_steps=3", "train.accumulation_steps: 3 must divide"),
    "a resample above 1": ("val:resample=1.5", "val.resample: 1.5 must be from 0 to below 1"),
    "a share above 1": ("val:adaptive=1.5", "val.adaptive: 1.5 must be at most 1"),
    "patch without an inside": ("train:consistency_opt:type=L1Loss", "gt_size: 16 must be above 16 for train.consistency_opt"),
    "misspelt loss of the LR image": ("train:consistency_opt:type=L1", "train.consistency_opt.type: 'L1' is not known; did you mean"),
    "a metric's option": ("val:metrics:psnr:crop_border=a", "val.metrics.psnr cannot be computed"),
    "patch larger than images": ("datasets:train:gt_size=64", "0 is 52x44, smaller than gt_size 64"),
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
    with pytest.raises(UserError) as refusal:
        load_run("tiny.yml", is_train=True, force=[entry])
    with pytest.raises(SystemExit) as stop:
        basicsr_command(["train", "-opt", "tiny.yml", "--force_yml", entry])
    errors = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert errors == [f"basicsr: error: {refusal.value}"] and message in errors[0]
    assert sorted(workplace.iterdir()) == before


def tiny(*changes: str) -> Section:
    return load_options(TINY, changes)


def test_a_file_is_checked_without_torch() -> None:
    done = run_python(
        "import sys\n"
        "from pathlib import Path\n"
        "from srflow_plugin.errors import UserError\n"
        "from srflow_plugin.options.check import check_file, notes\n"
        "from srflow_plugin.options.files import load_options\n"
        f"for file in Path({str(ROOT / 'options')!r}).glob('*.yml'):\n"
        "    opt = load_options(file)\n"
        "    check_file(opt, 'train' in opt)\n"
        "    notes(opt)\n"
        "try:\n"
        "    check_file(load_options(file, ['scale=four']), False)\n"
        "except UserError as mistake:\n"
        "    print(mistake)\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'torch', 'basicsr', 'cv2', 'numpy'})\n",
        cwd=ROOT,
    )
    assert done.stdout.splitlines() == ["scale: 'four' is not a whole number or none", "set()"], done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["datasets.train=none"], "datasets.train must be a section with keys"),
        (["datasets={}"], "datasets.train is missing: training needs a data set of that name"),
        (
            ["datasets.test.name=a", "datasets.test.type=b"],
            "datasets.test: in training a data set is called train, val",
        ),
        (["datasets.val.io_backend.type=none"], "datasets.val.io_backend.type is missing"),
        (["datasets.train.use_rot=none"], "datasets.train.use_rot is missing"),
        (["train=none"], "train is missing"),
        (["logger=none"], "logger is missing"),
        (["val.val_freq=none"], "val.val_freq is missing"),
        (["train.optim_g={type: Adam}"], "train.optim_g.lr is missing"),
        (["train.scheduler={}"], "train.scheduler.type is missing"),
        (["path=none"], "path is missing"),
    ],
)
def test_what_is_missing_is_named(changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        check_file(tiny(*changes), is_train=True)


def test_a_training_may_go_without_validation_and_a_test_without_train() -> None:
    check_file(tiny("val=none"), is_train=True)
    check_file(tiny("train=none", "logger=none", "datasets={a: {name: b, type: c}}"), False)
    with pytest.raises(UserError, match="val is missing"):
        check_file(tiny("val=none"), is_train=False)


def test_sections_of_other_models_and_data_sets_are_left_to_them() -> None:
    theirs = ["model_type=TheirModel", "train.gan_opt={type: GANLoss}", "val.theirs=1", "network_d={type: A}"]
    check_file(tiny(*theirs, "datasets.train={name: a, type: TheirImages, theirs: 1}"), is_train=True)
    with pytest.raises(UserError, match=r"logger\.print_freq: 0 must be 1 or more"):
        check_file(tiny(*theirs, "logger.print_freq=0"), is_train=True)
    with pytest.raises(UserError, match=r"train\.gan_opt is no option"):
        check_file(tiny("train.gan_opt={type: GANLoss}"), is_train=True)


def test_options_without_effect_are_noted() -> None:
    assert notes(tiny()) == []
    assert notes(tiny("datasets.train.num_prefetch_queue=2", "datasets.val.persistent_workers=true")) == [
        "datasets.train.num_prefetch_queue changes nothing",
        "datasets.val.persistent_workers changes nothing",
    ]


def test_what_one_might_expect_otherwise_is_noted() -> None:
    opt = load_options(TINY, ["network_g.noise_levels=32", "val.tile=64", "val.metrics.bits={type: calculate_nll}"])
    check_file(opt, is_train=True)
    assert notes(opt) == [
        "network_g.noise_levels: with 32 l_nll bounds no code of 8 bit images",
        "val.tile: the code length is computed of whole images all the same",
    ]
    assert notes(load_options(TINY)) == []


DEGRADATION_MISTAKES = {
    "probabilities that are no whole": ("resize_prob=[0.2, 0.7, 0.2]", "resize_prob: [0.2, 0.7, 0.2] must add up to 1, and is 1.1"),
    "a case without a probability": ("resize_prob2=[0.5, 0.5]", "resize_prob2: [0.5, 0.5] must be 3 numbers"),
    "a kernel without a probability": ("datasets.train.kernel_prob=[0.5, 0.5]", "datasets.train.kernel_prob: [0.5, 0.5] must be 6 numbers, one for each of kernel_list"),
    "a probability above 1": ("gray_noise_prob=1.4", "gray_noise_prob: 1.4 must be at most 1"),
    "a probability below 0": ("resize_prob=[-0.2, 0.7, 0.5]", "resize_prob: [-0.2, 0.7, 0.5] must be 0 or more"),
    "a share in percent": ("clean_prob=15", "clean_prob: 15 must be at most 1"),
    "a range from large to small": ("noise_range=[30, 1]", "noise_range: [30, 1] must be two numbers, the smaller one first"),
    "a range of one": ("poisson_scale_range=[3]", "poisson_scale_range: [3] must be two numbers, the smaller one first"),
    "a number for a range": ("noise_range2=25", "noise_range2: 25 is not a list, each a number"),
    "one blur": ("datasets.train.blur_sigma=[2, 2]", "datasets.train.blur_sigma: [2, 2] must be two numbers that differ"),
    "no blur at all": ("datasets.train.blur_sigma2=[0, 2]", "datasets.train.blur_sigma2: [0, 2] must be 0.001 or more"),
    "resizes down alone": ("resize_range=[0.2, 0.8]", "resize_range: [0.2, 0.8] must have 1 between its two numbers"),
    "exponents above 1 alone": ("datasets.train.betag_range=[2, 4]", "datasets.train.betag_range: [2, 4] must have 1 between"),
    "resizes to nothing": ("resize_range2=[0, 1.2]", "resize_range2: [0, 1.2] must be 0.05 or more"),
    "a JPEG of quality 0": ("jpeg_range=[0, 95]", "jpeg_range: [0, 95] must be 1 or more"),
    "a JPEG of quality 120": ("jpeg_range2=[30, 120]", "jpeg_range2: [30, 120] must be at most 99"),
    "a missing key": ("jpeg_range2=none", "jpeg_range2 is missing"),
    "a missing key of the data set": ("datasets.train.final_sinc_prob=none", "datasets.train.final_sinc_prob is missing"),
    "a misspelt key": ("clean_probability=0.1", "clean_probability is no option; did you mean clean_prob?"),
    "a misspelt key of the data set": ("datasets.train.kernel_lists=[iso]", "datasets.train.kernel_lists is no option; did you mean kernel_list"),
    "a misspelt kernel": ("datasets.train.kernel_list=[isotropic]", "datasets.train.kernel_list: ['isotropic'] is not a list, each iso or aniso"),
    "a misspelt filter": ("resize_modes=[lanczos]", "resize_modes: ['lanczos'] is not a list, each area or bilinear"),
    "no filter": ("resize_modes=[]", "resize_modes: [] must name one filter or more"),
    "two sizes of patches": ("datasets.train.gt_size=32", "gt_size: 16 and datasets.train.gt_size: 32 must agree"),
    "patches larger than images": ("gt_size=408", "gt_size: 408 must be at most 400"),
    "degraded pairs": ("high_order_degradation=false", "high_order_degradation: false is for pairs, and datasets.train.type is RealESRGANDataset"),
    "agreement with damage": ("train:consistency_opt:type=L1Loss", "train.consistency_opt compares with LR images that RealESRGANDataset degrades"),
    "no pairs to validate on": ("datasets.val.type=RealESRGANDataset", "datasets.val.type: RealESRGANDataset makes no LR images; validate and test on pairs"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", DEGRADATION_MISTAKES)
def test_a_mistake_in_degradations_gets_one_line(mistake: str, tmp_path: Path) -> None:
    entry, message = DEGRADATION_MISTAKES[mistake]
    (tmp_path / "it.yml").write_text(yaml.safe_dump(degrading_options()))
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        check_file(load_options(tmp_path / "it.yml", [entry]), is_train=True)


def test_what_is_said_of_degradations_in_vain_is_noted() -> None:
    opt = degrading_options(queue_size=180, l1_gt_usm=True)
    assert notes(opt) == ["queue_size changes nothing", "l1_gt_usm changes nothing"]
    opt["datasets"]["train"]["blur_kernel_size2"] = 15
    assert notes(opt)[0].startswith("datasets.train.blur_kernel_size2 changes nothing")
    (note,) = notes(tiny("jpeg_range=[30, 95]", "high_order_degradation=false"))
    assert note == "jpeg_range: nothing is degraded but the images of a RealESRGANDataset"


def test_no_noise_can_be_said_on_the_command_line(workplace: Path) -> None:
    assert load_run("tiny.yml", is_train=True, force=["network_g:noise=none"]).opt["network_g"]["noise"] is None
