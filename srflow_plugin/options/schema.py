"""Every option that this project reads, once: name, type, range, default, and a sentence. Needs no torch.

A section of an option file is a class, an option a field of it. From these fields come the checks
(:mod:`srflow_plugin.options.check`), the values that model and pipeline read (:func:`read`), the tables of
docs/reference/options.md and the JSON Schema that editors use (:mod:`srflow_plugin.options.document`). Sections that
become keyword arguments of a class, such as ``network_g``, are described by that class's own signature and docstring.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from srflow_plugin.sampling.temperature import Temperature

Section = dict[str, Any]
Kind = TypeVar("Kind")
Amp = Literal["bfloat16", "float16", "none"]  # mixed precision
ResizeMode = Literal["area", "bilinear", "bicubic", "bicubic_antialiased"]
KernelType = Literal[
    "iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"
]  # of BasicSR's blurs
REAL_ESRGAN_SIDE = 400  # of the images that RealESRGANDataset gives, cut or mirrored
MOST_IMAGES, MOST_PIXELS = 2**16, 2**16  # of a batch, of a side: beyond all use, and within all memory


def option(
    sentence: str,
    default: Any = dataclasses.MISSING,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    below: float = math.inf,
    in_training: bool = False,
    without_effect: bool = False,
) -> Any:
    """Declare an option.

    Args:
        sentence: what it is for, in the documentation and in editors.
        default: its value where the file does not have it. Without one the file must have it.
        low, high, below: smallest and largest value, and one that it must not reach; of each where it is a list.
        in_training: training needs it in the file all the same.
        without_effect: it is accepted because BasicSR has it, and changes nothing.
    """
    metadata = {
        "sentence": sentence,
        "low": low,
        "high": high,
        "below": below,
        "in_training": in_training,
        "without_effect": without_effect,
    }
    return dataclasses.field(default=default, metadata=metadata)


def interval(sentence: str, *, low: float, high: float, holds: float | None = None, is_open: bool = False) -> Any:
    """Declare an option that is a list of two numbers, the smaller one first.

    Args:
        sentence: as in :func:`option`, and so are low and high.
        holds: a number that must lie between the two.
        is_open: they must differ.
    """
    metadata = option(sentence, low=low, high=high).metadata
    return dataclasses.field(metadata={**metadata, "interval": True, "holds": holds, "is_open": is_open})


def shares(sentence: str, of: int | str) -> Any:
    """Declare an option that is a list of probabilities: so many, or one for each value of another option."""
    metadata = option(sentence, low=0, high=1).metadata
    return dataclasses.field(metadata={**metadata, "shares": of})


@dataclass(kw_only=True, frozen=True)
class TopLevel:
    """The file itself."""

    name: str = option("name of the experiment and of its folder")
    model_type: str = option("class that trains: `SRFlowModel`, `SRFlowPriorModel`, or any other that is registered")
    scale: int | None = option("upscaling factor of the data", None)
    num_gpu: int | Literal["auto"] = option("number of GPUs, `auto`: those that are there", low=0, high=4096)
    manual_seed: int | None = option("seed of all that is random; none: drawn, and logged", None, low=0, high=2**31)
    find_unused_parameters: bool = option("as in DistributedDataParallel", False)
    dist_params: dict[str, Any] | None = option("`backend` and `port` of the processes' connection", None)
    datasets: dict[str, Any] = option("`train`, `val`, `val_<something>`; in a test any names")
    network_g: dict[str, Any] = option("the network")
    path: dict[str, Any] = option("files to begin with")
    train: dict[str, Any] | None = option("how to train", None, in_training=True)
    val: dict[str, Any] | None = option("how to validate; in a test, how to test", None)
    logger: dict[str, Any] | None = option("what to log and to keep", None, in_training=True)


# Of the first process and, with a 2 at their ends, of the second.
_RESIZE_PROB = "probabilities of a resize up, of one down, of none"
_RESIZE_RANGE = "smallest and largest factor of a resize, with 1 between them; in the second process, of the LR size"
_GAUSSIAN = "probability that the noise is Gaussian; else it is Poisson noise"
_NOISE_RANGE = "smallest and largest standard deviation of Gaussian noise, in grey levels"
_POISSON = "smallest and largest factor of Poisson noise; `[0, 0]`: none"
_GRAY = "probability that the three channels have the same noise"
_JPEG = "lowest and highest JPEG quality"
_OF_GAN = "accepted; they are the losses of RealESRGANModel. Set `gt_usm`"


@dataclass(kw_only=True, frozen=True)
class Degradations:
    """The file itself, where `datasets.train` is a RealESRGANDataset (model_type: SRFlowModel or SRFlowPriorModel)."""

    gt_size: int = option(
        "side of the HR patches: a multiple of 2^`num_levels` and of the scale", low=1, high=REAL_ESRGAN_SIDE
    )
    clean_prob: float = option(
        "probability that an image is not degraded: its LR image is MATLAB's bicubic downscale. BasicSR has no such "
        "key: 0",
        0.0,
        low=0,
        high=1,
    )
    resize_modes: Sequence[ResizeMode] = option(
        "filters, one of which is drawn for each resize; one that stands there twice is drawn twice as often. BasicSR "
        "has no such key, and takes the first three; `bicubic_antialiased` is what MATLAB and Pillow do",
        ("area", "bilinear", "bicubic"),
    )
    gt_usm: bool = option("sharpen the HR images before all else, as RealESRNetModel does", False)
    resize_prob: list[float] = shares(_RESIZE_PROB, of=3)
    resize_range: list[float] = interval(_RESIZE_RANGE, low=0.05, high=8, holds=1)
    gaussian_noise_prob: float = option(_GAUSSIAN, low=0, high=1)
    noise_range: list[float] = interval(_NOISE_RANGE, low=0, high=255)
    poisson_scale_range: list[float] = interval(_POISSON, low=0, high=100)
    gray_noise_prob: float = option(_GRAY, low=0, high=1)
    jpeg_range: list[float] = interval(_JPEG, low=1, high=99)
    second_blur_prob: float = option("probability of a blur in the second process", low=0, high=1)
    resize_prob2: list[float] = shares(_RESIZE_PROB, of=3)
    resize_range2: list[float] = interval(_RESIZE_RANGE, low=0.05, high=8, holds=1)
    gaussian_noise_prob2: float = option(_GAUSSIAN, low=0, high=1)
    noise_range2: list[float] = interval(_NOISE_RANGE, low=0, high=255)
    poisson_scale_range2: list[float] = interval(_POISSON, low=0, high=100)
    gray_noise_prob2: float = option(_GRAY, low=0, high=1)
    jpeg_range2: list[float] = interval(_JPEG, low=1, high=99)
    high_order_degradation: bool = option("`false` in Real-ESRGAN's files for pairs, which are never degraded", True)
    queue_size: int = option(
        "accepted; RealESRNetModel mixes batches, since the images of one have the same resizes. Here each image of a "
        "batch has its own",
        180,
        without_effect=True,
    )
    l1_gt_usm: bool = option(_OF_GAN, False, without_effect=True)
    percep_gt_usm: bool = option(_OF_GAN, False, without_effect=True)
    gan_gt_usm: bool = option(_OF_GAN, False, without_effect=True)


@dataclass(kw_only=True, frozen=True)
class Paths:
    """`path`."""

    pretrain_network_g: str | None = option("checkpoint to begin with", None)
    param_key_g: str = option("`params` or `params_ema` of it", "params")
    strict_load_g: bool = option("refuse a checkpoint with missing or other keys", True)
    resume_state: str | None = option("training state to go on from; `--auto_resume` finds the newest", None)
    experiments_root: str | None = option("folder of the experiments; none: `experiments`", None)
    results_root: str | None = option("folder of the tests' results; none: `results`", None)
    ignore_resume_networks: str | None = option("networks that a resume does not load, as in BasicSR", None)


@dataclass(kw_only=True, frozen=True)
class SRFlowPaths(Paths):
    """`path` (model_type: SRFlowModel)."""

    pretrain_network_g: str | None = option(
        "an SRFlow checkpoint: this project's, a released one, or safetensors", None
    )
    pretrain_network_encoder: str | None = option(
        "an RRDB network for the encoder: BasicSR's RRDBNet, `RRDBNetX8` or ESRGAN; use `encoder_skip: conv_first`. An "
        "x4 one fits x4 and x8",
        None,
    )
    param_key_encoder: str = option("`params` or `params_ema` of it", "params")


@dataclass(kw_only=True, frozen=True)
class Train:
    """`train`."""

    total_iter: int = option("number of iterations", low=1)
    optim_g: dict[str, Any] = option(
        "any optimiser of `torch.optim` as `type`, with its own keys; for SRFlowModel `lr_encoder` gives the encoder a "
        "rate of its own"
    )
    scheduler: dict[str, Any] = option("`MultiStepLR` or `CosineAnnealingRestartLR` as `type`, with its own keys")
    warmup_iter: int = option("iterations in which the learning rate rises from 0; -1: none", -1)
    ema_decay: float = option(
        "of the mean of the weights over iterations; SRFlowModel takes at most (1 + n) / (10 + n) in iteration n, so "
        "that the first weights do not spoil the mean of a short training. 0: no mean",
        0.0,
        low=0,
        high=1,
    )
    amp: Amp | None = option(
        "mixed precision of any model: its networks in `bfloat16`, or in `float16` with scaled losses, here and in the "
        "validation; weights, losses and metrics stay float32 "
        "([BasicSR models](../how-to/basicsr_models.md#mixed-precision)). SRFlowModel: `bfloat16`, which is "
        "`network_g.precision: bfloat16`",
        None,
    )


@dataclass(kw_only=True, frozen=True)
class SRTrain(Train):
    """`train` (model_type: SRModel)."""

    pixel_opt: dict[str, Any] | None = option("a pixel loss, any of BasicSR's", None)
    perceptual_opt: dict[str, Any] | None = option("a perceptual loss", None)


@dataclass(kw_only=True, frozen=True)
class SRFlowSteps(SRTrain):
    """`train` of every model of this project."""

    consistency_opt: dict[str, Any] | None = option(
        "a loss between the LR image and the image of `pixel_opt`, made smaller as MATLAB's bicubic does: any of "
        "BasicSR's pixel losses. For LR images that are made in that way, not for degraded ones. Two pixels along a "
        "patch's border are left out: they depend on what lies around it",
        None,
    )
    grad_clip: float = option("largest gradient norm", math.inf, low=0)
    accumulation_steps: int = option(
        "work on each batch in that many parts, for less memory; the step is the same", 1, low=1, high=MOST_IMAGES
    )
    max_skipped_steps: int = option(
        "a step whose loss or gradient is not finite is skipped; after so many in a row training stops", 10, low=1
    )


@dataclass(kw_only=True, frozen=True)
class SRFlowTrain(SRFlowSteps):
    """`train` (model_type: SRFlowModel)."""

    nll_opt: dict[str, Any] = option("the loss: `type: NLLLoss`; `loss_weight`, `reduction`")
    pixel_opt: dict[str, Any] | None = option(
        "a loss of the tau = 0 image beside the NLL, as HCFlow+ has it: any of BasicSR's. The NLL is in bits per "
        "dimension: a weight of 10 makes an L1 of 0.03 count as 0.3 bits",
        None,
    )
    perceptual_opt: dict[str, Any] | None = option(
        "likewise: any of BasicSR's, or `LPIPSLoss` (`net: alex` or `vgg`, `loss_weight`), whose weights are "
        "fetched once, and checked, or `STLPIPSLoss` (the same), whose weights come with its package",
        None,
    )
    freeze_encoder_iters: int = option("number of iterations during which the encoder is frozen", 0, low=0)


@dataclass(kw_only=True, frozen=True)
class SRFlowPriorTrain(SRFlowSteps):
    """`train` (model_type: SRFlowPriorModel)."""

    pixel_opt: dict[str, Any] | None = option(
        "a loss of the image that the predicted latents decode to: any of BasicSR's", None
    )
    perceptual_opt: dict[str, Any] | None = option(
        "likewise: any of BasicSR's, `STLPIPSLoss` or `LPIPSLoss` (`net: alex` or `vgg`, `loss_weight`)", None
    )


@dataclass(kw_only=True, frozen=True)
class Val:
    """`val`."""

    val_freq: int = option("iterations between two validations", 0, low=1, in_training=True)
    save_img: bool = option("write the images as files", False, in_training=True)
    suffix: str | None = option("end of the files' names in a test; none: the experiment's name", None)
    pbar: bool = option("show a progress bar", False)
    metrics: dict[str, Any] | None = option("by name, each with `type` and the keys of that metric", None)
    amp: Amp | None = option("mixed precision of a test; a training validates as `train.amp` says", None)


@dataclass(kw_only=True, frozen=True)
class SRFlowVal(Val):
    """`val` (model_type: SRFlowModel)."""

    temperature: Temperature | list[Temperature] = option(
        "one number, `learned` (the [learned prior](../explanation/learned_prior.md)), or a list of these; with a list "
        "metrics and files end in `_tau0`, `_tau0.9`, `_taulearned`, ...",
        0.9,
        low=0,
        high=100,
    )
    num_samples: int = option(
        "per image and temperature above 0; metrics are averaged over samples", 1, low=1, high=10_000
    )
    seed: int = option("of the samples of the first image; each image has the next", 0, low=-(2**62), high=2**62)
    tile: int | Literal["auto"] | None = option(
        "sample in tiles of that many LR pixels a side, or `auto`, as memory allows; for large images. The code length "
        "is that of the whole image all the same",
        None,
        low=1,
        high=MOST_PIXELS,
    )
    resample: float | None = option(
        "where a sample explodes, draw that place again at the temperature times this, e.g. 0.8 "
        "([exploding samples](../how-to/avoid_exploding_samples.md))",
        None,
        low=0,
        below=1,
    )
    adaptive: float | None = option(
        "share of the temperature that flat areas get, from 0 to 1 "
        "([less grain in flat areas](../how-to/upscale.md#less-grain-in-flat-areas))",
        None,
        low=0,
        high=1,
    )
    bicubic: bool = option("also measure MATLAB-like bicubic upscaling, as `_bicubic`", False)

    @property
    def temperatures(self) -> list[Temperature]:
        """List of all temperatures, in the file's order."""
        return self.temperature if isinstance(self.temperature, list) else [self.temperature]


