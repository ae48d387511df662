"""Training and validation of SRFlow on top of BasicSR's SRModel."""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict, defaultdict
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from srflow_plugin.archs.explosions import count_exploded
from srflow_plugin.archs.srflow_arch import SRFlowNet
from srflow_plugin.checkpoints import check_encoder_fit, encoder_weights, network_weights, read_checkpoint
from srflow_plugin.distributed import gather, gather_work, mean_over_ranks, own_share
from srflow_plugin.errors import TrainingError
from srflow_plugin.files import save_atomically
from srflow_plugin.flow import Context
from srflow_plugin.metrics.samples import is_lower_better, is_of_network, is_of_samples, measure
from srflow_plugin.pictures import bicubic_upscale, comparison_grid

GRIDS_PER_DATASET = 4  # in TensorBoard; on disk every image has one
SAMPLES_PER_GRID = 3


@MODEL_REGISTRY.register()
class SRFlowModel(SRModel):
    """SRFlow with its negative log-likelihood.

    Option keys beyond SRModel's:
        path.pretrain_network_encoder: pretrained RRDB network for the encoder; its param_key_encoder: "params".
        train.nll_opt: the loss, ``type: NLLLoss``.
        train.pixel_opt, train.perceptual_opt: losses of the tau = 0 image against gt, as in SRModel (HCFlow+, Liang et
            al., ICCV 2021, trains with both). Default: none, the NLL alone.
        train.freeze_encoder_iters: the encoder does not train up to and including this iteration. Default: 0.
        train.optim_g.lr_encoder: learning rate of the encoder's group. Default: that of the flow.
        train.grad_clip: largest gradient norm. Default: no clipping.
        train.accumulation_steps: work on each batch in that many parts, for less memory; the step is the same.
            Default: 1.
        train.max_skipped_steps: a step whose loss or gradient is not finite is skipped; after so many in a row training
            stops. Default: 10.
        val.temperature: one or a list. Default: 0.9. With several, a metric's name ends in its ``_tau<temperature>``.
        val.num_samples: images for each LR image and temperature > 0; metrics are averaged. Default: 1.
        val.seed: of the samples, the same for each image. Default: 0.
        val.resample: where a sample explodes, draw that place again at the temperature times this. Default: do not.
        val.tile: side of the tiles that images are sampled in, in LR pixels, or "auto". Default: whole images.
        val.metrics.<name>.over: how a metric of one image becomes one of several samples: "mean" (default), "best", or
            that of their "mean_image". calculate_diversity and calculate_pixel_std take the samples as they are.
        val.bicubic: also log each metric of bicubic upscaling. Default: false.
    """

    net_g: nn.Module

    def __init__(self, opt: dict[str, Any]) -> None:
        self.freeze_encoder_iters = opt.get("train", {}).get("freeze_encoder_iters", 0)
        self.encoder_frozen = opt["is_train"] and self.freeze_encoder_iters > 0
        if opt.get("val"):
            self.val_variants = make_val_variants(opt["val"])
            opt["val"]["metrics"] = dict(item for variant in self.val_variants for item in variant.metrics.items())
        super().__init__(opt)

    # -- training ------------------------------------------------------------------------------------------------------

    def init_training_settings(self) -> None:
        train_opt = self.opt["train"]
        self.net_g.train()
        encoder_path = self.opt["path"].get("pretrain_network_encoder")
        if encoder_path and not self.opt["path"].get("pretrain_network_g"):  # which a resumed run has
            self.load_encoder(encoder_path, self.opt["path"].get("param_key_encoder", "params"))
        self.ema_decay = train_opt.get("ema_decay", 0)
        if self.ema_decay > 0:
            self.net_g_ema = build_network(self.opt["network_g"]).to(self.device).eval()
            load_path = self.opt["path"].get("pretrain_network_g")
            if load_path is not None:
                strict = self.opt["path"].get("strict_load_g", True)
                self.load_network(self.net_g_ema, load_path, strict, "params_ema")
            else:
                self._restart_ema()
        # Asked once: each of the network's flags is a tensor, on a GPU a wait for it.
        self.actnorms_initialized = self.get_bare_model(self.net_g).initialized
        self.cri_nll = build_loss(train_opt["nll_opt"]).to(self.device)
        self.cri_pix, self.cri_perceptual = (
            build_loss(train_opt[key]).to(self.device) if train_opt.get(key) else None
            for key in ("pixel_opt", "perceptual_opt")
        )
        self.grad_clip = train_opt.get("grad_clip", math.inf)
        self.accumulation_steps = train_opt.get("accumulation_steps", 1)
        self.max_skipped_steps = train_opt.get("max_skipped_steps", 10)
        self.faults = self.faults_in_a_row = 0
        self.setup_optimizers()
        self.setup_schedulers()

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Wrap for the device; the encoder's gradients are settled before, since DDP looks at them once."""
        net.encoder.requires_grad_(not self.encoder_frozen)
        net = net.to(self.device)
        if not self.opt["dist"]:
            return net
        self.sums_settled = False
        # Buffers stay as they are at the start; torch 2.13 renamed the argument that says so.
        arguments = inspect.signature(DistributedDataParallel).parameters
        sync_buffers = "forward_sync_buffers" if "forward_sync_buffers" in arguments else "broadcast_buffers"
        return DistributedDataParallel(
            net,
            device_ids=None if self.device.type == "cpu" else [torch.cuda.current_device()],
            find_unused_parameters=self.opt.get("find_unused_parameters", False),
            **{sync_buffers: False},  # type: ignore[arg-type]
        )

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str = "params") -> None:
        """Load weights from any checkpoint that :mod:`srflow_plugin.checkpoints` knows, released ones included."""
        get_root_logger().info(f"Loading {param_key} of {load_path}.")
        weights = network_weights(read_checkpoint(Path(load_path)), param_key, load_path)
        self._print_different_keys_loading(net, weights, strict)
        self.get_bare_model(net).load_state_dict(weights, strict=strict)

    def load_encoder(self, load_path: str, param_key: str = "params") -> None:
        """Load a pretrained RRDB network, of BasicSR or ESRGAN, into the encoder."""
        get_root_logger().info(f"Loading {param_key} of {load_path} into the encoder.")
        encoder = self.get_bare_model(self.net_g).encoder
        weights = encoder_weights(read_checkpoint(Path(load_path)), param_key, load_path)
        encoder.load_state_dict(check_encoder_fit(weights, encoder, load_path))

    def setup_optimizers(self) -> None:
        """One optimiser with two groups, "flow" and "encoder"; Adam passes over parameters without a gradient."""
        optim_opt = dict(self.opt["train"]["optim_g"])
        optim_type, lr = optim_opt.pop("type"), optim_opt.pop("lr")
        lr_encoder = optim_opt.pop("lr_encoder", lr)
        net = self.get_bare_model(self.net_g)
        groups = [
            {"name": "flow", "params": list(net.flow.parameters()), "lr": lr},
            {"name": "encoder", "params": list(net.encoder.parameters()), "lr": lr_encoder},
        ]
        self.optimizer_g = self.get_optimizer(optim_type, groups, lr, **optim_opt)
        self.optimizers.append(self.optimizer_g)

    def get_optimizer(self, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Any optimiser of torch; BasicSR 1.4.2 knows Adam only."""
        return getattr(torch.optim, optim_type)(params, lr, **kwargs)

    def optimize_parameters(self, current_iter: int) -> None:
        if not self.actnorms_initialized:
            self.initialize_actnorms()
        if self.encoder_frozen and current_iter > self.freeze_encoder_iters:
            self.unfreeze_encoder()
        if self.opt["dist"] and not self.sums_settled:
            self.settle_sums()

        self.optimizer_g.zero_grad()
        losses = self.backward()
        losses["grad_norm"] = nn.utils.clip_grad_norm_(self.net_g.parameters(), self.grad_clip)
        means = mean_over_ranks(torch.stack(list(losses.values()))).tolist()
        self.log_dict = OrderedDict(zip(losses, means, strict=True))
        for group in self.optimizer_g.param_groups:
            self.log_dict[f"lr_{group['name']}"] = group["lr"]

        if all(map(math.isfinite, means)):  # the same numbers, and so the same answer, on every rank
            self.faults_in_a_row = 0
            self.optimizer_g.step()
            if self.ema_decay > 0:
                # Of a short training the first weights would be a part that ruins the mean: it forgets faster at first.
                self.model_ema(decay=min(self.ema_decay, (1 + current_iter) / (10 + current_iter)))
        else:
            self.skip_step(current_iter)
        if self.faults:
            self.log_dict["skipped_steps"] = self.faults

    def backward(self) -> dict[str, Tensor]:
        """Gradients of the batch's loss, worked on in ``accumulation_steps`` parts; what the loss is made of."""
        totals: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        parts = list(zip(self.gt.chunk(self.accumulation_steps), self.lq.chunk(self.accumulation_steps), strict=True))
        for number, (gt, lq) in enumerate(parts, start=1):
            is_last = number == len(parts)
            # The ranks' gradients are summed once, with the last part's.
            with nullcontext() if is_last or not self.opt["dist"] else self.net_g.no_sync():  # type: ignore[operator]
                terms = self.net_g(gt, lq, terms=True, with_image=bool(self.cri_pix or self.cri_perceptual))
                image_losses = self.image_losses(terms.image, gt)
                loss = self.cri_nll(terms.nll).mean() + sum(image_losses.values())
                (loss / len(parts)).backward()
            losses = {"l_nll": terms.nll.mean(), "l_prior": terms.prior.mean(), "l_logdet": terms.logdet.mean()}
            for name, value in {**losses, **image_losses}.items():
                totals[name] = totals[name] + value.detach() / len(parts)
        return dict(totals)

    def settle_sums(self) -> None:
        """Let DDP settle the order in which it sums gradients, which it does after its first backward pass.

        Other orders round differently: without this a resumed run of three or more processes would differ in last bits.
        """
        with torch.random.fork_rng():
            self.backward()
        self.sums_settled = True

    def skip_step(self, current_iter: int) -> None:
        """Leave everything as it was before a batch whose loss or gradient is not finite; stop if that goes on.

        Raises:
            TrainingError: after ``max_skipped_steps`` in a row. The batch and the weights are saved to look at.
        """
        self.faults += 1
        self.faults_in_a_row += 1
        files = [name for names in gather(self.files) for name in names]
        broken = ", ".join(f"{name} {value}" for name, value in self.log_dict.items() if not math.isfinite(value))
        get_root_logger().warning(
            f"Iteration {current_iter}: {broken}; the step is skipped ({self.faults_in_a_row} in a row, "
            f"{self.faults} in all). The batch: {', '.join(files)}"
        )
        if self.faults_in_a_row < self.max_skipped_steps:
            return
        batches = gather((self.gt.cpu(), self.lq.cpu()))
        path = Path(self.opt["path"]["experiments_root"]) / f"fault_{current_iter}.pth"
        if self.opt["rank"] == 0:
            gt, lq = (torch.cat(images) for images in zip(*batches, strict=True))
            params = self.get_bare_model(self.net_g).state_dict()
            batch = {"files": files, "gt": gt, "lq": lq}
            save_atomically({"iter": current_iter, **batch, "log": dict(self.log_dict), "params": params}, path)
        raise TrainingError(
            f"loss or gradient not finite in {self.faults_in_a_row} iterations in a row, up to {current_iter} "
            f"({broken}); the last batch and the weights are in {path}. Go on from a checkpoint with a lower "
            "train.optim_g.lr or train.grad_clip, or leave the images out that the log names"
        )

    def image_losses(self, image: Tensor | None, gt: Tensor) -> dict[str, Tensor]:
        """The losses of the tau = 0 image (B, 3, H, W) that the option file asks for, under SRModel's names."""
        losses = {}
        if self.cri_pix:
            losses["l_pix"] = self.cri_pix(image, gt)
        if self.cri_perceptual:
            losses["l_percep"], losses["l_style"] = self.cri_perceptual(image, gt)
        return {name: loss for name, loss in losses.items() if loss is not None}

    def initialize_actnorms(self) -> None:
        """Fit the ActNorms to the first batch, that of all ranks together."""
        net = self.get_bare_model(self.net_g)
        net.initialize(self.gt, self.lq, mean_over_ranks)
        self.actnorms_initialized = True
        if self.ema_decay > 0:
            self._restart_ema()
        with torch.no_grad():
            nll = mean_over_ranks(net(self.gt, self.lq).mean()).item()
        get_root_logger().info(f"ActNorm layers are initialised from the first batch: l_nll is {nll:.4f} now.")

    def unfreeze_encoder(self) -> None:
        """From now on the encoder trains too."""
        self.encoder_frozen = False
        # A new wrapper: one made before does not synchronise parameters that had no gradient then.
        self.net_g = self.model_to_device(self.get_bare_model(self.net_g))
        get_root_logger().info(f"The encoder trains from here on (freeze_encoder_iters: {self.freeze_encoder_iters}).")

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        super().resume_training(resume_state)
        self.faults = resume_state.get("skipped_steps", 0)

    def _restart_ema(self) -> None:
        self.net_g_ema.load_state_dict(self.get_bare_model(self.net_g).state_dict())

    # -- validation ----------------------------------------------------------------------------------------------------

    def feed_data(self, data: dict[str, Any]) -> None:
        super().feed_data(data)
        self.features: list[Context] | None = None  # of this image, once they are needed
        self.files = list(data.get("gt_path", data.get("lq_path", [])))
        if "gt" not in data and hasattr(self, "gt"):
            del self.gt  # the one of the image before

    def test(self, temperature: float | None = None) -> None:
        """Sample ``self.lq``: ``self.output`` is (num_samples * B, 3, H, W), of which ``self.exploded`` exploded.

        The temperature is the option file's first one unless given; at 0 there is one sample, since all are equal.
        """
        val_opt = self.opt.get("val") or {}
        if temperature is None:
            temperature = _temperatures(val_opt)[0]
        net = self._val_network()
        was_training = net.training
        net.eval()
        num_samples = val_opt.get("num_samples", 1) if temperature > 0 else 1
        arguments = (self.lq, temperature, num_samples, val_opt.get("seed", 0), val_opt.get("tile"))
        features = self._val_features()
        self.output = net.sample(*arguments, features=features).flatten(0, 1)
        self.exploded = count_exploded(self.output)
        if self.exploded and val_opt.get("resample") is not None:
            self.output = net.sample(*arguments, features=features, resample=val_opt["resample"]).flatten(0, 1)
        net.train(was_training)

    def nondist_validation(
        self, dataloader: DataLoader, current_iter: int | str, tb_logger: Any, save_img: bool
    ) -> None:
        """Sample every image at every temperature; log metrics, save images and grids, named as SRModel does.

        Each rank works on its share of the images; the metrics are means over all, the same for any number of ranks.
        """
        dataset_name = dataloader.dataset.opt["name"]  # type: ignore[attr-defined]
        if self.is_train:  # BasicSR's loop has counted past the end when it validates for the last time
            current_iter = min(int(current_iter), self.opt["train"]["total_iter"])
        shares = gather_work(lambda: self._measure_share(dataloader, current_iter, save_img))
        images = sorted((image for share in shares for image in share), key=lambda image: image.number)
        totals: defaultdict[str, float] = defaultdict(float)
        for image in images:
            for key, value in image.values.items():
                totals[key] += value
            if tb_logger and image.grid is not None:
                rgb = np.ascontiguousarray(image.grid[..., ::-1])
                tb_logger.add_image(f"{dataset_name}/{image.name}", rgb, current_iter, dataformats="HWC")

        if tb_logger:
            for count in ("nonfinite", "exploded"):
                tb_logger.add_scalar(f"metrics/{dataset_name}/{count}", totals[count], current_iter)
        if totals["exploded"]:
            get_root_logger().warning(
                f"{dataset_name}: {totals['exploded']:g} of {totals['samples']:g} samples exploded, "
                f"{totals['nonfinite']:g} values are not finite. Lower val.temperature, or set val.resample."
            )
        if self.opt["val"].get("metrics"):
            self._initialize_best_metric_results(dataset_name)
            self.metric_results = {name: totals[name] / len(images) for name in self.opt["val"]["metrics"]}
            for metric, value in self.metric_results.items():
                self._update_best_metric_result(dataset_name, metric, value, current_iter)
            self._log_validation_metric_values(current_iter, dataset_name, tb_logger)

    dist_validation = nondist_validation

    def _measure_share(self, dataloader: DataLoader, current_iter: int | str, save_img: bool) -> list[MeasuredImage]:
        """This rank's images of a validation."""
        dataset = dataloader.dataset
        dataset_name = dataset.opt["name"]  # type: ignore[attr-defined]
        indices = own_share(len(dataset))  # type: ignore[arg-type]
        bar = tqdm(
            DataLoader(Subset(dataset, indices), batch_size=1),
            unit="image",
            disable=not self.opt["val"].get("pbar", False) or self.opt["rank"] != 0,
        )
        measured = []
        for index, data in zip(indices, bar, strict=True):
            name = Path(data["lq_path"][0]).stem
            for note in filter(None, data.get("note", [])):
                get_root_logger().info(note)
            self.feed_data(data)
            gt, lq = tensor2img(self.gt) if "gt" in data else None, tensor2img(self.lq)
            values: defaultdict[str, float] = defaultdict(float)
            pictures: dict[str, list[np.ndarray]] = {}
            nll = (
                self._nll() if gt is not None and any(map(is_of_network, self.opt["val"]["metrics"].values())) else None
            )
            for variant in self.val_variants:
                self._run(variant)
                values["samples"] += len(self.output)
                values["nonfinite"] += self.output.numel() - int(self.output.isfinite().sum())
                values["exploded"] += self.exploded
                pictures[variant.suffix] = [tensor2img(image) for image in self.output]
                for metric, metric_opt in variant.metrics.items():
                    values[metric] = measure(pictures[variant.suffix], gt, lq, metric_opt, nll)

            if save_img:
                for suffix, samples in pictures.items():
                    for number, picture in enumerate(samples):
                        sample_suffix = f"_{number}" if len(samples) > 1 else ""
                        imwrite(picture, self._picture_path(dataset_name, name, current_iter, suffix + sample_suffix))
            grid_to_board = self.is_train and self.opt["logger"]["use_tb_logger"] and index < GRIDS_PER_DATASET
            grid = self._grid(pictures, gt) if save_img or grid_to_board else None
            if save_img:
                imwrite(grid, self._picture_path(dataset_name, name, current_iter, "_grid"))
            measured.append(MeasuredImage(index, name, values, grid if grid_to_board else None))
        return measured

    def _run(self, variant: ValVariant) -> None:
        if variant.temperature is None:
            self.output, self.exploded = bicubic_upscale(self.lq, self.get_bare_model(self.net_g).scale), 0
        else:
            self.test(variant.temperature)

    def _nll(self) -> float:
        """Bits per dimension of the ground truth fed last."""
        return float(
            self._val_network().code_length(self.gt, self.lq, self.opt["val"].get("seed", 0), self._val_features())
        )

    def _val_network(self) -> SRFlowNet:
        """The network that is validated: the mean over iterations, if there is one."""
        net: SRFlowNet = self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)
        return net

    def _val_features(self) -> list[Context] | None:
        """The encoder's features of the image fed last, calculated once; none where it is worked on in tiles."""
        if self.features is None and (self.opt.get("val") or {}).get("tile") is None:
            with torch.no_grad():
                self.features = self._val_network().features(self.lq)
        return self.features

    def _grid(self, pictures: dict[str, list[np.ndarray]], gt: np.ndarray | None) -> np.ndarray:
        """LR, bicubic, tau = 0, samples of the highest temperature and ground truth of the image fed last."""
        samples = {variant.temperature: pictures[variant.suffix] for variant in self.val_variants}
        if None not in samples:
            samples[None] = [tensor2img(bicubic_upscale(self.lq, self.get_bare_model(self.net_g).scale))]
        if 0 not in samples:
            self.test(0)
            samples[0] = [tensor2img(self.output)]
        columns = [("LR", tensor2img(self.lq)), ("bicubic", samples[None][0])]
        for temperature in sorted({0, max(_temperatures(self.opt["val"]))}):
            columns += [(f"tau {temperature:g}", image) for image in samples[temperature][:SAMPLES_PER_GRID]]
        if gt is not None:
            columns.append(("GT", gt))
        return comparison_grid(columns, columns[1][1].shape[0])

    def _picture_path(self, dataset_name: str, name: str, current_iter: int | str, suffix: str) -> str:
        folder = Path(self.opt["path"]["visualization"])
        if self.opt["is_train"]:
            return str(folder / name / f"{name}_{current_iter}{suffix}.png")
        label = self.opt["val"].get("suffix") or self.opt["name"]
        return str(folder / dataset_name / f"{name}_{label}{suffix}.png")


