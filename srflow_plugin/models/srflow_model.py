"""Training of SRFlow on top of BasicSR's SRModel."""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict, defaultdict
from contextlib import nullcontext
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from srflow_plugin.checkpoints.fit import Weights, check_encoder_fit, with_prior_of
from srflow_plugin.checkpoints.load import encoder_weights, network_weights, read_checkpoint
from srflow_plugin.errors import TrainingError
from srflow_plugin.files import save_atomically
from srflow_plugin.flow import full_precision
from srflow_plugin.images.resize import differentiable_downscale, without_margin
from srflow_plugin.models.validation import SRFlowValidation
from srflow_plugin.options.schema import Degradations, Section, SRFlowPaths, SRFlowSteps, SRFlowTrain, read
from srflow_plugin.training.degradations import Degrader
from srflow_plugin.training.distributed import gather, mean_over_ranks
from srflow_plugin.training.seeds import degradation_seeds, noise_seeds


class SRFlowTraining(SRFlowValidation):
    """Steps of a training: in parts, among processes, skipped where they fail. What is trained subclasses say.

    Attributes:
        trained: what the loss is a function of, and the ranks' gradients are summed of.
    """

    net_g: nn.Module
    trained: nn.Module
    train_options: SRFlowSteps

    def __init__(self, opt: dict[str, Any]) -> None:
        self.paths = read(SRFlowPaths, opt["path"])
        self.faults = self.faults_in_a_row = 0  # steps that were skipped
        super().__init__(opt)

    def init_training_settings(self) -> None:
        paths, train = self.paths, self.train_options
        self.net_g.train()
        if train.ema_decay > 0:
            self.net_g_ema = build_network(self.opt["network_g"]).to(self.device).eval()
            if paths.pretrain_network_g is not None:
                self.load_network(self.net_g_ema, paths.pretrain_network_g, paths.strict_load_g, "params_ema")
            else:
                self._restart_ema()
        self.cri_pix, self.cri_perceptual, self.cri_lr = (
            build_loss(loss_opt).to(self.device) if loss_opt else None
            for loss_opt in (train.pixel_opt, train.perceptual_opt, train.consistency_opt)
        )
        self.setup_optimizers()
        self.setup_schedulers()

    def setup_optimizers(self) -> None:
        """Make the optimiser of what is trained."""
        raise NotImplementedError

    def losses(self, gt: Tensor, lq: Tensor, seeds: list[int] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a part of a batch, and what is logged of it, as shares of the whole batch's."""
        raise NotImplementedError

    def among_ranks(self, module: nn.Module) -> nn.Module:
        """Wrap what is trained, so that the ranks' gradients are summed."""
        if not self.opt["dist"]:
            return module
        self.sums_settled = False
        # Buffers stay as they are at the start; torch 2.13 renamed the argument that says so.
        arguments = inspect.signature(DistributedDataParallel).parameters
        sync_buffers = "forward_sync_buffers" if "forward_sync_buffers" in arguments else "broadcast_buffers"
        return DistributedDataParallel(
            module,
            device_ids=None if self.device.type == "cpu" else [torch.cuda.current_device()],
            find_unused_parameters=self.opt.get("find_unused_parameters", False),
            **{sync_buffers: False},  # type: ignore[arg-type]
        )

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str = "params") -> None:
        """Load weights from any checkpoint that :mod:`srflow_plugin.checkpoints` knows, released ones included."""
        get_root_logger().info(f"Loading {param_key} of {load_path}.")
        of_file = network_weights(read_checkpoint(Path(load_path)), param_key, load_path)
        weights = self.completed(of_file, net)
        if len(weights) < len(of_file):
            get_root_logger().info(f"The learned prior of {load_path} is left out: network_g has no prior_channels.")
        self._print_different_keys_loading(net, weights, strict)
        self.get_bare_model(net).load_state_dict(weights, strict=strict)

    def completed(self, weights: Weights, net: nn.Module) -> Weights:
        """Fit a file's weights to what a network has of a learned prior."""
        return with_prior_of(self.get_bare_model(net), weights)

    def get_optimizer(self, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Make any optimiser of torch; BasicSR 1.4.2 knows Adam only."""
        optimizer: torch.optim.Optimizer = getattr(torch.optim, optim_type)(params, lr, **kwargs)
        return optimizer

    def optimize_parameters(self, current_iter: int) -> None:
        if self.opt["dist"] and not self.sums_settled:
            self.settle_sums()

        self.optimizer_g.zero_grad()
        losses = self.backward()
        losses["grad_norm"] = nn.utils.clip_grad_norm_(self.net_g.parameters(), self.train_options.grad_clip)
        means = mean_over_ranks(torch.stack(list(losses.values()))).tolist()
        self.log_dict = OrderedDict(zip(losses, means, strict=True))

        if all(map(math.isfinite, means)):  # the same numbers, and so the same answer, on every rank
            self.faults_in_a_row = 0
            self.optimizer_g.step()
            if self.train_options.ema_decay > 0:
                # The first weights would ruin the mean of a short training: it forgets faster at first.
                self.model_ema(decay=min(self.train_options.ema_decay, (1 + current_iter) / (10 + current_iter)))
        else:
            self.skip_step(current_iter)
        if self.faults:
            self.log_dict["skipped_steps"] = self.faults

    def backward(self) -> dict[str, Tensor]:
        """Compute the gradients of the batch's loss, in ``accumulation_steps`` parts; return the loss's summands."""
        totals: defaultdict[str, Tensor] = defaultdict(lambda: torch.zeros((), device=self.device))
        steps = self.train_options.accumulation_steps
        parts = list(zip(self.gt.chunk(steps), self.lq.chunk(steps), strict=True))
        left = iter(self.noise_seeds or ())
        for number, (gt, lq) in enumerate(parts, start=1):
            seeds = list(islice(left, len(gt))) or None
            is_last = number == len(parts)
            # The ranks' gradients are summed once, with the last part's.
            with nullcontext() if is_last or not self.opt["dist"] else self.trained.no_sync():  # type: ignore[operator]
                loss, summands = self.losses(gt, lq, seeds)
                with nullcontext() if self.get_bare_model(self.net_g).precision == "tf32" else full_precision():
                    loss.backward()
            for name, value in summands.items():
                totals[name] = totals[name] + value.detach()
        return dict(totals)

    def share(self, loss_opt: Section | None) -> float:
        """Weight of a part's loss, so that all parts of all ranks make the loss of one batch.

        DDP takes the mean over ranks, which a sum is not.
        """
        if (loss_opt or {}).get("reduction") == "sum":
            return float(self.opt["world_size"])
        return 1 / self.train_options.accumulation_steps

    def settle_sums(self) -> None:
        """Let DDP settle the order in which it sums gradients, which it does after its first backward pass.

        Other orders round differently: without this a resumed run of three or more processes would differ in last bits.
        """
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
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
        if self.faults_in_a_row < self.train_options.max_skipped_steps:
            return
        batches = gather((self.gt.cpu(), self.lq.cpu()))
        path = Path(self.opt["path"]["experiments_root"]) / f"fault_{current_iter}.pth"
        if self.opt["rank"] == 0:
            gt, lq = (torch.cat(images) for images in zip(*batches, strict=True))
            params = self.get_bare_model(self.net_g).state_dict()
            batch = {"files": files, "gt": gt, "lq": lq}
            path.parent.mkdir(parents=True, exist_ok=True)
            save_atomically({"iter": current_iter, **batch, "log": dict(self.log_dict), "params": params}, path)
        raise TrainingError(
            f"loss or gradient not finite in {self.faults_in_a_row} iterations in a row, up to {current_iter} "
            f"({broken}); the last batch and the weights are in {path}. Go on from a checkpoint (--auto_resume) with a "
            "lower train.optim_g.lr or train.grad_clip, or leave the images out that the log names"
        )

    @property
    def has_image_losses(self) -> bool:
        """Say whether the option file asks for a loss of an image beside what the model is trained with."""
        return bool(self.cri_pix or self.cri_perceptual or self.cri_lr)

    def image_losses(self, image: Tensor, gt: Tensor, lq: Tensor) -> dict[str, Tensor]:
        """Compute the losses of an image (B, 3, H, W) that the option file asks for, under SRModel's names."""
        losses: dict[str, Tensor] = {}
        train = self.train_options
        if self.cri_pix:
            losses["l_pix"] = self.share(train.pixel_opt) * self.cri_pix(image, gt)
        if self.cri_perceptual:
            named = zip(("l_percep", "l_style"), self.cri_perceptual(image, gt), strict=True)
            share = self.share(train.perceptual_opt)
            losses |= {name: share * loss for name, loss in named if loss is not None}
        if self.cri_lr:
            smaller, given = (without_margin(lr) for lr in (differentiable_downscale(image, self.opt["scale"]), lq))
            losses["l_lr"] = self.share(train.consistency_opt) * self.cri_lr(smaller, given)
        return losses

    def own_state(self) -> dict[str, int]:
        """Make the part of a training state that only this model has."""
        return {"skipped_steps": self.faults}

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        super().resume_training(resume_state)
        self.faults = resume_state.get("skipped_steps", 0)

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Move the mean towards the weights; BasicSR's own sum of shares lets frozen weights wander by its rounding."""
        mean, weights = (list(net.parameters()) for net in (self.net_g_ema, self.get_bare_model(self.net_g)))
        torch._foreach_lerp_(mean, weights, 1 - decay)

    @cached_property
    def degrader(self) -> Degrader:
        """Maker of the LR images of a training whose data set has none: RealESRGANDataset."""
        return Degrader(read(Degradations, self.opt), self.opt["scale"], self.device)

    def feed_data(self, data: dict[str, Any]) -> None:
        # Of a training: what is random depends on the draws, not on the process that has them.
        draws, seed = data["draw"].tolist() if "draw" in data else None, self.opt.get("manual_seed")
        if "kernel1" in data:
            data = self.degrader(data, None if draws is None else degradation_seeds(seed, draws))
        super().feed_data(data)
        self.noise_seeds = None if draws is None else noise_seeds(seed, draws)

    def _restart_ema(self) -> None:
        self.net_g_ema.load_state_dict(self.get_bare_model(self.net_g).state_dict())


class SRFlowModel(SRFlowTraining):
    """SRFlow with its negative log-likelihood.

    Its options are those of SRFlowPaths, SRFlowTrain and SRFlowVal in :mod:`srflow_plugin.options.schema`.
    """

    train_options: SRFlowTrain

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt["is_train"]:
            self.train_options = read(SRFlowTrain, opt["train"])
        self.encoder_frozen = opt["is_train"] and self.train_options.freeze_encoder_iters > 0
        super().__init__(opt)

    def init_training_settings(self) -> None:
        paths = self.paths
        if paths.pretrain_network_encoder and not paths.pretrain_network_g:  # which a resumed run has
            self.load_encoder(paths.pretrain_network_encoder, paths.param_key_encoder)
        # Asked once: each of the network's flags is a tensor, on a GPU a wait for it.
        self.actnorms_initialized = self.get_bare_model(self.net_g).initialized
        self.cri_nll = build_loss(self.train_options.nll_opt).to(self.device)
        super().init_training_settings()

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Wrap for the device; gradients are settled before, since DDP looks at them once."""
        net.encoder.requires_grad_(not self.encoder_frozen)
        if net.prior is not None:  # which another model trains
            net.prior.requires_grad_(False)
        self.trained = self.among_ranks(net.to(self.device))
        return self.trained

    def load_encoder(self, load_path: str, param_key: str = "params") -> None:
        """Load a pretrained RRDB network, of BasicSR or ESRGAN, into the encoder."""
        get_root_logger().info(f"Loading {param_key} of {load_path} into the encoder.")
        encoder = self.get_bare_model(self.net_g).encoder
        weights = encoder_weights(read_checkpoint(Path(load_path)), param_key, load_path)
        encoder.load_state_dict(check_encoder_fit(weights, encoder, load_path))

    def setup_optimizers(self) -> None:
        """Make one optimiser with two groups, "flow" and "encoder"; Adam passes over parameters without a gradient."""
        optim_opt = dict(self.train_options.optim_g)
        optim_type, lr = optim_opt.pop("type"), optim_opt.pop("lr")
        lr_encoder = optim_opt.pop("lr_encoder", lr)
        net = self.get_bare_model(self.net_g)
        groups = [
            {"name": "flow", "params": list(net.flow.parameters()), "lr": lr},
            {"name": "encoder", "params": list(net.encoder.parameters()), "lr": lr_encoder},
        ]
        self.optimizer_g = self.get_optimizer(optim_type, groups, lr, **optim_opt)
        self.optimizers.append(self.optimizer_g)

    def optimize_parameters(self, current_iter: int) -> None:
        if not self.actnorms_initialized:
            self.initialize_actnorms()
        if self.encoder_frozen and current_iter > self.train_options.freeze_encoder_iters:
            self.unfreeze_encoder()
        super().optimize_parameters(current_iter)

    def losses(self, gt: Tensor, lq: Tensor, seeds: list[int] | None) -> tuple[Tensor, dict[str, Tensor]]:
        terms = self.net_g(gt, lq, terms=True, with_image=self.has_image_losses, noise_seeds=seeds)
        of_image = self.image_losses(terms.image, gt, lq) if self.has_image_losses else {}
        nll_opt, steps = self.train_options.nll_opt, self.train_options.accumulation_steps
        loss = self.share(nll_opt) * self.cri_nll(terms.nll).mean() + sum(of_image.values())
        of_nll = {"l_nll": terms.nll.mean(), "l_prior": terms.prior.mean(), "l_logdet": terms.logdet.mean()}
        return loss, {**{name: value / steps for name, value in of_nll.items()}, **of_image}

    def initialize_actnorms(self) -> None:
        """Fit the ActNorms to the first batch, that of all ranks together."""
        net = self.get_bare_model(self.net_g)
        net.initialize(self.gt, self.lq, mean_over_ranks, self.noise_seeds)
        self.actnorms_initialized = True
        if self.train_options.ema_decay > 0:
            self._restart_ema()
        with torch.no_grad():
            nll = mean_over_ranks(net(self.gt, self.lq, noise_seeds=self.noise_seeds).mean()).item()
        get_root_logger().info(f"ActNorm layers are initialised from the first batch: l_nll is {nll:.4f} now.")

    def unfreeze_encoder(self) -> None:
        """Train the encoder, too, from now on."""
        self.encoder_frozen = False
        # A new wrapper: one made before does not synchronise parameters that had no gradient then.
        self.net_g = self.model_to_device(self.get_bare_model(self.net_g))
        get_root_logger().info(
            f"The encoder trains from here on (freeze_encoder_iters: {self.train_options.freeze_encoder_iters})."
        )