@dataclass(kw_only=True, frozen=True)
class Metric:
    """`val.metrics.<name>`, beside the keys of the metric itself."""

    type: str = option(
        "a registered metric, or the dotted name of an object of another package that is called with (sr, gt), such as "
        "`torchmetrics.image.StructuralSimilarityIndexMeasure`; the other keys are its arguments"
    )
    over: Literal["mean", "best", "mean_image"] = option(
        "SRFlowModel: how a metric of one image becomes one of several samples: their `mean`, the `best` of them, or "
        "the metric of their `mean_image`",
        "mean",
    )
    better: Literal["higher", "lower"] | None = option(
        "which values are the best. Default: `lower` for LPIPS, ST-LPIPS, NIQE, CRPS, energy score and code length, "
        "what a metric of another package says itself, else `higher`",
        None,
    )


@dataclass(kw_only=True, frozen=True)
class Logger:
    """`logger`."""

    print_freq: int = option("iterations between two lines of the log", low=1)
    save_checkpoint_freq: int = option("iterations between two checkpoints", low=1)
    use_tb_logger: bool = option("write curves and pictures for TensorBoard", False)
    keep_last: int | None = option("delete older checkpoints once there are that many newer ones", None, low=1)
    keep_best: str | None = option(
        "a metric of `val.metrics` (with its `_tau0.9` where there are several temperatures); the network with its "
        "best value on the first data set is `models/net_g_best.pth`",
        None,
    )
    wandb: dict[str, Any] | None = option(
        "`project`, and `resume_id` of a run to go on in. The key stands in WANDB_API_KEY", None
    )
    trackio: dict[str, Any] | None = option(
        "`project`: curves and pictures for Trackio, on this machine, with or without TensorBoard's", None
    )


