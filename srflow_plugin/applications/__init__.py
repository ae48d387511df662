"""Uses of a network: super-resolve (:mod:`upscale`, :mod:`batch`), edit (:mod:`editing`), draw maps (:mod:`maps`)."""
