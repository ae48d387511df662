"""Latents as data: kept in files, interpolated, normalised.

Latents are a list of tensors (B, C, H, W), finest first, as ``SRFlowNet.encode`` returns them. Under the model those of
a real image are N(0, I).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from srflow_plugin.archs.settings import decode_setting
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints.foreign import what_is
from srflow_plugin.checkpoints.sealed import read_sealed, sealed
from srflow_plugin.errors import UserError
from srflow_plugin.files import check_is_file, complete_or_absent
from srflow_plugin.flow.precision import to_complete
from srflow_plugin.progress import tell

NETWORK_KEY = "srflow_network"  # in the metadata of a file: the fingerprint and the name of the network that encoded
IMAGE_NDIM = 4
LARGEST_WINDOW = 999
MIN_STD = 1e-3  # of a flat patch; keeps its float errors from becoming content


def save_latents(
    path: str | Path,
    latents: Sequence[Tensor],
    lq: Tensor,
    network: SRFlowNet | None = None,
    name: str = "",
    replacing: bool = True,
) -> None:
    """Write latents and the LR images (B, 3, h, w) that they belong to as a safetensors file.

    With the network that encoded them, and its name, the file says which it is: no other decodes them. It appears when
    complete, or not at all.

    Raises:
        UserError: latents that are not finite, as of an image that the network does not know; there is such a file, and
            it is not to be replaced.
    """
    if not all(latent.isfinite().all() for latent in latents):
        raise UserError("the latents are not finite: the network does not know such an image; --exact may help")
    tensors = {f"latent_{index}": latent.detach().cpu() for index, latent in enumerate(latents)}
    known = {} if network is None else {NETWORK_KEY: f"{fingerprint(network)} {name}"}
    with complete_or_absent(Path(path), replacing) as unfinished:
        unfinished.write_bytes(sealed({**tensors, "lq": lq.detach().cpu()}, known))


def read_latents(path: str | Path, network: SRFlowNet | None = None) -> tuple[list[Tensor], Tensor]:
    """Latents and LR images that :func:`save_latents` wrote; with the network that is to decode them.

    Files of older versions do not tell which network encoded them, which is said.

    Raises:
        UserError: a file that is not there, cannot be read, holds something else, or is of another network.
    """
    check_is_file(Path(path))
    try:
        tensors, known = read_sealed(Path(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except SafetensorError:
        kind = what_is(Path(path)) or "damaged, or holds something else"
        raise UserError(f"{path} is not a readable file of latents: it is {kind}") from None
    names = [f"latent_{index}" for index in range(len(tensors) - 1)]
    if not names or tensors.keys() != {*names, "lq"}:
        raise UserError(f"{path} holds no latents; `srflow encode` writes a file that does")
    _check_numbers(tensors, path)
    if network is not None:
        _check_network(known, network, path)
        _check_shapes([tensors[name] for name in names], tensors["lq"], network, path)
    tensors = {name: value if value.dtype == torch.float64 else value.float() for name, value in tensors.items()}
    return [tensors[name] for name in names], tensors["lq"]


def fingerprint(network: SRFlowNet) -> str:
    """Compute what tells a network from all others: a hash of its weights and settings, the same in every format."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        is_setting = key.startswith("settings.")
        numbers = repr(decode_setting(value)).encode() if is_setting else value.float().cpu().numpy().tobytes()
        digest.update(f"{key} {[*value.shape]} ".encode() + numbers)
    return digest.hexdigest()


def _check_numbers(tensors: dict[str, Tensor], path: str | Path) -> None:
    """Refuse tensors that no encoder gives."""
    if not all(value.numel() for value in tensors.values()):
        raise UserError(f"{path} holds no latents: some are empty; `srflow encode` writes a file that does")
    batches = {len(value) for value in tensors.values() if value.ndim == IMAGE_NDIM}
    if len(batches) != 1 or not all(
        value.ndim == IMAGE_NDIM and value.is_floating_point() for value in tensors.values()
    ):
        raise UserError(f"{path} holds no latents: shapes or types differ; `srflow encode` writes a file that does")
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise UserError(f"{path} is damaged: {name} is not finite; encode the image again")


def _check_network(known: dict[str, str], network: SRFlowNet, path: str | Path) -> None:
    """Refuse latents of another network."""
    if NETWORK_KEY not in known:
        tell(f"{path} does not say which network encoded it, as older files: be sure that it is this one")
        return
    own, _, name = known[NETWORK_KEY].partition(" ")
    if own != fingerprint(network):
        encoder = name or "another network"
        raise UserError(f"{path} was encoded by {encoder}, whose weights are not these; give that one as --checkpoint")


def _check_shapes(latents: list[Tensor], lq: Tensor, network: SRFlowNet, path: str | Path) -> None:
    """Refuse latents of other sizes than the network has for such LR images."""
    colours = network.encoder.conv_first.in_channels
    shapes = [tuple(latent.shape[1:]) for latent in latents]
    if lq.shape[1] != colours or shapes != [tuple(shape) for shape in network.latent_shapes(*lq.shape[2:])]:
        raise UserError(f"{path} holds no latents of this network and of LR images {list(lq.shape)}; encode them again")


def interpolate_latents(first: Sequence[Tensor], second: Sequence[Tensor], weight: float) -> list[Tensor]:
    """Latents between two images': those of ``first`` at ``weight`` 0, of ``second`` at 1.

    Spherical: along the arc from one to the other. A straight line would pass nearer to the origin than latents of
    N(0, I) ever are, and its images would be as if of a lower temperature.
    """
    a, b = (torch.cat([latent.flatten(1) for latent in latents], dim=1) for latents in (first, second))
    if not math.isfinite(weight):
        raise UserError(f"weight must be a finite number, 0 for the first and 1 for the second, not {weight}")
    cosine = F.cosine_similarity(to_complete(a).double(), to_complete(b).double()).clamp(-1, 1)
    angle = cosine.acos()
    # Parallel latents have no arc; there both formulas agree.
    straight = angle.sin() < 1e-6
    sine = torch.where(straight, torch.ones_like(angle), angle.sin())
    shares = [
        torch.where(straight, torch.full_like(angle, share), (share * angle).sin() / sine).view(-1, 1, 1, 1)
        for share in (1 - weight, weight)
    ]
    return [
        shares[0].to(one.dtype).to(one.device) * one + shares[1].to(one.dtype).to(one.device) * other
        for one, other in zip(first, second, strict=True)
    ]


def normalize_latents(latents: Sequence[Tensor], temperature: float = 1.0, window: int = 9) -> list[Tensor]:
    """Give each channel locally the statistics of N(0, temperature^2): mean 0, standard deviation ``temperature``.

    What the model does not expect in an image, noise for one, shows as latents far from N(0, I); this brings them back
    (SRFlow, section 3.5).

    Args:
        latents: finest first.
        temperature: standard deviation afterwards.
        window: side of the square that statistics are taken over, odd, in positions of each latent.
    """
    if not isinstance(window, int) or not 3 <= window <= LARGEST_WINDOW or window % 2 == 0:
        raise UserError(f"window must be odd, from 3 to {LARGEST_WINDOW}, not {window}")
    if not 0 <= temperature < math.inf:
        raise UserError(f"temperature must be 0 or more, and finite, not {temperature}")

    def local_mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, window, stride=1, padding=window // 2, count_include_pad=False)

    normalized = []
    for latent in latents:
        mean = local_mean(latent)
        std = (local_mean(latent.square()) - mean.square()).clamp(min=MIN_STD**2).sqrt()
        normalized.append(temperature * (latent - mean) / std)
    return normalized
