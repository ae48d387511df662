"""Training of the learned prior, the flow frozen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from srflow_plugin.checkpoints.fit import PRIOR, Weights, with_prior_of
from srflow_plugin.flow import full_precision
from srflow_plugin.models.srflow_model import SRFlowTraining
from srflow_plugin.options.schema import SRFlowPriorTrain, read


class SRFlowPriorModel(SRFlowTraining):
    """The learned prior of a trained SRFlow network, by losses of the image that its latents decode to.

    Encoder and flow stay as they are, to the bit. Its options are those of SRFlowPaths, SRFlowPriorTrain and SRFlowVal
    in :mod:`srflow_plugin.options.schema`.
    """

    train_options: SRFlowPriorTrain

    def __init__(self, opt: dict[str, Any]) -> None:
        if opt["is_train"]:
            self.train_options = read(SRFlowPriorTrain, opt["train"])
        super().__init__(opt)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Freeze all but the prior, which alone is wrapped for the ranks."""
        net = net.requires_grad_(False).to(self.device)
        if self.opt["is_train"]:
            prior: nn.Module = self.get_bare_model(net).prior
            self.trained = self.among_ranks(prior.requires_grad_(True))
        return net

    def completed(self, weights: Weights, net: nn.Module) -> Weights:
        """Fill up weights without a prior; the mean over iterations has the flow that is trained for."""
        if net is self.net_g:
            return with_prior_of(net, weights, is_trained=True)
        own = self.net_g.state_dict()
        return {**own, **{key: value for key, value in weights.items() if key.startswith(PRIOR)}}

    def setup_optimizers(self) -> None:
        optim_opt = dict(self.train_options.optim_g)
        optim_type, lr = optim_opt.pop("type"), optim_opt.pop("lr")
        self.optimizer_g = self.get_optimizer(optim_type, list(self.trained.parameters()), lr, **optim_opt)
        self.optimizers.append(self.optimizer_g)

    def losses(self, gt: Tensor, lq: Tensor, seeds: list[int] | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Decode the predicted latents; ``l_latent`` is their mean square, 1 of drawn ones."""
        net = self.get_bare_model(self.net_g)
        with torch.no_grad():
            features = net.features(lq)
        with full_precision():
            latents = self.trained(net.lq_features(features))
        of_image = self.image_losses(net.decode(latents, lq, features), gt, lq)
        values = torch.cat([level.detach().flatten() for level in latents])
        l_latent = values.square().mean() / self.train_options.accumulation_steps
        return torch.stack(list(of_image.values())).sum(), {**of_image, "l_latent": l_latent}
