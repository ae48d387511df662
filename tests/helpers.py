"""What several test files use: images, networks whose weights hide nothing, commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from srflow_plugin import SRFlowNet
from srflow_plugin.checkpoints.released import to_released
from srflow_plugin.cli.main import basicsr_command, srflow_command
from srflow_plugin.data.prepare import write_pairs
from srflow_plugin.images.files import find_images
from srflow_plugin.images.resize import bicubic_upscale
from srflow_plugin.options.files import load_options
from srflow_plugin.sampling.draw import draw

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(__file__).resolve().parents[2] / "shared"
TINY = ROOT / "tests" / "tiny.yml"
BIN = Path(sys.executable).parent

# Settings of SRFlowNet that the paper does not have, by what they are known as.
BEYOND_THE_PAPER: dict[str, dict[str, Any]] = {
    "floor": {"scale_floor": 0.3},
    "bound": {"log_scale_bound": 0.5},
    "SRFlow-DA": {"num_steps": 3, "num_levels": 2, "coupling_layers": 4, "coupling_kernel_size": 3},
    "NCSR": {"noise": "conditional", "noise_sigma": 8.0},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "x2": {"scale": 2},
    "x4": {"scale": 4},
    # With the paper's floor random weights so deep do not keep the plain path's own digits.
    "x8": {"scale": 8, "scale_floor": 0.3},
    "x4, one level more": {"scale": 4, "num_levels": 4, "scale_floor": 0.3},
    **{name: {"scale": 4, **setting} for name, setting in BEYOND_THE_PAPER.items()},
}

# Of tests of a clone's own files: those of a source distribution may be run for a package that is installed.
CLONE = pytest.mark.skipif(not (ROOT / ".ci" / "run").is_file(), reason="is about the files of a clone")
# Of tests of what Windows has not: signals, forks, modes of files, symbolic links without a privilege, shells.
UNIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals, forks, modes, links or shells")

Module = TypeVar("Module", bound=nn.Module)


def perturb(module: Module, seed: int = 0, amount: float = 0.05) -> Module:
    """Move every parameter off its start: zero-initialised convolutions would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(amount * noise.to(parameter.dtype))
    return module


def small_network(scale: int = 4, **changes: Any) -> SRFlowNet:
    """Make a network of every kind of layer, small enough for the tests."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "num_feat": 6,
        "num_grow_ch": 4,
        "num_block": 2,
        "feature_blocks": (0, 1),
        "num_steps": 2,
        "num_levels": {2: 2, 4: 3, 8: 4}[scale],
        "hidden_channels": 8,
    }
    network = SRFlowNet(scale=scale, **{**arguments, **changes})
    perturb(network)
    return network.eval()


def released_like(network: SRFlowNet) -> dict[str, torch.Tensor]:
    """Make a released file of a small network: what it uses, and something in place of what it does not."""
    released = to_released(network.state_dict())
    return {key: value if value.any() else torch.randn_like(value) for key, value in released.items()}


class Enlarger(nn.Module):
    """What looks like a trained network and is quick: bicubic upscaling with noise."""

    scale = 4

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    lq_multiple = 1

    def latent_shapes(self, h: int, w: int) -> list[tuple[int, int, int]]:
        return [(3, self.scale * h, self.scale * w)]

    def padded_lq(self, lq: torch.Tensor) -> torch.Tensor:
        return lq

    def decode(self, latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
        image = bicubic_upscale(lq, self.scale).repeat(len(latents[0]) // len(lq), 1, 1, 1)
        return image + 0.05 * latents[0]

    def sample(self, lq: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        return draw(self, lq, *arguments, **options).images  # type: ignore[arg-type]


def image_pair(scale: int, h: int, w: int, batch: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Make a smooth-ish HR image in [0, 1] and an LR image of h x w."""
    generator = torch.Generator().manual_seed(h * 100 + w)
    lq = torch.rand(batch, 3, h, w, generator=generator, dtype=dtype)
    gt = nn.functional.interpolate(lq, scale_factor=scale, mode="bilinear", align_corners=False)
    return (gt + 0.1 * torch.rand(gt.shape, generator=generator, dtype=dtype)).clamp(0, 1), lq


