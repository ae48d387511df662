"""Mixed precision: networks in 16 bits, all else in float32, for models of BasicSR and SRFlowModel.

test_basicsr_models.py stops and resumes all of BasicSR's with it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from srflow_plugin.cli.main import basicsr_command
from srflow_plugin.errors import TrainingError, UserError
from srflow_plugin.options.check import load_checked
from srflow_plugin.options.files import load_options
from srflow_plugin.training import amp, pipelines
from srflow_plugin.training.amp import MixedPrecision, lower_precision, to_float32
from srflow_plugin.training.cuda_names import of_this_machine
from srflow_plugin.training.pipelines import Training
from srflow_plugin.training.setup import load_run
from srflow_plugin.training.stop import StopRequest
from tests.helpers import ROOT, TINY, saved_networks, torchrun, train, untrained_network
from tests.training.test_basicsr_models import differences, option_file

Section = dict[str, Any]
QUICK = ("SRModel, EDSR", "ESRGANModel, RRDBNet")
LOW = (torch.bfloat16, torch.float16)
SRFLOW = "SRFlowModel, SRFlowNet"


def write_options(case: str, **train_options: Any) -> None:
    """Write it.yml: a case of BasicSR's models on the data of tiny.yml, or tiny.yml."""
    tiny = load_options(TINY)
    opt = tiny if case == SRFLOW else {**option_file(case), "num_gpu": 0}
    opt["datasets"] = tiny["datasets"]
    opt["logger"]["use_tb_logger"] = False
    opt["train"].update(train_options)
    opt["name"] = "it"
    Path("it.yml").write_text(yaml.safe_dump(opt))


def training_of(*force: str) -> Training:
    """Make the training of it.yml, without folders and files."""
    run = load_run("it.yml", is_train=True, force=force)
    run.lock.close()
    return Training(run, StopRequest())


class Convolutions(TorchDispatchMode):
    """Types that convolutions are computed in."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.types: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.types.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


def all_tensors(model: Any) -> dict[str, Tensor]:
    """List what a model holds: parameters, gradients, moments, outputs."""
    found = {name: value for name, value in vars(model).items() if isinstance(value, Tensor)}
    for name, net in vars(model).items():
        if isinstance(net, nn.Module):
            for key, parameter in net.named_parameters():
                found[f"{name}.{key}"] = parameter.detach()
                if parameter.grad is not None:
                    found[f"{name}.{key}.grad"] = parameter.grad
    for optimizer in model.optimizers:
        for number, kept in enumerate(optimizer.state.values()):
            found |= {f"{number}.{key}": value for key, value in kept.items()}
    return found


@pytest.mark.usefixtures("workplace")
@pytest.mark.filterwarnings("ignore")  # of PyTorch, about BasicSR's networks
@pytest.mark.parametrize(
    ("case", "kind"), [*((case, kind) for case in QUICK for kind in ("bfloat16", "float16")), (SRFLOW, "bfloat16")]
)
def test_networks_compute_in_16_bits_and_all_else_is_float32(case: str, kind: str) -> None:
    write_options(case, amp=kind)
    training = training_of()
    with of_this_machine(training.opt):
        batch = next(iter(training.batches()))
        with Convolutions() as step:
            training.step(batch)
        with Convolutions() as validation:
            training.validate()
    low = getattr(torch, kind)
    assert low in step.types and low in validation.types
    if case != SRFLOW:  # whose own variable stays
        assert step.types == validation.types == {low}
    tensors = all_tensors(training.model)
    assert len(tensors) > 20 and {value.dtype for value in tensors.values()} & set(LOW) == set()
    assert all(math.isfinite(value) for value in training.model.get_current_log().values())
    (results,) = training.model.best_metric_results.values()
    assert all(math.isfinite(record["val"]) for record in results.values())


@pytest.mark.usefixtures("workplace")
def test_none_is_off() -> None:
    for off in ("none", None):
        write_options(QUICK[0], amp=off)
        training = training_of()
        with Convolutions() as step, of_this_machine(training.opt):
            training.step(next(iter(training.batches())))
        assert step.types == {torch.float32} and training.amp.state() == {}


@pytest.mark.usefixtures("workplace")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("case", "kind"), [(QUICK[0], "bfloat16"), (QUICK[0], "float16"), (QUICK[1], "float16"), (SRFLOW, "bfloat16")]
)
def test_a_resumed_training_is_the_same(case: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.amp.GradScaler, "__init__", quick_scaler(torch.amp.GradScaler.__init__))
    write_options(case, amp=kind, total_iter=6)
    opt = yaml.safe_load(Path("it.yml").read_text())
    opt["logger"]["save_checkpoint_freq"] = 2
    state = resumed_equals_whole(opt)
    if kind == "float16":
        assert state["amp"]["scale"] != 2.0**16  # with which a training begins


def quick_scaler(own: Callable[..., None]) -> Callable[..., None]:
    """Let the factor grow after every second step."""

    def init(self: Any, device: str, **kwargs: Any) -> None:
        own(self, device, growth_interval=2, **kwargs)

    return init


def resumed_equals_whole(opt: Section) -> Section:
    """Train in one go, and in two; compare all that is saved; return the state."""
    Path("it.yml").write_text(yaml.safe_dump(opt))
    command = ["train", "-opt", "it.yml", "--force_yml"]
    assert basicsr_command([*command, "name=whole"]) == 0
    assert basicsr_command([*command, "name=part", "train:total_iter=4"]) == 0
    assert basicsr_command([*command, "name=part", "--auto_resume"]) == 0
    saved = []
    for name in ("whole", "part"):
        folder = Path("experiments") / name
        files = [*sorted((folder / "models").glob("*_6.pth")), folder / "training_states" / "6.state"]
        saved.append({file.name: torch.load(file, weights_only=True) for file in files})
    assert len(saved[0]) >= 2 and differences(saved[0], saved[1]) == []
    state: Section = saved[0]["6.state"]
    return state


@pytest.mark.usefixtures("workplace")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", QUICK)
def test_scaling_alone_changes_nothing(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor that is a power of two goes into gradients and out of them again without rounding."""
    write_options(case, total_iter=4)
    command = ["train", "-opt", "it.yml", "--force_yml", "val=none"]
    assert basicsr_command([*command, "name=plain"]) == 0
    monkeypatch.setattr(amp, "lower_precision", lambda model, kind: None)
    assert basicsr_command([*command, "name=scaled", "train:amp=float16"]) == 0
    assert differences(saved_networks("plain"), saved_networks("scaled")) == []