@dataclass(kw_only=True, frozen=True)
class Wandb:
    """`logger.wandb`."""

    project: str | None = option("name of the project; none: no Weights & Biases", None)
    resume_id: str | None = option("run to go on in; none: the resumed training's, or a new one", None)


@dataclass(kw_only=True, frozen=True)
class Trackio:
    """`logger.trackio`."""

    project: str | None = option("name of the project; none: no Trackio", None)


@dataclass(kw_only=True, frozen=True)
class ImageData:
    """`datasets.<phase>`, of any type."""

    name: str = option("name of the data set")
    type: str = option("a registered data set")
    num_worker_per_gpu: int = option("processes that read", 0, low=0, high=512, in_training=True)
    batch_size_per_gpu: int = option("images in a batch", 1, low=1, high=MOST_IMAGES, in_training=True)
    dataset_enlarge_ratio: int = option("count the data set that many times as an epoch", 1, low=1, high=10**6)
    skip_bad_images: bool = option(
        "take the next image in place of one that cannot be used, and name it in the log. Otherwise training stops "
        "there",
        False,
    )
    pin_memory: bool = option("as in BasicSR", False)
    prefetch_mode: Literal["cpu", "cuda"] | None = option(
        "`cuda`, as in BasicSR; `cpu` is what the workers do anyway", None
    )
    num_prefetch_queue: int = option("accepted; the workers read ahead", 1, without_effect=True)
    persistent_workers: bool = option("accepted; the workers go through the data once", False, without_effect=True)


