"""ONNX files of a network: one that takes an LR image, one that takes latents, too.

``NAME.onnx`` draws at temperature 0. ``NAME_latents.onnx`` decodes whatever latents it is given: any temperature, any
seed. Both are checked by onnx and run by onnxruntime, against the network, before either has its name.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import onnxscript  # noqa: F401  torch.onnx asks for it
import torch
from torch import Tensor

from srflow_plugin._version import __version__
from srflow_plugin.applications.latents import fingerprint
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints.shipped import SHIPPED
from srflow_plugin.errors import UserError
from srflow_plugin.files import check_new_file, complete_or_absent
from srflow_plugin.integrations.exported import Precision, dynamic_shapes, export_program, latent_sizes

SUFFIX = ".onnx"
OPSET = 20  # the newest that torch writes without a conversion; onnxruntime knows it since 1.17
# Height and width of the LR image that files are tried with, and the temperature.
PROBE = (11, 14)
PROBE_TEMPERATURE = 0.5
# Of values up to 1; of larger ones in proportion. float32: a quarter of a grey level.
LARGEST_ERROR: dict[Precision, float] = {"float32": 1e-3, "float16": 1e-2}


class Written(NamedTuple):
    """An ONNX file, and how far its pictures are from the network's."""

    path: Path
    size: int
    error: float


def files_of(path: Path) -> tuple[Path, Path]:
    """Name both files.

    >>> [str(file) for file in files_of(Path("net.onnx"))]
    ['net.onnx', 'net_latents.onnx']
    """
    return path, path.with_name(f"{path.stem}_latents{path.suffix}")


def write_onnx(
    network: SRFlowNet,
    path: Path,
    precision: Precision = "float32",
    overwrite: bool = False,
    source: Path | None = None,
) -> list[Written]:
    """Write both files of a network: complete, or not at all.

    Args:
        network: its weights are copied.
        path: of the first; the second has ``_latents`` behind its name.
        precision: see :func:`export_program`.
        overwrite: replace files that are there.
        source: checkpoint of the network; the files say its name.

    Raises:
        UserError: there is such a file; or a file that was made does not draw what the network draws.
    """
    targets = files_of(path)
    for target in targets:
        check_new_file(target, overwrite)
    contents = [model_bytes(network, with_latents, precision, source) for with_latents in (False, True)]
    errors = [largest_error(content, network) for content in contents]
    for target, error in zip(targets, errors, strict=True):
        if not error <= LARGEST_ERROR[precision]:
            hint = "give --precision float32" if precision == "float16" else "nothing is written"
            raise UserError(f"{target} would differ from the network by {error:.2g} of its pictures' range; {hint}")
    with ExitStack() as stack:
        for target, content in zip(targets, contents, strict=True):
            stack.enter_context(complete_or_absent(target, replacing=overwrite)).write_bytes(content)
    return [Written(*one) for one in zip(targets, map(len, contents), errors, strict=True)]


def model_bytes(
    network: SRFlowNet, with_latents: bool, precision: Precision = "float32", source: Path | None = None
) -> bytes:
    """Make the contents of one file, which onnx has checked."""
    program = export_program(network, with_latents, precision)
    levels = latent_sizes(network) if with_latents else []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # one name for sizes that are equal is what is wanted
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["lr", *(f"latent_{level}" for level in range(1, 1 + len(levels)))],
            output_names=["sr"],
            dynamic_shapes=dynamic_shapes(network, with_latents),
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    onnx.helper.set_model_props(model, metadata(network, with_latents, precision, source))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def metadata(
    network: SRFlowNet, with_latents: bool, precision: Precision = "float32", source: Path | None = None
) -> dict[str, str]:
    """Describe a file, for people and for programs."""
    scale, multiple, channels = network.scale, network.lq_multiple, network.encoder.conv_first.in_channels
    described = {
        "scale": str(scale),
        "input": f"lr: float32 (batch, {channels}, height, width), RGB in [0, 1], any height and width from 1 on",
        "output": f"sr: float32 (batch, {channels}, {scale}*height, {scale}*width), RGB, to be clamped to [0, 1]",
        "temperature": "that of the latents, which are drawn from N(0, temperature^2)" if with_latents else "0",
        "precision": precision,
        "network": "" if source is None else source.name,
        "network_sha256": fingerprint(network),
        "license": "Apache-2.0" if source in [one.path for one in SHIPPED.values()] else "that of the network's author",
        "srflow_plugin": __version__,
    }
    if with_latents:
        sizes = latent_sizes(network)
        shapes = "; ".join(f"{channels},{factor}*H,{factor}*W" for channels, factor in sizes).replace(",1*", ",")
        described["latent_shapes"] = f"{shapes} where H = ceil(height / {multiple}), W = ceil(width / {multiple})"
        described["latents"] = json.dumps({"size_multiple": multiple, "channels_and_factors": sizes})
    return described


def largest_error(content: bytes, network: SRFlowNet) -> float:
    """Run a model once: the largest difference to the network, of values up to 1 or in proportion to the largest."""
    session = session_of(content)
    lr = _probe(network)
    generator = torch.Generator().manual_seed(0)
    latents = [
        PROBE_TEMPERATURE * torch.randn(1, *shape, generator=generator) for shape in network.latent_shapes(*PROBE)
    ]
    if len(session.get_inputs()) == 1:
        latents = [torch.zeros_like(latent) for latent in latents]
    with torch.no_grad():
        expected = network.cpu().decode(latents, lr).numpy()
    given = run_session(session, [lr, *latents])
    return float(np.abs(given - expected).max() / max(1.0, float(np.abs(expected).max())))


def session_of(content: bytes, threads: int = 0) -> Any:
    """Load a model into onnxruntime on the CPU; 0 threads are as many as it likes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, inputs: Sequence[Tensor]) -> np.ndarray:
    """Run a model with the inputs that it takes, of all that are given."""
    names = [one.name for one in session.get_inputs()]
    picture: np.ndarray = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=False)})[0]
    return picture


def _probe(network: SRFlowNet) -> Tensor:
    """Make an LR image without sharp edges, as networks are used to."""
    rows, columns = (torch.linspace(0, 1, length) for length in PROBE)
    plane = 0.5 + 0.2 * torch.sin(5 * rows)[:, None] * torch.cos(4 * columns)
    return plane.expand(1, network.encoder.conv_first.in_channels, *PROBE).contiguous()