class Toy:
    """A model that clips, takes two steps with one loss, and has a parameter that is never trained."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net_g, self.net_d = nn.Linear(3, 1), nn.Linear(1, 1)
        self.cri = nn.Linear(2, 2)
        self.optimizers = [torch.optim.SGD(net.parameters(), lr=1.0) for net in (self.net_g, self.net_d)]
        self.optimizers.append(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0))
        self.norm = 0.0

    @staticmethod
    def get_bare_model(net: nn.Module) -> nn.Module:
        return net

    def optimize_parameters(self, x: Tensor) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = self.net_d(self.net_g(x)).square().mean()
        loss.backward()
        self.norm = float(torch.nn.utils.clip_grad_norm_(self.net_g.parameters(), 0.01))
        nn.utils.clip_grad_value_(next(self.net_d.parameters()), 0.02)
        for optimizer in self.optimizers:
            optimizer.step()


def test_gradients_are_clipped_without_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, scaled = Toy(), Toy()
    monkeypatch.setattr(amp, "lower_precision", lambda model, kind: None)
    mixed: Any = MixedPrecision(scaled, "float16")
    for iteration in range(1, 4):
        x = torch.rand(5, 3)
        plain.optimize_parameters(x)
        with mixed.step(iteration):
            scaled.optimize_parameters(x)
        assert scaled.norm == plain.norm > 0.01
    assert differences(plain.net_g.state_dict(), scaled.net_g.state_dict()) == []
    assert differences(plain.net_d.state_dict(), scaled.net_d.state_dict()) == []
    assert Tensor.backward.__module__ == "torch._tensor"


def test_a_step_whose_gradients_are_not_finite_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("basicsr").propagate = True
    model = Toy()
    mixed: Any = MixedPrecision(model, "float16")
    before = {key: value.clone() for key, value in model.net_g.state_dict().items()}
    with mixed.step(7):
        model.optimize_parameters(torch.full((5, 3), 1e30))
    assert differences(before, model.net_g.state_dict()) == []
    assert "Iteration 7: gradients are not finite in float16; the step is skipped" in caplog.text
    assert mixed.state() == {"amp": {"scale": 2.0**15, "_growth_tracker": 0}}
    with mixed.step(8):
        model.optimize_parameters(torch.rand(5, 3))
    assert len(differences(before, model.net_g.state_dict())) == 2
    assert mixed.state() == {"amp": {"scale": 2.0**15, "_growth_tracker": 1}}
    with pytest.raises(TrainingError, match="up to iteration 48 are not finite"):
        for iteration in range(9, 100):
            with mixed.step(iteration):
                model.optimize_parameters(torch.full((5, 3), 1e30))


def test_a_mean_that_is_not_finite_ends_a_training() -> None:
    model: Any = Toy()
    model.net_d = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    mixed: Any = MixedPrecision(model, "float16")
    with pytest.raises(TrainingError, match="what net_d computes is beyond its range"), mixed.step(1):
        model.optimize_parameters(torch.full((5, 3), 1e30))


def test_a_model_that_goes_round_the_factor_is_refused() -> None:
    model = Toy()
    mixed: Any = MixedPrecision(model, "float16")
    with pytest.raises(TrainingError, match="for models that call their losses' backward"), mixed.step(1):
        torch.autograd.backward(model.net_g(torch.rand(5, 3)).mean())
        model.optimizers[0].step()


def test_a_state_that_is_none_is_refused() -> None:
    mixed = MixedPrecision(Toy(), "float16")
    mixed.resume({"scale": 4.0, "_growth_tracker": 3})
    assert mixed.state() == {"amp": {"scale": 4.0, "_growth_tracker": 3}}
    mixed.resume(None)
    assert mixed.state()["amp"]["scale"] == 4
    for state in ({}, {"scale": 0.0, "_growth_tracker": 3}, {"scale": math.inf, "_growth_tracker": 3}, {"scale": 1.0}):
        with pytest.raises(UserError, match=r"^path.resume_state: its factor of float16's losses is"):
            mixed.resume(state)


def test_outputs_of_any_form_become_float32() -> None:
    low = torch.ones(1, dtype=torch.bfloat16)
    named = torch.max(low[None], 1)  # a named tuple
    output = to_float32({"a": [low, named], "b": (low, "text", torch.ones(1, dtype=torch.float64))})
    assert output["a"][0].dtype == output["a"][1].values.dtype == torch.float32
    assert type(output["a"][1]) is type(named) and output["a"][1].indices.dtype == torch.int64
    assert output["b"][1] == "text" and output["b"][2].dtype == torch.float64


def test_networks_of_several_gpus_stay_in_autocast() -> None:
    """DataParallel makes copies of a network, whose parameters are others."""
    model = Toy()
    lower_precision(model, "bfloat16")
    copy: Any = model.net_g._replicate_for_data_parallel()
    copy.weight, copy.bias = torch.zeros(1, 3), torch.ones(1)
    with torch.no_grad():
        assert copy(torch.rand(2, 3)).tolist() == [[1.0], [1.0]]
    assert type(copy).__name__ == "Linear" and isinstance(copy, amp.InAutocast)


@pytest.mark.usefixtures("workplace")
def test_a_test_has_mixed_precision_of_its_own() -> None:
    untrained_network("net.pth")
    changes = ["train=none", "path.pretrain_network_g=net.pth", "val.temperature=0"]
    for kind, expected in (("bfloat16", torch.bfloat16), ("none", torch.float32)):
        run = load_run("tiny.yml", is_train=False, force=[*changes, f"val.amp={kind}"])
        with Convolutions() as convolutions:
            assert pipelines.test_pipeline(run) == 0
        run.lock.close()
        assert expected in convolutions.types
        assert (torch.bfloat16 in convolutions.types) == (kind == "bfloat16")


REFUSED = {
    "misspelt, of a model whose other options are not known": (
        ["model_type=ESRGANModel", "train:amp=floa16"],
        "train.amp: 'floa16' is not bfloat16 or float16 or none; did you mean float16?",
    ),
    "not a word": (["model_type=ESRGANModel", "train:amp=true"], "train.amp: True is not bfloat16 or float16 or none"),
    "StyleGAN2Model": (
        ["model_type=StyleGAN2Model", "train:amp=bfloat16"],
        "train.amp: StyleGAN2Model differentiates within its networks; leave amp out",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_possible_is_one_line(case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(UserError) as refusal:
        load_checked(TINY, changes, is_train=True)
    assert str(refusal.value) == message


def test_a_gpu_without_bfloat16_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Toy()
    model.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(UserError, match=r"^amp: this GPU has no bfloat16; set float16$"):
        lower_precision(model, "bfloat16")


RANKS = """
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from srflow_plugin.training import distributed
from srflow_plugin.training.amp import MixedPrecision
from tests.training.test_amp import Toy
distributed.init_dist("pytorch")
rank = torch.distributed.get_rank()
model = Toy()
model.net_g = DistributedDataParallel(model.net_g)
model.net_d = DistributedDataParallel(model.net_d)
model.get_bare_model = lambda net: net.module
mixed = MixedPrecision(model, "float16")
for iteration in range(1, 5):
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(10 * iteration + rank))
    if rank == 1 and iteration == 2:
        x = x * 1e30
    with mixed.step(iteration):
        model.optimize_parameters(x)
