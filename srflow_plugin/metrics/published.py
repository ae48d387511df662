"""Published weights of losses and metrics: known by their whole SHA-256, fetched once, read without running code.

PyTorch's own way to them (``torch.hub``) looks at no file that is there already, and runs what code it holds.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from srflow_plugin.checkpoints.load import read_file
from srflow_plugin.data.download import download
from srflow_plugin.errors import UserError
from srflow_plugin.locks import LockFile

Net = Literal["alex", "vgg"]


class Published(NamedTuple):
    """File as its publishers made it: its size in bytes, and its SHA-256."""

    size: int
    sha256: str


# By the names under which they are fetched and kept.
PUBLISHED = {
    "alexnet-owt-7be5be79.pth": Published(
        244_408_911, "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
    ),
    "vgg16-397923af.pth": Published(553_433_881, "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
    "vgg19-dcbb9e9d.pth": Published(574_673_361, "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"),
    "pt_inception-2015-12-05-6726825d.pth": Published(
        95_628_359, "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
    ),
}
# They come with the packages lpips and stlpips_pytorch.
PACKAGED = {
    "alex.pth": Published(6_009, "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"),
    "vgg.pth": Published(7_289, "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
    "alex_shift_tolerant.pth": Published(9_899_296, "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"),
    "vgg_shift_tolerant.pth": Published(58_907_298, "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250"),
}
TORCHVISION = "https://download.pytorch.org/models"
TRUNKS: dict[Net, str] = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}


def lpips_network(net: Net) -> Any:
    """Build LPIPS, version 0.1, of the package ``lpips``; its trunk's weights are fetched once.

    Raises:
        UserError: they cannot be had, or are others than published.
    """
    import lpips

    trunk = trunk_weights(net)
    network: Any = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
    # Layers are grouped into slices, and keep their numbers.
    weights = {f"net.{key}": trunk[f"features.{key.partition('.')[2]}"] for key in network.net.state_dict()}
    own = _read(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth", PACKAGED[f"{net}.pth"])
    network.load_state_dict({**weights, **own}, strict=False)  # some have two names
    return network


def stlpips_network(net: Net) -> nn.Module:
    """Build shift-tolerant LPIPS of the package ``stlpips_pytorch``, with the weights that come with it."""
    import stlpips_pytorch
    from stlpips_pytorch import stlpips

    network: nn.Module = stlpips.LPIPS(net=net, variant="shift_tolerant", pretrained=False, verbose=False)
    path = Path(stlpips_pytorch.__file__).parent / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"
    network.load_state_dict(_read(path, PACKAGED[path.name]), strict=False)
    return network


def trunk_weights(net: Net) -> dict[str, Tensor]:
    """Weights of torchvision's AlexNet or VGG-16, from where PyTorch keeps them; fetched if they are not there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / TRUNKS[net]
    _fetch(f"{TORCHVISION}/{path.name}", path)
    return _read(path, PUBLISHED[path.name])


def _read(path: Path, known: Published) -> dict[str, Tensor]:
    """Read a file if it is the one that is known.

    Raises:
        UserError: it is another.
    """
    content = path.read_bytes() if path.stat().st_size == known.size else b""
    if hashlib.sha256(content).hexdigest() != known.sha256:
        raise UserError(
            f"{path} is not the file that was published under this name (SHA-256 {known.sha256[:8]}...); nothing of it "
            "was read. Delete it: it will be fetched anew, or comes with its package"
        )
    weights: dict[str, Tensor] = _load(BytesIO(content), map_location="cpu", weights_only=True)
    return weights


@contextmanager
def read_without_code() -> Iterator[None]:
    """Have BasicSR, torchvision and plugins read and fetch weights in the block as this project does.

    Published ones by their whole hash, and none of any file in a way that could run code. What BasicSR builds reads
    weights by itself: its perceptual losses, FID, SpyNet, DFDNet, and all of its models.
    """
    in_place: list[tuple[Any, str, Any]] = [
        (torch, "load", _load_safely),
        (torch.hub, "download_url_to_file", _download_safely),
        (torch.hub, "_is_legacy_zip_format", lambda path: False),  # of which a part would be read, whatever it is
    ]
    before = [getattr(module, name) for module, name, _ in in_place]
    for module, name, safe in in_place:
        setattr(module, name, safe)
    try:
        yield
    finally:
        for (module, name, _), own in zip(in_place, before, strict=True):
            setattr(module, name, own)


_load = torch.load


def _load_safely(file: Any, map_location: Any = None, *args: Any, **options: Any) -> Any:
    if not isinstance(file, str | os.PathLike):
        return _load(file, map_location, **{**options, "weights_only": True})
    path = Path(file)
    if path.name in PUBLISHED:
        return _read(path, PUBLISHED[path.name])
    weights = read_file(path, map_location)
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)  # of the hash, as torchvision calls its files
    is_fetched = path.absolute().parent == Path(torch.hub.get_dir(), "checkpoints").absolute()
    if is_fetched and digits and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits[1]):
        raise UserError(f"{path} is another file than its name says; delete it, and it will be fetched anew")
    return weights


def _download_safely(url: str, target: str, hash_prefix: str | None = None, progress: bool = True) -> None:
    _fetch(url, Path(target))


def _fetch(url: str, path: Path) -> None:
    """Fetch a file where there is none."""
    known = PUBLISHED.get(Path(urlparse(url).path).name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with LockFile(path.with_name(f".{path.name}.lock")) as lock, lock.holding():  # other ranks want it, too
        if path.exists():
            return
        download(url, path, *((known.size, f"sha256:{known.sha256}") if known else ()))
