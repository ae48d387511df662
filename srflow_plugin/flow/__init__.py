"""The conditional normalizing flow, torch only.

Read in this order: :mod:`bijection` (the contract), :mod:`layers` (ActNorm, invertible 1x1 convolution, squeeze),
:mod:`coupling` (what the LR image decides), :mod:`multiscale` (levels, splits, latents). They define the flow;
:mod:`fast` computes the same numbers sooner; :mod:`density` makes a likelihood of them; :mod:`precision` keeps GPUs
from rounding on the way.
"""

from srflow_plugin.flow.bijection import Bijection, Chain
from srflow_plugin.flow.context import Context
from srflow_plugin.flow.coupling import (
    PAPER_SCALE_FLOOR,
    AffineCoupling,
    AffineInjector,
    ConditionalNet,
    Split,
    bounded_scale,
    sigmoid_scale,
)
from srflow_plugin.flow.density import Encoding, bits_per_dimension, latents_log_prob, standard_normal_log_prob
from srflow_plugin.flow.layers import (
    ActNorm,
    Average,
    ChannelAffine,
    InvertibleConv1x1,
    Squeeze,
    initialize_from_data,
    local,
)
from srflow_plugin.flow.multiscale import FlowStep, MultiScaleFlow
from srflow_plugin.flow.precision import full_precision

__all__ = [
    "PAPER_SCALE_FLOOR",
    "ActNorm",
    "AffineCoupling",
    "AffineInjector",
    "Average",
    "Bijection",
    "Chain",
    "ChannelAffine",
    "ConditionalNet",
    "Context",
    "Encoding",
    "FlowStep",
    "InvertibleConv1x1",
    "MultiScaleFlow",
    "Split",
    "Squeeze",
    "bits_per_dimension",
    "bounded_scale",
    "full_precision",
    "initialize_from_data",
    "latents_log_prob",
    "local",
    "sigmoid_scale",
    "standard_normal_log_prob",
]