weights = [parameter.tolist() for net in (model.net_g, model.net_d) for parameter in net.parameters()]
one, other = distributed.gather((weights, mixed.state()))
assert one == other, (one, other)
# The first step's gradients are beyond float16 with the first factor, the second's are rank 1's.
assert mixed.state() == {"amp": {"scale": 2.0**14, "_growth_tracker": 2}}, mixed.state()
assert all(value.isfinite().all() for value in model.net_g.state_dict().values())
print("rank", rank, "agrees")
distributed.leave()
"""


@pytest.mark.slow
def test_two_processes_skip_and_scale_together(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(f"import sys\nsys.path.append({str(ROOT)!r})\n{RANKS}")
    output = torchrun(tmp_path / "ranks.py")
    assert "rank 0 agrees" in output and "rank 1 agrees" in output


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_two_processes_train_srflow_in_bfloat16() -> None:
    torchrun("-m", "srflow_plugin", "train", "-opt", "tiny.yml", "--force_yml", "train:amp=bfloat16", "name=two")
    assert train("train:amp=none", "name=one", "datasets:train:batch_size_per_gpu=4") == 0
    two, one = saved_networks("two")["params"], saved_networks("one")["params"]
    moved = max(float((two[key].float() - one[key].float()).abs().max()) for key in one)
    assert 0 < moved < 5e-3  # bfloat16's, of steps of 1e-3