@dataclass(kw_only=True, frozen=True)
class PairedImages(ImageData):
    """`datasets.<phase>` (type: PairedImageDataset)."""

    dataroot_gt: str = option("folder or LMDB of the HR images")
    dataroot_lq: str = option("folder or LMDB of the LR images")
    io_backend: dict[str, Any] = option("`type: disk` or `type: lmdb`")
    gt_size: int = option(
        "side of the HR patches; for SRFlowModel a multiple of 2^`num_levels` and of the scale",
        0,
        low=1,
        high=MOST_PIXELS,
        in_training=True,
    )
    use_hflip: bool = option("flip patches at random", False, in_training=True)
    use_rot: bool = option("turn patches at random", False, in_training=True)
    prepare: Literal["embedded"] | None = option(
        "`embedded` makes the two LMDBs from scikit-image's photographs if they are missing", None
    )
    meta_info_file: str | None = option("as in BasicSR", None)
    filename_tmpl: str = option("as in BasicSR", "{}")
    color: str | None = option("as in BasicSR", None)
    mean: list[float] | None = option("as in BasicSR", None)
    std: list[float] | None = option("as in BasicSR", None)


_KERNELS = "kinds of blur kernels"
_KERNEL_PROB = "probability of each kind"
_SINC = "probability that the kernel is a sinc filter instead, which rings"
_SIGMA = "smallest and largest standard deviation of a kernel, in pixels of the image that is blurred"
_BETAG = "smallest and largest exponent of generalised Gaussians; 1 between them"
_BETAP = "likewise of plateaus"
_KERNEL_SIZE = "accepted; RealESRGANDataset takes sizes from 7 to 21"