class MeasuredImage(NamedTuple):
    """What a validation found out about one image."""

    number: int  # in its data set
    name: str
    values: dict[str, float]  # metrics and counts
    grid: np.ndarray | None


class ValVariant(NamedTuple):
    """One way to super-resolve the validation images, with the metrics that it is measured by."""

    suffix: str  # of the metrics' names and of the images' files
    temperature: float | None  # None: bicubic upscaling
    metrics: dict[str, dict[str, Any]]


def make_val_variants(val_opt: dict[str, Any]) -> list[ValVariant]:
    """The variants that the options under ``val`` ask for."""
    temperatures = _temperatures(val_opt)
    suffixes: dict[str, float | None] = {
        f"_tau{temperature:g}" if len(temperatures) > 1 else "": temperature for temperature in temperatures
    }
    if val_opt.get("bicubic", False):
        suffixes["_bicubic"] = None
    metrics = val_opt.get("metrics") or {}
    return [
        ValVariant(
            suffix,
            temperature,
            {
                name + ("" if is_of_network(metric_opt) else suffix): {
                    **metric_opt,
                    "better": "lower" if is_lower_better(metric_opt) else "higher",
                }
                for name, metric_opt in metrics.items()
                if (temperature or not is_of_samples(metric_opt))  # without one there is a single image
                and (suffix == next(iter(suffixes)) or not is_of_network(metric_opt))
            },
        )
        for suffix, temperature in suffixes.items()
    ]


def _temperatures(val_opt: dict[str, Any]) -> list[float]:
    temperature = val_opt.get("temperature", 0.9)
    return temperature if isinstance(temperature, list) else [temperature]
