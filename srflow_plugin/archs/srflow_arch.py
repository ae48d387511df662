"""SRFlow: the encoder and the flow as one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from srflow_plugin.archs.explosions import resample_exploded
from srflow_plugin.archs.rrdb_encoder import RRDBEncoder
from srflow_plugin.archs.settings import Settings
from srflow_plugin.archs.tiling import decode_in_tiles, tile_side
from srflow_plugin.errors import UserError
from srflow_plugin.flow import (
    PAPER_SCALE_FLOOR,
    Average,
    ChannelAffine,
    Context,
    FlowStep,
    MultiScaleFlow,
    bits_per_dimension,
    bounded_scale,
    fast,
    initialize_from_data,
    latents_log_prob,
    local,
    sigmoid_scale,
)

EIGHT_BIT_LEVELS = 256


class NLLTerms(NamedTuple):
    """The negative log-likelihood and what it is made of, each (B,) in bits per dimension: nll = prior + logdet.

    ``logdet`` includes the dequantisation term where there is one. ``image`` is the tau = 0 image where asked for.
    """

    nll: Tensor
    prior: Tensor
    logdet: Tensor
    image: Tensor | None


@ARCH_REGISTRY.register()
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
        noise: what is added to the HR image in training. "none"; "uniform": dequantisation, U[0, 1/Q), with its
            -log Q nats per dimension in log p; "gaussian": standard deviation ``noise_sigma``; "conditional" (NCSR,
            Kim and Son, NTIRE 2021): Gaussian of a standard deviation drawn for each image from
            U[0, ``noise_sigma``), which every step is told as one more channel of its context (0 when not training).
        noise_sigma: in grey levels (of 255). Paper, general SR: 4 / sqrt(3).
        noise_levels: Q, the number of grey levels that noise="uniform" fills the gaps between.

        precision: "float32", the parameters' own, or "bfloat16" for the encoder and the conditional networks, whose
            parameters stay as they are. The flow's own variable, scales and log-determinants keep their precision.
        recompute_encoder: in training, compute the encoder's activations again in the backward pass instead of keeping
            them (as is always done in the flow): less memory, more time, the same numbers.

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
        noise: Literal["none", "uniform", "gaussian", "conditional"] = "none",
        noise_sigma: float = 4 / math.sqrt(3),
        noise_levels: int = 256,
        precision: Literal["float32", "bfloat16"] = "float32",
        recompute_encoder: bool = False,
    ) -> None:
        super().__init__()
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
        if coupling_layers < 1 or coupling_kernel_size < 1 or coupling_kernel_size % 2 == 0:
            raise ValueError(
                f"coupling_layers must be 1 or more and coupling_kernel_size odd, "
                f"not {coupling_layers} and {coupling_kernel_size}"
            )
        if not 0 < scale_floor < 1:
            raise ValueError(f"scale_floor must lie between 0 and 1, not {scale_floor}")
        if log_scale_bound is not None and (log_scale_bound <= 0 or scale_floor != PAPER_SCALE_FLOOR):
            raise ValueError(
                f"log_scale_bound must be above 0 and stands in place of scale_floor, "
                f"not {log_scale_bound} with scale_floor {scale_floor}"
            )
        if encoder_skip not in ("last_block", "conv_first"):
            raise ValueError(f"encoder_skip must be last_block or conv_first, not {encoder_skip!r}")
        if noise not in ("none", "uniform", "gaussian", "conditional"):
            raise ValueError(f"noise must be none, uniform, gaussian or conditional, not {noise!r}")
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, not {precision!r}")
        if noise_sigma < 0 or noise_levels < 1:
            raise ValueError(f"noise_sigma must be >= 0 and noise_levels >= 1, not {noise_sigma} and {noise_levels}")
        self.scale = scale
        self.lq_multiple = max(1, 2**num_levels // scale)
        self.noise = noise
        self.noise_sigma = noise_sigma
        self.noise_levels = noise_levels
        self.precision = precision
        self.settings = Settings(
            feature_blocks=tuple(feature_blocks),
            scale_floor=float(scale_floor),
            log_scale_bound=None if log_scale_bound is None else float(log_scale_bound),
            encoder_skip=encoder_skip,
        )
        self.encoder = RRDBEncoder(
            num_in_ch,
            num_feat,
            num_grow_ch,
            num_block,
            feature_blocks,
            scale,
            num_levels,
            encoder_skip,
            recompute_encoder,
        )
        make_step = partial(
            FlowStep,
            context_channels=self.encoder.out_channels + (noise == "conditional"),
            hidden_channels=hidden_channels,
            scale=(
                partial(sigmoid_scale, floor=scale_floor)
                if log_scale_bound is None
                else partial(bounded_scale, bound=log_scale_bound)
            ),
            coupling_layers=coupling_layers,
            coupling_kernel_size=coupling_kernel_size,
        )
        self.flow = MultiScaleFlow(num_in_ch, num_levels, num_steps, make_step)

    def forward(self, gt: Tensor, lq: Tensor, terms: bool = False, with_image: bool = False) -> Tensor | NLLTerms:
        """NLL of ``gt`` (B, 3, scale*h, scale*w) given ``lq`` (B, 3, h, w): (B,) in bits per dimension.

        In train mode the noise setting is applied first. With ``terms`` the summands come along, with ``with_image``
        the tau = 0 image, too, (B, 3, scale*h, scale*w), after one pass of the encoder for both.
        """
        noisy, noise_level, dequantisation = self._with_noise(gt)
        features = self.features(lq)
        latents, log_det = self._encode(noisy, lq, self._contexts(features, noise_level))
        dimensions = sum(latent[0].numel() for latent in latents)
        prior = bits_per_dimension(latents_log_prob(latents), dimensions)
        logdet = bits_per_dimension(log_det, dimensions) + dequantisation
        if not (terms or with_image):
            return prior + logdet
        image = None
        if with_image:
            image = self._decode([torch.zeros_like(latent) for latent in latents], lq, self._contexts(features))
        return NLLTerms(prior + logdet, prior, logdet, image)

    @torch.no_grad()
    def code_length(self, gt: Tensor, lq: Tensor, seed: int = 0, features: Sequence[Context] | None = None) -> Tensor:
        """Bits per dimension that coding the 8 bit image ``gt`` given ``lq`` takes at most: (B,).

        One draw of ``log2 256 - log2 p(gt + U[0, 1/256) | lq) / dimensions``, the bound of uniform dequantisation
        (Theis et al., ICLR 2016), whatever noise the network is trained with. ``noise: uniform`` trains on it.

        Args:
            gt: (B, 3, scale*h, scale*w), multiples of 1/255.
            lq: (B, 3, h, w).
            seed: of the draw.
            features: :meth:`features` of ``lq``, if at hand.
        """
        generator = torch.Generator(gt.device).manual_seed(seed)
        noisy = gt + torch.rand(gt.shape, generator=generator, dtype=gt.dtype, device=gt.device) / EIGHT_BIT_LEVELS
        latents, log_det = self._encode(noisy, lq, self._contexts(self.features(lq) if features is None else features))
        dimensions = sum(latent[0].numel() for latent in latents)
        return bits_per_dimension(latents_log_prob(latents) + log_det, dimensions) + math.log2(EIGHT_BIT_LEVELS)

    def encode(self, gt: Tensor, lq: Tensor) -> tuple[list[Tensor], Tensor]:
        """``gt`` given ``lq`` -> latents (finest first, shapes of :meth:`latent_shapes`), log-det (B,) in nats.

        No noise is added. Log p(gt | lq) is the latents' log-density under N(0, I) plus the log-det.
        """
        return self._encode(gt, lq, self._contexts(self.features(lq)))

    def decode(self, latents: Sequence[Tensor], lq: Tensor) -> Tensor:
        """Latents given ``lq`` (B, 3, h, w) -> image (B, 3, scale*h, scale*w), not clamped: inverse of encode."""
        return self._decode(latents, lq, self._contexts(self.features(lq)))

    @torch.no_grad()
    def sample(
        self,
        lq: Tensor,
        temperature: float = 0.9,
        num_samples: int = 1,
        seed: int | None = None,
        tile: int | Literal["auto"] | None = None,
        progress: bool = False,
        resample: float | None = None,
        features: Sequence[Context] | None = None,
    ) -> Tensor:
        """Draw super-resolved images: latents from N(0, temperature^2 I), decoded.

        Args:
            lq: (B, 3, h, w), any size.
            temperature: standard deviation of the latents; 0 is deterministic.
            num_samples: images for each LR image.
            seed: makes the draw repeatable on the same kind of device; the first n of m samples are those of n.
            tile: work in tiles of that many LR pixels a side, which bounds the memory; "auto": as large as the free
                memory allows. All are cut from the latents of the whole image. Default: the whole image at once.
            progress: show a bar over the tiles.
            resample: where a sample explodes (:mod:`srflow_plugin.archs.explosions`), draw that place again at the
                temperature times this, from 0 to below 1, until it does not. Default: leave it.
            features: :meth:`features` of ``lq``, which several calls can share; not used for tiles.

        Returns:
            (num_samples, B, 3, scale*h, scale*w), not clamped.
        """
        if temperature < 0 or num_samples < 1:
            raise UserError(f"temperature must be >= 0 and num_samples >= 1, not {temperature} and {num_samples}")
        if resample is not None and not 0 <= resample < 1:
            raise UserError(f"resample must be from 0 to below 1, not {resample}")
        if isinstance(tile, int) and tile < 1:
            raise UserError(f"tile must be 1 or more, not {tile}")
        generator = None if seed is None else torch.Generator(lq.device).manual_seed(seed)
        shapes = self.latent_shapes(*lq.shape[2:])
        draws = [
            [torch.randn(len(lq), *shape, generator=generator, dtype=lq.dtype, device=lq.device) for shape in shapes]
            for _ in range(num_samples)
        ]
        latents = [temperature * torch.cat(level) for level in zip(*draws, strict=True)]

        padded = self._pad(lq, self.lq_multiple)
        side = None if tile is None else tile_side(tile, padded, num_samples)

        def decode(latents: Sequence[Tensor], lq: Tensor, progress: bool = False) -> Tensor:
            if side is None:
                return self.decode(latents, lq)
            return decode_in_tiles(self.decode, latents, lq, self.scale, self.lq_multiple, side, progress)

        if tile is None and features is not None:
            images = self._decode(latents, padded, self._contexts(features))
        else:
            images = decode(latents, padded, progress)
        if resample is not None:
            images = resample_exploded(decode, latents, images, padded, self.scale, self.lq_multiple, resample)
        images = images[:, :, : self.scale * lq.shape[2], : self.scale * lq.shape[3]]
        return images.unflatten(0, (num_samples, -1))

    def latent_shapes(self, h: int, w: int) -> list[tuple[int, int, int]]:
        """Shapes (C, H, W) of the latents, finest first, for an LR image of h x w."""
        multiple = self.lq_multiple
        height, width = (self.scale * multiple * math.ceil(size / multiple) for size in (h, w))
        return self.flow.latent_shapes(height, width)

    @property
    def initialized(self) -> bool:
        """Whether every data-fitted affine layer has seen data (in this run or in a checkpoint's)."""
        return all(bool(layer.initialized) for layer in self.modules() if isinstance(layer, ChannelAffine))

    @torch.no_grad()
    def initialize(self, gt: Tensor, lq: Tensor, average: Average = local) -> None:
        """Fit all ActNorms to one training batch; the step before the first update.

        Where processes share the batch, ``average`` makes a mean over this one's part the mean over all.
        """
        noisy, noise_level, _ = self._with_noise(gt)
        x, contexts = self.flow_inputs(noisy, lq, noise_level)
        initialize_from_data(lambda: self.flow(x, contexts), self.flow, average)

    def flow_inputs(self, gt: Tensor, lq: Tensor, noise_level: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """What ``self.flow`` takes for a pair of images: ``gt`` extended to what its levels need, and the contexts.

        All in the type of ``gt``: the plain layers know no other precision.
        """
        contexts = self._contexts(self.features(lq), noise_level)
        return self._pad(gt, self.scale * self.lq_multiple), [context.expanded().to(gt.dtype) for context in contexts]

    def _with_noise(self, gt: Tensor) -> tuple[Tensor, Tensor, float]:
        """``gt`` as it is trained on, the noise's level (B,) in grey levels, the bits per dimension that it adds."""
        noise_level = gt.new_zeros(len(gt))
        if not self.training or self.noise == "none":
            return gt, noise_level, 0.0
        if self.noise == "uniform":
            return gt + torch.rand_like(gt) / self.noise_levels, noise_level, math.log2(self.noise_levels)
        drawn = torch.rand_like(noise_level) if self.noise == "conditional" else torch.ones_like(noise_level)
        noise_level = self.noise_sigma * drawn
        return gt + torch.randn_like(gt) * (noise_level / 255).view(-1, 1, 1, 1), noise_level, 0.0

    def features(self, lq: Tensor) -> list[Context]:
        """What the flow is conditioned on: the encoder's features of ``lq`` (B, 3, h, w), one for each level."""
        # Channels last is faster, on CPUs 1.5 times.
        padded = self._pad(lq, self.lq_multiple).contiguous(memory_format=torch.channels_last)
        if self.precision == "float32":
            return self.encoder.contexts(padded)
        with torch.autocast(lq.device.type, torch.bfloat16):
            return [context.to(torch.bfloat16) for context in self.encoder.contexts(padded)]

    def _contexts(self, features: Sequence[Context], noise_level: Tensor | None = None) -> Sequence[Context]:
        """The encoder's features, and for noise="conditional" the noise level, (B,) in grey levels, as a channel."""
        if self.noise != "conditional":
            return features
        if noise_level is None:
            noise_level = features[0].own.new_zeros(len(features[0].own))
        level = noise_level.view(-1, 1, 1, 1).to(features[0].own.dtype)
        return [
            context._replace(own=torch.cat([context.own, level.expand(-1, 1, *context.own.shape[2:])], dim=1))
            for context in features
        ]

    def _encode(self, gt: Tensor, lq: Tensor, contexts: Sequence[Context]) -> tuple[list[Tensor], Tensor]:
        if gt.shape[2] != self.scale * lq.shape[2] or gt.shape[3] != self.scale * lq.shape[3]:
            raise ValueError(
                f"gt of {gt.shape[2]}x{gt.shape[3]} is not {self.scale} times lq of {lq.shape[2]}x{lq.shape[3]}"
            )
        return fast.encode(self.flow, self._pad(gt, self.scale * self.lq_multiple), contexts)

    def _decode(self, latents: Sequence[Tensor], lq: Tensor, contexts: Sequence[Context]) -> Tensor:
        image = fast.decode(self.flow, latents, contexts)
        return image[:, :, : self.scale * lq.shape[2], : self.scale * lq.shape[3]]

    @staticmethod
    def _pad(image: Tensor, multiple: int) -> Tensor:
        bottom, right = (-size % multiple for size in image.shape[2:])
        return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image