@dataclass(kw_only=True, frozen=True)
class RealESRGANImages(ImageData):
    """`datasets.train` (type: RealESRGANDataset)."""

    dataroot_gt: str = option("folder or LMDB of the HR images")
    meta_info: str | None = option("list of the images' names, of a folder; none: all images of the folder", None)
    io_backend: dict[str, Any] = option("`type: disk` or `type: lmdb`")
    gt_size: int | None = option("as the `gt_size` at the top level, which is the one that counts", None)
    use_hflip: bool = option("flip images at random")
    use_rot: bool = option("turn images at random")
    blur_kernel_size: int = option(_KERNEL_SIZE)
    kernel_list: list[KernelType] = option(_KERNELS)
    kernel_prob: list[float] = shares(_KERNEL_PROB, of="kernel_list")
    sinc_prob: float = option(_SINC, low=0, high=1)
    blur_sigma: list[float] = interval(_SIGMA, low=0.001, high=100, is_open=True)
    betag_range: list[float] = interval(_BETAG, low=0.01, high=100, holds=1)
    betap_range: list[float] = interval(_BETAP, low=0.01, high=100, holds=1)
    blur_kernel_size2: int = option(_KERNEL_SIZE)
    kernel_list2: list[KernelType] = option(_KERNELS)
    kernel_prob2: list[float] = shares(_KERNEL_PROB, of="kernel_list2")
    sinc_prob2: float = option(_SINC, low=0, high=1)
    blur_sigma2: list[float] = interval(_SIGMA, low=0.001, high=100, is_open=True)
    betag_range2: list[float] = interval(_BETAG, low=0.01, high=100, holds=1)
    betap_range2: list[float] = interval(_BETAP, low=0.01, high=100, holds=1)
    final_sinc_prob: float = option("probability of a sinc filter at the end", low=0, high=1)


@dataclass(kw_only=True, frozen=True)
class IoBackend:
    """`datasets.<phase>.io_backend`."""

    # Not memcached, BasicSR's third: its options name a folder to import code from.
    type: Literal["disk", "lmdb"] = option("files in folders, or LMDBs")
    readahead: bool = option("as in BasicSR's LMDB client", False)


RETIRED = {  # keys of BasicSR's older files, which nothing reads any more
    "use_shuffle": "training always shuffles",
    "use_flip": "it is called use_hflip",
}

SRFLOW_MODELS = ("SRFlowModel", "SRFlowPriorModel")
# By model, the sections whose keys are all known. Other models have sections of their own.
SECTIONS: Mapping[str, Mapping[str, type]] = {
    "SRFlowModel": {"path": SRFlowPaths, "train": SRFlowTrain, "val": SRFlowVal, "logger": Logger},
    "SRFlowPriorModel": {"path": SRFlowPaths, "train": SRFlowPriorTrain, "val": SRFlowVal, "logger": Logger},
    "SRModel": {"path": Paths, "train": SRTrain, "val": Val, "logger": Logger},
}
DATASETS: Mapping[str, type] = {"PairedImageDataset": PairedImages, "RealESRGANDataset": RealESRGANImages}


def read(kind: type[Kind], section: Section | None) -> Kind:
    """Read the options of a checked section: those that it has, and the defaults.

    >>> read(SRFlowVal, {"temperature": [0, 0.8]}).temperatures
    [0, 0.8]
    """
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in (section or {}).items() if name in names})
