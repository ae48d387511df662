"""Weights in files: :mod:`load`, :mod:`fit` (to which network), :mod:`released` (foreign names), :mod:`convert`."""