def plain_encode(network: SRFlowNet, gt: torch.Tensor, lq: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Encode by the layers' own ``forward``."""
    latents, logdet = network.flow(*network.flow_inputs(gt, lq))
    return latents, logdet


def plain_decode(network: SRFlowNet, latents: Sequence[torch.Tensor], lq: torch.Tensor) -> torch.Tensor:
    """Decode by the layers' own ``inverse``."""
    contexts = network._contexts(network.features(lq))
    image, _ = network.flow.inverse(latents, [one.expanded() for one in contexts])
    image = image - network.shift
    return image[:, :, : network.scale * lq.shape[2], : network.scale * lq.shape[3]]


def jacobian_logdet(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Compute log|det| of the Jacobian of ``function`` at one input, by autograd."""
    jacobian = torch.autograd.functional.jacobian(lambda flat: function(flat.view_as(x)).flatten(), x.flatten())
    logdet: torch.Tensor = torch.linalg.slogdet(jacobian).logabsdet
    return logdet


def noise_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Make an image of noise: uint8 (height, width, 3)."""
    image: np.ndarray = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image


def noisy(image: np.ndarray, seed: int, sigma: float = 10) -> np.ndarray:
    """Add noise to an image, uint8."""
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    result: np.ndarray = (image + noise).round().clip(0, 255).astype(np.uint8)
    return result


def opencv_image(path: Path) -> np.ndarray:
    """Read an image as OpenCV does: BGR, and as deep as the file is."""
    image: np.ndarray | None = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def make_data(folder: Path, width: int, height: int) -> None:
    """Make what tiny.yml reads, in ``folder``: three training images and one for validation, as files and as LMDBs."""
    rng = np.random.default_rng(0)
    for phase, count in (("train", 3), ("val", 1)):
        images = folder / "images" / phase
        images.mkdir(parents=True)
        for number in range(count):
            coarse = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
            cv2.imwrite(
                str(images / f"{number}.png"), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            )
        data = folder / "data"
        write_pairs(find_images(images), data / f"{phase}_HR.lmdb", data / f"{phase}_LRx4.lmdb", 4)


def read_pairs(hr_lmdb: Path, lr_lmdb: Path, scale: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read all pairs as BasicSR's own data set does: by their keys HR and LR, uint8 RGB."""
    from basicsr.data import build_dataset

    dataset = build_dataset(
        {
            "name": "test",
            "type": "PairedImageDataset",
            "dataroot_gt": str(hr_lmdb),
            "dataroot_lq": str(lr_lmdb),
            "io_backend": {"type": "lmdb"},
            "phase": "val",
            "scale": scale,
        }
    )

    def picture(tensor: torch.Tensor) -> np.ndarray:
        pixels: np.ndarray = (255 * tensor.numpy().transpose(1, 2, 0)).round().astype(np.uint8)
        return pixels

    items = map(dataset.__getitem__, range(len(dataset)))
    return {item["gt_path"]: (picture(item["gt"]), picture(item["lq"])) for item in items}


def run_python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own; ``options`` are those of :func:`subprocess.run`."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, **options)


def run(*command: str | Path, code: int = 0, timeout: float = 300) -> str:
    """Run a command in the current folder; return what it printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=timeout)
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


def torchrun(*command: str | Path, code: int = 0) -> str:
    """Run a command in two processes; return what they printed, one's after the other's.

    Each writes files of its own: lines of two processes that write to one pipe can mix.
    """
    with tempfile.TemporaryDirectory() as logs:
        launcher = ["torch.distributed.run", "--nproc_per_node=2", "--standalone", "--redirects=3", f"--log-dir={logs}"]
        try:
            output = run(sys.executable, "-m", *launcher, *command, code=code)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{_texts(logs)}") from None
        return output + _texts(logs)


def _texts(logs: str) -> str:
    return "".join(log.read_text() for log in sorted(Path(logs).rglob("*.log")))


# -- trainings ---------------------------------------------------------------------------------------------------------

WITHOUT_VALIDATION = "val=none"
Weights = dict[str, torch.Tensor]


def train(*arguments: str) -> int:
    """Train in this process as tiny.yml says, with changes and flags; return the exit code."""
    changes = ["logger:use_tb_logger=false", "logger:save_checkpoint_freq=2"]
    return basicsr_command(["train", "-opt", "tiny.yml", "--force_yml", *changes, *arguments])


def saved_networks(name: str, label: str | int = "latest") -> dict[str, Weights]:
    """Read what an experiment has saved: ``params`` and ``params_ema``."""
    networks: dict[str, Weights] = torch.load(f"experiments/{name}/models/net_g_{label}.pth", weights_only=True)
    return networks


def assert_same_networks(one: str, other: str) -> None:
    """Compare the latest networks of two experiments, bit for bit."""
    networks, others = saved_networks(one), saved_networks(other)
    assert networks.keys() == others.keys() == {"params", "params_ema"}
    for kind in networks:
        for key, value in networks[kind].items():
            assert torch.equal(value, others[kind][key]), f"{kind} {key}"


def untrained_network(path: str | Path) -> SRFlowNet:
    """Save a network of tiny.yml's settings, untrained."""
    arguments = load_options(TINY)["network_g"]
    torch.manual_seed(0)
    network = SRFlowNet(**{key: value for key, value in arguments.items() if key != "type"})
    torch.save({"params": network.state_dict()}, path)
    return network


def model_batch(seed: int = 0) -> Weights:
    """Make a batch as a model is fed it."""
    gt, lq = image_pair(4, 4, 4)
    return {"gt": (gt + 0.01 * seed).clamp(0, 1), "lq": lq}


def train_model(model: Any, first: int, last: int) -> None:
    """Take steps with a model, from one iteration to another."""
    for iteration in range(first, last + 1):
        model.update_learning_rate(iteration)
        model.feed_data(model_batch(iteration))
        model.optimize_parameters(iteration)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def srflow(command: str) -> None:
    """Run an ``srflow`` command with the network that is here; it ends well."""
    assert srflow_command([*command.split(), "--checkpoint", "net.pth"]) == 0


def refusal(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Run a mistaken ``srflow`` command: return the one line it answers with; it changes no file here."""
    before = files_below(Path())
    with pytest.raises(SystemExit) as stop:
        srflow_command(command)
    lines = [line for line in capsys.readouterr().err.splitlines() if "cropped" not in line]
    assert stop.value.code == 2 and len(lines) == 1 and lines[0].startswith("srflow"), lines
    assert files_below(Path()) == before
    return lines[0]


def files_below(folder: Path) -> dict[Path, bytes | None]:
    """Read every file below ``folder``; of folders None."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


JUNK = ("._a.png", ".hidden.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "Icon\r", "readme.txt")  # of systems, people


def litter(folder: Path) -> None:
    """Leave in a folder what systems and people leave there beside images."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in JUNK:
        (folder / name).write_bytes(b"\0\5\26\7")


# -- downloads and archives --------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serves ``contents``; may stop each answer after so many bytes, not know ranges, or fail the first requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.break_after: int | None = None
        self.ranges = True
        self.failures = 0
        self.length: str | None = None  # that is announced, in place of the right one
        self.redirects: dict[str, str] = {}
        self.starts: list[int] = []  # first bytes that were asked for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.contents.get(self.path)
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        self.server.starts.append(start)
        if self.server.failures:
            self.server.failures -= 1
            return self.send_error(503)
        if self.path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[self.path])
            return self.end_headers()
        if content is None:
            return self.send_error(404)
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", self.server.length or str(len(content) - start))
        self.end_headers()
        stop = len(content) if self.server.break_after is None else start + self.server.break_after
        self.wfile.write(content[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        pass


def noise_png(seed: int) -> bytes:
    """Encode an image of noise, 17x22."""
    return bytes(cv2.imencode(".png", noise_image(17, 22, seed))[1].tobytes())


def make_archive(path: Path, members: dict[str, bytes]) -> Path:
    """Make a zip or a tar, by its ending."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, data in members.items():
                zipped.writestr(name, data)
        return path
    folder = path.with_name("members")
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tarred:
        tarred.add(folder, ".")
    return path


# What archives in the tests have.
ARCHIVED = {
    "top/HR/a.png": noise_png(0),
    "top/HR/b.png": noise_png(1),
    "top/LR/a.png": noise_png(2),
    "top/readme.txt": b"text",
}
