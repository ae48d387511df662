"""SRFlow: the encoder and the flow as one network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srflow_plugin.archs.latent_prior import LatentPrior
from srflow_plugin.archs.rrdb_encoder import RRDBEncoder
from srflow_plugin.archs.settings import Settings
from srflow_plugin.devices import sent
from srflow_plugin.flow import (
    PAPER_SCALE_FLOOR,
    Average,
    ChannelAffine,
    Context,
    Encoding,
    FlowStep,
    MultiScaleFlow,
    bounded_scale,
    fast,
    full_precision,
    initialize_from_data,
    local,
    sigmoid_scale,
)
from srflow_plugin.flow.compiled import check_compiler
from srflow_plugin.flow.coupling import Scale
from srflow_plugin.flow.precision import autocast_type, without_autocast
from srflow_plugin.sampling.adaptive import Adaptive
from srflow_plugin.sampling.draw import draw
from srflow_plugin.sampling.temperature import Temperature, check_has_prior
from srflow_plugin.sampling.tiling import Tile

EIGHT_BIT_LEVELS = 256
LARGEST = {
    **dict.fromkeys(("num_in_ch", "num_feat", "num_grow_ch", "hidden_channels", "prior_channels"), 4096),
    **{"scale": 64, "num_levels": 8, "num_block": 500, "num_steps": 256},
    **{"coupling_layers": 64, "coupling_kernel_size": 31},
}
EXTENSION_SEED = 0  # of the noise on what an image is extended by


class NLLTerms(NamedTuple):
    """Negative log-likelihood and its summands, each (B,) in bits per dimension: nll = prior + logdet.

    ``logdet`` includes what noise="uniform" adds in training, log2 Q. ``image`` is the tau = 0 image where asked for.
    """

    nll: Tensor
    prior: Tensor
    logdet: Tensor
    image: Tensor | None


class SRFlowNet(nn.Module):
    """SRFlow (Lugmayr et al., ECCV 2020): the distribution of HR images given an LR image, by an invertible network.

    ``log p(y | x) = log N(f(y; x); 0, I) + log|det df/dy|``. Images are RGB in [0, 1]. Any LR size works: where
    the flow needs a multiple, both images are extended by their last row and column inside and cropped outside.

    Args:
        scale: upscaling factor: 2, 4, 8, ...
        num_in_ch, num_feat, num_grow_ch, num_block: the RRDB encoder, as in BasicSR's RRDBNet.
        feature_blocks: RRDBs, counted from 0, whose outputs condition every level.
        num_steps: conditional flow steps per level (the paper's K).
        num_levels: flow levels (the paper's L); at least log2(scale), the released networks have one more.
        hidden_channels: width of the conditional networks.
        coupling_layers, coupling_kernel_size: number and size of the convolutions between the first and the last of a
            coupling's network. SRFlow-DA: 4 and 3, with num_steps 6 and num_levels 2.
        scale_floor: smallest scale of an affine layer. The paper's 1e-4 lets one layer's inverse magnify by 10,000, and
            errors of float32 with it; 0.3 keeps the round trip exact far from the training data, too.
        log_scale_bound: in place of the paper's ``sigmoid(raw + 2) + scale_floor`` the scale is
            ``exp(bound tanh(raw / bound))``, bounded smoothly and alike in both directions.
        encoder_skip: what the encoder's trunk convolution is added to: the output of its "last_block" (released SRFlow)
            or of "conv_first" (ESRGAN and BasicSR's RRDBNet; right for an encoder pretrained as one of these).
        noise: what is added to the HR image in training, of mean 0. "none"; "uniform": dequantisation, U[-1/2Q, 1/2Q),
            with its -log Q nats per dimension in log p; "gaussian": standard deviation ``noise_sigma``; "conditional"
            (NCSR, Kim and Son, NTIRE 2021): Gaussian of a standard deviation drawn for each image from
            U[0, ``noise_sigma``), which every step is told as one more channel of its context (0 when not training).
            None is "none".
        noise_sigma: in grey levels (of 255). Paper, general SR: 4 / sqrt(3).
        noise_levels: Q of noise="uniform". With 256 the NLL in training bounds the bits that the 8 bit image takes;
            with fewer the noise of neighbouring grey levels overlaps, and it bounds nothing.
        one_sided_noise: Q of a network that was trained with U[0, 1/Q), as "uniform" was before version 0.3: what it
            knows is half a level too bright, which ``decode`` takes back and ``encode`` adds. None: its noise is
            centred, as all is now.
        precision: "float32"; "tf32": the encoder's convolutions as torch.backends.cudnn.allow_tf32 says; "bfloat16":
            the encoder and the conditional networks, whose parameters stay as they are. The flow's own variable, scales
            and log-determinants keep full precision. An autocast scope of bfloat16 around a method means the same; one
            of float16 changes nothing.
        recompute_encoder: in training, compute the encoder's activations again in the backward pass instead of keeping
            them (as the flow does by itself where images are large): less memory, more time, the same numbers.
        prior_channels: width of the learned prior, which SRFlowPriorModel trains for temperature "learned"; 0: none.
        compile: run blocks and steps through PyTorch's compiler: the same numbers up to rounding, in less time from
            some hundred calls on, since making the programs takes a minute (docs/results/speed.md).

    Raises:
        ValueError: arguments that cannot make a network, with what would.
    """

    def __init__(
        self,
        scale: int = 4,
        num_in_ch: int = 3,
        num_feat: int = 64,
        num_grow_ch: int = 32,
        num_block: int = 23,
        feature_blocks: Sequence[int] = (1, 8, 15, 22),
        num_steps: int = 16,
        num_levels: int = 3,
        hidden_channels: int = 64,
        coupling_layers: int = 1,
        coupling_kernel_size: int = 1,
        scale_floor: float = PAPER_SCALE_FLOOR,
        log_scale_bound: float | None = None,
        encoder_skip: Literal["last_block", "conv_first"] = "last_block",
        noise: Literal["none", "uniform", "gaussian", "conditional"] | None = "none",
        noise_sigma: float = 4 / math.sqrt(3),
        noise_levels: int = 256,
        one_sided_noise: int | None = None,
        precision: Literal["float32", "tf32", "bfloat16"] = "float32",
        recompute_encoder: bool = False,
        prior_channels: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(scale, num_levels, num_block, feature_blocks, num_steps, coupling_layers, coupling_kernel_size)
        check_bounds(
            num_in_ch=num_in_ch,
            num_feat=num_feat,
            num_grow_ch=num_grow_ch,
            hidden_channels=hidden_channels,
            prior_channels=prior_channels,
        )
        if prior_channels < 0:
            raise ValueError(f"prior_channels must be 0 or more, not {prior_channels}")
        check_scales(scale_floor, log_scale_bound)
        noise = "none" if noise is None else noise  # which is what --force_yml network_g:noise=none gives
        check_noise(noise_sigma, noise_levels, one_sided_noise)
        check_choices(encoder_skip=encoder_skip, noise=noise, precision=precision)
        self.scale = scale
        self.lq_multiple = max(1, 2**num_levels // scale)
        self.noise = noise
        self.noise_sigma = noise_sigma
        self.noise_levels = noise_levels
        self.shift = 0.0 if one_sided_noise is None else 0.5 / one_sided_noise
        self.precision = precision
        self.settings = make_settings(feature_blocks, scale_floor, log_scale_bound, encoder_skip, one_sided_noise)
        trunk = num_in_ch, num_feat, num_grow_ch, num_block, feature_blocks
        self.encoder = RRDBEncoder(*trunk, scale, num_levels, encoder_skip, recompute_encoder)
        make_step = partial(
            FlowStep,
            context_channels=self.encoder.out_channels + (noise == "conditional"),
            hidden_channels=hidden_channels,
            scale=make_scale(scale_floor, log_scale_bound),
            coupling_layers=coupling_layers,
            coupling_kernel_size=coupling_kernel_size,
        )
        self.flow = MultiScaleFlow(num_in_ch, num_levels, num_steps, make_step)
        self.prior = self._make_prior(prior_channels) if prior_channels else None
        if compile:
            check_compiler()
        self.encoder.compiled = self.flow.compiled = compile

    def forward(
        self,
        gt: Tensor,
        lq: Tensor,
        terms: bool = False,
        with_image: bool = False,
        noise_seeds: Sequence[int] | None = None,
    ) -> Tensor | NLLTerms:
        """Compute the NLL of ``gt`` (B, 3, scale*h, scale*w) given ``lq`` (B, 3, h, w): (B,) in bits per dimension.

        It is that of the density of a float image: negative values are normal. What coding an 8 bit image takes says
        :meth:`code_length`. In train mode the noise setting is applied first. With ``terms`` the summands come along,
        with ``with_image`` the tau = 0 image, too, (B, 3, scale*h, scale*w), after one pass of the encoder for both.
        ``noise_seeds``, one for each image, make the noise repeatable.
        """
        noisy, noise_level, dequantisation = self._with_noise(gt, noise_seeds)
        features = self.features(lq)
        encoding = self.likelihood(noisy, lq, features, noise_level)
        prior, logdet = encoding.terms()
        logdet = logdet + dequantisation
        if not (terms or with_image):
            return prior + logdet
        image = None
        if with_image:
            zeros = [torch.zeros_like(latent) for latent in encoding.latents]
            image = self._cropped(self.decode_features(zeros, features), lq)
        return NLLTerms(prior + logdet, prior, logdet, image)

    @torch.no_grad()
    def code_length(self, gt: Tensor, lq: Tensor, seed: int = 0, features: Sequence[Context] | None = None) -> Tensor:
        """Bound the bits per dimension that coding the 8 bit image ``gt`` given ``lq`` takes: (B,).

        One draw of ``log2 256 - log2 p(gt + U[-1/512, 1/512) | lq) / dimensions``, the bound of uniform dequantisation
        (Theis et al., ICLR 2016), whatever noise the network is trained with and whatever the size. ``noise: uniform``
        trains on it. The bound asks that the noise of different images does not overlap; where it lies does not matter.

        Args:
            gt: (B, 3, scale*h, scale*w), multiples of 1/255.
            lq: (B, 3, h, w).
            seed: of the draw, the same for each image.
            features: :meth:`features` of ``lq``, if at hand.
        """
        return self.dequantised(gt, lq, seed, features).nll()

    def dequantised(self, gt: Tensor, lq: Tensor, seed: int = 0, features: Sequence[Context] | None = None) -> Encoding:
        """Encode the 8 bit image ``gt`` with noise on every value: what :meth:`code_length` is the ``nll`` of."""
        extended = self._extended(gt, lq)
        everywhere = torch.ones_like(extended[0, 0])
        encoding = self._encoding(extended, lq, features, noisy=everywhere, seed=seed)
        return encoding._replace(size=(gt.shape[2], gt.shape[3]))

    def likelihood(
        self,
        gt: Tensor,
        lq: Tensor,
        features: Sequence[Context] | None = None,
        noise_level: Tensor | None = None,
    ) -> Encoding:
        """Encode the float image ``gt`` as :meth:`encoding` does, for the likelihood of the image itself.

        Where it must be extended, which patches in training never are, noise is added to what is new.
        """
        extended = self._extended(gt, lq)
        if extended.shape == gt.shape:
            return self._encoding(extended, lq, features, noise_level)
        new = torch.ones_like(extended[0, 0])
        new[: gt.shape[2], : gt.shape[3]] = 0
        encoding = self._encoding(extended, lq, features, noise_level, noisy=new, seed=EXTENSION_SEED)
        return encoding._replace(size=(gt.shape[2], gt.shape[3]))

    def encode(self, gt: Tensor, lq: Tensor, features: Sequence[Context] | None = None) -> tuple[list[Tensor], Tensor]:
        """Encode ``gt`` given ``lq``: latents (finest first, shapes of :meth:`latent_shapes`), log-det (B,) in nats.

        No noise is added. Log p(gt | lq) is the latents' log-density under N(0, I) plus the log-det, where the flow
        takes the size of ``gt``; else see :meth:`likelihood`. ``features`` are :meth:`features` of ``lq``, if at hand.
        """
        encoding = self.encoding(gt, lq, features)
        return encoding.latents, encoding.logdet()

    def encoding(
        self,
        gt: Tensor,
        lq: Tensor,
        features: Sequence[Context] | None = None,
        noise_level: Tensor | None = None,
    ) -> Encoding:
        """Encode ``gt`` given ``lq``, with all that its likelihood needs, position by position.

        Images whose sizes the flow cannot take are extended, without noise: the likelihood is that of a larger image.

        Args:
            gt: (B, 3, scale*h, scale*w).
            lq: (B, 3, h, w).
            features: :meth:`features` of ``lq``, if at hand.
            noise_level: (B,) in grey levels, for noise="conditional". Default: none.
        """
        return self._encoding(self._extended(gt, lq), lq, features, noise_level)

    def _encoding(
        self,
        extended: Tensor,
        lq: Tensor,
        features: Sequence[Context] | None,
        noise_level: Tensor | None = None,
        noisy: Tensor | None = None,
        seed: int = 0,
    ) -> Encoding:
        """Encode an extended image; where ``noisy`` (H, W) is 1 with dequantisation noise, which is counted."""
        contexts = self._contexts(self.features(lq) if features is None else features, noise_level)
        if noisy is None:
            return fast.encode(self.flow, extended + self.shift, contexts)
        channels, height, width = extended.shape[1:]
        noise = noisy * sent(dequantisation_noise((channels, height, width), seed), extended)
        encoding = fast.encode(self.flow, extended + noise + self.shift, contexts)
        return encoding._replace(noise_nats=noisy * (channels * math.log(EIGHT_BIT_LEVELS)))

    def decode(self, latents: Sequence[Tensor], lq: Tensor, features: Sequence[Context] | None = None) -> Tensor:
        """Decode latents given ``lq`` (B, 3, h, w): image (B, 3, scale*h, scale*w), not clamped; inverse of encode.

        ``features`` are :meth:`features` of ``lq``, if at hand.
        """
        return self._cropped(self.decode_features(latents, self.features(lq) if features is None else features), lq)

    def decode_features(self, latents: Sequence[Tensor], features: Sequence[Context]) -> Tensor:
        """Decode latents given :meth:`features`: an image of the size of :meth:`padded_lq` times ``scale``."""
        return fast.decode(self.flow, latents, self._contexts(features)) - self.shift

    def _make_prior(self, channels: int) -> LatentPrior:
        unit = self.lq_multiple
        sizes = [(latent_channels, height) for latent_channels, height, _ in self.latent_shapes(unit, unit)]
        return LatentPrior(self.encoder.out_channels, channels, sizes, unit)

    def learned_latents(self, features: Sequence[Context]) -> list[Tensor]:
        """Predict the latents of :meth:`features` by the learned prior: (B, C, h, w), finest first.

        Raises:
            UserError: the network has none.
        """
        prior = check_has_prior(self).prior
        with full_precision():
            latents: list[Tensor] = prior(self.lq_features(features))
        return latents

    def lq_features(self, features: Sequence[Context]) -> Tensor:
        """Take those of LR size of :meth:`features`, which the learned prior reads: (B, C, h, w)."""
        return features[self.encoder.level_scales.index(1)].expanded()

    def sample(
        self,
        lq: Tensor,
        temperature: Temperature = 0.9,
        num_samples: int = 1,
        seed: int | None = None,
        tile: Tile = None,
        progress: bool = False,
        resample: float | None = None,
        features: Sequence[Context] | None = None,
        only: int | None = None,
        adaptive: Adaptive = None,
    ) -> Tensor:
        """Draw super-resolved images: latents from N(0, temperature^2 I), decoded.

        Args:
            lq: (B, 3, h, w), any size.
            temperature: standard deviation of the latents; 0 is deterministic. "learned": the latents are those of the
                learned prior, deterministic, too.
            num_samples: images for each LR image.
            seed: makes the draw repeatable, with the same latents on every device, in all tiles, and for each image of
                a batch; the first n of m samples are those of n. Default: each image and each call has its own.
            tile: work in tiles of that many LR pixels a side, which bounds the memory; "auto": as large as the free
                memory allows. All are cut from the latents of the whole image. Default: the whole image at once.
            progress: show a bar over the tiles.
            resample: where a sample explodes (:mod:`srflow_plugin.sampling.explosions`), draw that place again at the
                temperature times this, from 0 to below 1, until it does not; what explodes at 0, too, becomes bicubic.
                Default: leave it.
            features: :meth:`features` of ``lq``, which several calls can share; not used for tiles.
            only: the number of the one sample that is drawn, counted from 0: the same as among others.
            adaptive: temperature by place. A number is the share of the temperature that flat areas get, from 0 to 1
                (:mod:`srflow_plugin.sampling.adaptive`); a tensor (B or 1, 1, h, w) holds the factor of each LR pixel.
                Default: the same temperature everywhere.

        Returns:
            (num_samples, B, 3, scale*h, scale*w), not clamped. :func:`srflow_plugin.sampling.draw.draw` tells how many
            exploded, too.

        >>> network = SRFlowNet(num_feat=8, num_grow_ch=4, num_block=2, feature_blocks=[1], num_steps=1)
        >>> network.sample(torch.rand(1, 3, 5, 7), num_samples=2, seed=0).shape
        torch.Size([2, 1, 3, 20, 28])
        """
        return draw(
            self,
            lq,
            temperature,
            num_samples,
            seed,
            tile=tile,
            progress=progress,
            resample=resample,
            features=features,
            only=only,
            adaptive=adaptive,
        ).images

    def save_pretrained(self, folder: str | Path, **about: Any) -> None:
        """Write the network as a repository of the Hugging Face Hub, see :func:`hub.save_pretrained`."""
        from srflow_plugin.integrations.hub import save_pretrained

        save_pretrained(self, folder, **about)

    def push_to_hub(self, repository: str, **about: Any) -> str:
        """Push the network to the Hugging Face Hub, see :func:`hub.push_to_hub`; return its address in the web."""
        from srflow_plugin.integrations.hub import push_to_hub

        return push_to_hub(self, repository, **about)

    @staticmethod
    def from_pretrained(source: str | Path, revision: str | None = None, **overrides: Any) -> SRFlowNet:
        """Load a network from a folder of :meth:`save_pretrained`, or from the Hub: "user/name"."""
        from srflow_plugin.integrations.hub import from_pretrained

        return from_pretrained(source, revision, **overrides)

    def latent_shapes(self, h: int, w: int) -> list[tuple[int, int, int]]:
        """List the shapes (C, H, W) of the latents, finest first, for an LR image of h x w."""
        multiple = self.lq_multiple
        height, width = (self.scale * multiple * math.ceil(size / multiple) for size in (h, w))
        return self.flow.latent_shapes(height, width)

    @property
    def initialized(self) -> bool:
        """Flag: every data-fitted affine layer has seen data, in this run or in a checkpoint's."""
        return all(bool(layer.initialized) for layer in self.modules() if isinstance(layer, ChannelAffine))

    @torch.no_grad()
    def initialize(
        self, gt: Tensor, lq: Tensor, average: Average = local, noise_seeds: Sequence[int] | None = None
    ) -> None:
        """Fit the ActNorms that have seen no data to one training batch; the step before the first update.

        Where processes share the batch, ``average`` makes a mean over this one's part the mean over all.
        """
        noisy, noise_level, _ = self._with_noise(gt, noise_seeds)
        x, contexts = self.flow_inputs(noisy, lq, noise_level)
        initialize_from_data(lambda: self.flow(x, contexts), self.flow, average)

    def flow_inputs(self, gt: Tensor, lq: Tensor, noise_level: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Make the arguments of ``self.flow``: ``gt`` extended to a size that its levels take, and the contexts.

        All in the type of ``gt``: the plain layers know no other precision.
        """
        contexts = self._contexts(self.features(lq), noise_level)
        return self._extended(gt, lq) + self.shift, [context.expanded().to(gt.dtype) for context in contexts]

    def _with_noise(self, gt: Tensor, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor, float]:
        """Add the noise of training: noisy ``gt``, its level (B,) in grey levels, bits per dimension that it adds."""
        noise_level = gt.new_zeros(len(gt))
        if not self.training or self.noise == "none":
            return gt, noise_level, 0.0
        generators = None if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
        if self.noise == "uniform":
            noise = drawn(torch.rand, gt, generators) - 0.5
            return gt + noise / self.noise_levels, noise_level, math.log2(self.noise_levels)
        shares = drawn(torch.rand, noise_level, generators) if self.noise == "conditional" else 1 + noise_level
        noise_level = self.noise_sigma * shares
        return gt + drawn(torch.randn, gt, generators) * (noise_level / 255).view(-1, 1, 1, 1), noise_level, 0.0

    def features(self, lq: Tensor) -> list[Context]:
        """Encode ``lq`` (B, 3, h, w): the features that condition the flow, one for each level, finest first."""
        # Channels last is faster, on CPUs 1.5 times.
        padded = self.padded_lq(lq).contiguous(memory_format=torch.channels_last)
        if self.precision == "bfloat16" or autocast_type(lq.device.type) == torch.bfloat16:
            with torch.autocast(lq.device.type, torch.bfloat16):
                return [context.to(torch.bfloat16) for context in self.encoder.contexts(padded)]
        with without_autocast() if self.precision == "tf32" else full_precision():
            return self.encoder.contexts(padded)

    def _contexts(self, features: Sequence[Context], noise_level: Tensor | None = None) -> Sequence[Context]:
        """Add the noise level, (B,) in grey levels, to the encoder's features as a channel, for noise="conditional"."""
        if self.noise != "conditional":
            return features
        if noise_level is None:
            noise_level = features[0].own.new_zeros(len(features[0].own))
        level = noise_level.view(-1, 1, 1, 1).to(features[0].own.dtype)
        return [
            context._replace(own=torch.cat([context.own, level.expand(-1, 1, *context.own.shape[2:])], dim=1))
            for context in features
        ]

    def padded_lq(self, lq: Tensor) -> Tensor:
        """Extend an LR image (B, 3, h, w) by its last row and column to multiples of ``lq_multiple``."""
        return self._pad(lq, self.lq_multiple)

    def _extended(self, gt: Tensor, lq: Tensor) -> Tensor:
        """Extend an HR image as its LR image is by :meth:`padded_lq`."""
        if gt.shape[2] != self.scale * lq.shape[2] or gt.shape[3] != self.scale * lq.shape[3]:
            raise ValueError(
                f"gt of {gt.shape[2]}x{gt.shape[3]} is not {self.scale} times lq of {lq.shape[2]}x{lq.shape[3]}"
            )
        return self._pad(gt, self.scale * self.lq_multiple)

    def _cropped(self, image: Tensor, lq: Tensor) -> Tensor:
        return image[:, :, : self.scale * lq.shape[2], : self.scale * lq.shape[3]]

    @staticmethod
    def _pad(image: Tensor, multiple: int) -> Tensor:
        bottom, right = (-size % multiple for size in image.shape[2:])
        return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def dequantisation_noise(shape: tuple[int, int, int], seed: int) -> Tensor:
    """Draw U[-1/512, 1/512), on the CPU: the same on every device."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.5) / EIGHT_BIT_LEVELS


def drawn(function: Callable[..., Tensor], like: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
    """Draw torch.rand or torch.randn of a shape and type; with ``generators``, on the CPU, each image from its own."""
    if generators is None:
        return function(like.shape, dtype=like.dtype, device=like.device)
    return sent(torch.stack([function(like.shape[1:], generator=generator) for generator in generators]), like)


def make_settings(
    feature_blocks: Sequence[int],
    scale_floor: float,
    log_scale_bound: float | None,
    encoder_skip: str,
    one_sided_noise: int | None = None,
) -> Settings:
    """Keep what shapes cannot tell with the weights."""
    return Settings(
        feature_blocks=tuple(feature_blocks),
        scale_floor=float(scale_floor),
        log_scale_bound=None if log_scale_bound is None else float(log_scale_bound),
        encoder_skip=encoder_skip,
        one_sided_noise=None if one_sided_noise is None else float(one_sided_noise),
    )


def make_scale(scale_floor: float, log_scale_bound: float | None) -> Scale:
    """Choose the map from raw scales of affine layers to scales."""
    if log_scale_bound is None:
        return partial(sigmoid_scale, floor=scale_floor)
    return partial(bounded_scale, bound=log_scale_bound)


def check_bounds(**numbers: int) -> None:
    """Refuse numbers of layers and channels that nobody trains, and that would fill any memory."""
    for name, number in numbers.items():
        if number > LARGEST[name]:
            raise ValueError(f"{name} must be at most {LARGEST[name]}, not {number}")


def check_sizes(
    scale: int,
    num_levels: int,
    num_block: int,
    feature_blocks: Sequence[int],
    num_steps: int,
    coupling_layers: int,
    coupling_kernel_size: int,
) -> None:
    """Refuse numbers that make no network, with a ValueError that says which would."""
    check_bounds(
        scale=scale,
        num_levels=num_levels,
        num_block=num_block,
        num_steps=num_steps,
        coupling_layers=coupling_layers,
        coupling_kernel_size=coupling_kernel_size,
    )
    if scale < 2 or scale & (scale - 1):
        raise ValueError(f"scale must be a power of 2 from 2 on, not {scale}")
    if 2**num_levels < scale:
        raise ValueError(f"num_levels must be at least {int(math.log2(scale))} for scale {scale}, not {num_levels}")
    blocks = list(feature_blocks)
    if not blocks or blocks != sorted(set(blocks)) or blocks[0] < 0 or blocks[-1] >= num_block:
        raise ValueError(
            f"feature_blocks must name RRDBs from 0 to {num_block - 1} (num_block is {num_block}) in rising order, "
            f"not {blocks}"
        )
    if num_steps < 1:
        raise ValueError(f"num_steps must be 1 or more, not {num_steps}")
    if coupling_layers < 1 or coupling_kernel_size < 1 or coupling_kernel_size % 2 == 0:
        raise ValueError(
            f"coupling_layers must be 1 or more and coupling_kernel_size odd, "
            f"not {coupling_layers} and {coupling_kernel_size}"
        )


def check_scales(scale_floor: float, log_scale_bound: float | None) -> None:
    """Refuse bounds of the affine layers' scales that are none."""
    if not 0 < scale_floor < 1:
        raise ValueError(f"scale_floor must lie between 0 and 1, not {scale_floor}")
    if log_scale_bound is not None and (log_scale_bound <= 0 or scale_floor != PAPER_SCALE_FLOOR):
        raise ValueError(
            f"log_scale_bound must be above 0 and stands in place of scale_floor, "
            f"not {log_scale_bound} with scale_floor {scale_floor}"
        )


def check_noise(noise_sigma: float, noise_levels: int, one_sided_noise: int | None) -> None:
    """Refuse noise that is none."""
    if one_sided_noise is not None and one_sided_noise < 1:
        raise ValueError(f"one_sided_noise must be 1 or more, not {one_sided_noise}")
    if noise_sigma < 0 or noise_levels < 1:
        raise ValueError(f"noise_sigma must be >= 0 and noise_levels >= 1, not {noise_sigma} and {noise_levels}")


def check_choices(**chosen: str) -> None:
    """Refuse words that are not among those that SRFlowNet's arguments of these names take."""
    hints = get_type_hints(SRFlowNet.__init__)
    for name, value in chosen.items():
        words = get_args(hints[name])
        *others, last = get_args(words[0]) or words  # of a Literal | None those of the Literal
        if value not in (*others, last):
            raise ValueError(f"{name} must be {', '.join(others)} or {last}, not {value!r}")
