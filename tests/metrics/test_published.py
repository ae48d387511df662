"""Published weights: only those that are known by their whole hash, and no code from any file."""

from __future__ import annotations

import hashlib
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import basicsr.archs.inception
import pytest
import torch
import torchvision
from stlpips_pytorch import stlpips

from srflow_plugin.errors import UserError
from srflow_plugin.metrics import published
from srflow_plugin.metrics.perceptual import perceptual_distance
from srflow_plugin.metrics.published import (
    PUBLISHED,
    TORCHVISION,
    Published,
    lpips_network,
    read_without_code,
    stlpips_network,
)
from tests.helpers import WITHOUT_VALIDATION, refusal, train

Plant = Callable[[Path], object]


class Code:
    """What runs code when it is unpickled the usual way."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("it_ran"),)


def legacy_zip(path: Path) -> None:
    torch.save(Code(), "inner.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write("inner.pth")


def link(path: Path) -> None:
    torch.save(Code(), "elsewhere")
    path.symlink_to(Path("elsewhere").resolve())


PLANTS: dict[str, Plant] = {
    "a zip": lambda path: torch.save({"features.0.weight": Code()}, path),
    "as older PyTorch": lambda path: torch.save(Code(), path, _use_new_zipfile_serialization=False),
    "in an archive": legacy_zip,
    "whole weights, and others": lambda path: torch.save(torchvision.models.squeezenet1_1().state_dict(), path),
    "a link": link,
    "nothing": lambda path: path.write_bytes(b""),
}
LPIPS_IN_TRAINING = "val:metrics:it={type: calculate_lpips}"
VGG = "train:perceptual_opt={type: PerceptualLoss, layer_weights: {conv1_1: 1}, vgg_type: vgg19}"
PLAIN_TRAINING = (
    "train={total_iter: 2, optim_g: {type: Adam, lr: 1.0}, scheduler: {type: MultiStepLR, milestones: [9]}, "
    "pixel_opt: {type: L1Loss}}"
)
IN_TRAINING = [
    ("hub/checkpoints/alexnet-owt-7be5be79.pth", LPIPS_IN_TRAINING),
    ("hub/checkpoints/vgg16-397923af.pth", LPIPS_IN_TRAINING.replace("_lpips", "_lpips, net: vgg")),
    ("hub/checkpoints/alexnet-owt-7be5be79.pth", "train:perceptual_opt={type: LPIPSLoss}"),
    ("hub/checkpoints/vgg16-397923af.pth", "train:perceptual_opt={type: LPIPSLoss, net: vgg}"),
    ("hub/checkpoints/vgg19-dcbb9e9d.pth", VGG),
    ("experiments/pretrained_models/vgg19-dcbb9e9d.pth", VGG),
    ("hub/checkpoints/vgg11-8a719046.pth", VGG.replace("vgg19", "vgg11")),  # which we do not know
    ("mine.pth", "path:pretrain_network_g=mine.pth"),
    ("mine.pth", "path:pretrain_network_encoder=mine.pth"),
    ("training_states/2.state", "path:resume_state=training_states/2.state"),
    ("mine.pth", "network_g={type: SpyNet, load_path: mine.pth}"),
    ("mine.pth", "network_g={type: DFDNet, num_feat: 64, dict_path: mine.pth}"),
]


@pytest.fixture
def hub(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that is PyTorch's, too, and where nothing can be fetched."""

    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise UserError("it cannot be fetched")

    monkeypatch.setattr(published, "download", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(workplace))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # as some set for other programs
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    perceptual_distance.cache_clear()
    return workplace


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("place", "option"), IN_TRAINING)
def test_a_training_runs_no_code_of_weights(
    place: str, option: str, hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    model = ["model_type=SRModel", PLAIN_TRAINING] if option.startswith("network_g") else []
    for name, plant in PLANTS.items():
        Path(place).unlink(missing_ok=True)
        plant(Path(place))
        with pytest.raises(SystemExit) as stop:
            train(option, *([] if "metrics" in option else [WITHOUT_VALIDATION]), *model)
        lines = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and not Path("it_ran").exists(), lines
        assert Path(place).name in lines[-1] or name == "whole weights, and others", lines
    assert not [path for path in Path("experiments").glob("*") if path.name != "pretrained_models"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_benchmark_runs_no_code_of_weights(
    hub: Path, benchmark_command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path("hub/checkpoints/alexnet-owt-7be5be79.pth")
    place.parent.mkdir(parents=True)
    command = [{"stlpips": "lpips"}.get(word, word) for word in benchmark_command]
    for plant in PLANTS.values():
        place.unlink(missing_ok=True)
        plant(place)
        perceptual_distance.cache_clear()
        assert place.name in refusal(capsys, *command) and not Path("it_ran").exists()


def test_what_basicsr_reads_by_itself_is_read_without_code(hub: Path) -> None:
    name = "pt_inception-2015-12-05-6726825d.pth"
    place = Path("hub/checkpoints", name)
    place.parent.mkdir(parents=True)
    torch.save(Code(), place)
    with read_without_code(), pytest.raises(UserError, match=f"{name} is not the file that was published"):
        basicsr.archs.inception.load_url(basicsr.archs.inception.FID_WEIGHTS_URL)
    other = place.rename("other.pth")
    with (
        read_without_code(),
        pytest.raises(UserError, match="which is not loaded because that could run code"),
    ):
        torch.load(other)
    with read_without_code(), other.open("rb") as file, pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=False)
    assert not Path("it_ran").exists()


def test_other_programs_read_as_before(tmp_path: Path) -> None:
    before = torch.load, torch.hub.download_url_to_file
    with pytest.raises(KeyError), read_without_code():
        assert torch.load is not before[0]
        raise KeyError
    assert (torch.load, torch.hub.download_url_to_file) == before


def test_what_is_published_is_fetched_once_and_read(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(3)}, "there.pth")
    content = Path("there.pth").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    name, fetched = f"net-{digest[:8]}.pth", []

    def fetch(url: str, path: Path, size: int | None = None, checksum: str | None = None) -> None:
        fetched.append((url, size, checksum))
        shutil.copy("there.pth", path)

    monkeypatch.setattr(published, "download", fetch)
    monkeypatch.setitem(PUBLISHED, name, Published(len(content), digest))
    other = f"net-{'0' * 8}.pth"
    with read_without_code():
        for _ in range(2):
            assert torch.hub.load_state_dict_from_url(f"{TORCHVISION}/{name}")["a"].tolist() == [1, 1, 1]
        with pytest.raises(UserError, match="is another file than its name says"):
            torch.hub.load_state_dict_from_url(f"{TORCHVISION}/{other}")
    assert fetched == [
        (f"{TORCHVISION}/{name}", len(content), f"sha256:{digest}"),
        (f"{TORCHVISION}/{other}", None, None),
    ]


def test_known_hashes_begin_as_their_names_end() -> None:
    for name, known in PUBLISHED.items():
        digits = re.search(r"-([0-9a-f]{8})\.pth$", name)
        assert digits and known.sha256.startswith(digits[1]) and len(known.sha256) == 64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_networks_are_those_of_their_packages(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = stlpips_network(net).state_dict(), stlpips.LPIPS(net=net, variant="shift_tolerant").state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items()) and ours.keys() == theirs.keys()
    trunk = getattr(torchvision.models, {"alex": "alexnet", "vgg": "vgg16"}[net])().state_dict()
    monkeypatch.setattr(published, "trunk_weights", lambda net: trunk)
    state = lpips_network(net).state_dict()
    for key, value in trunk.items():
        if key.startswith("features."):
            (own,) = (
                name
                for name in state
                if name.startswith("net.")
                and name.endswith(key.partition(".")[2])
                and name.split(".")[2] == key.split(".")[1]
            )
            assert torch.equal(state[own], value)
    assert state["lin0.model.1.weight"].abs().sum() > 0
