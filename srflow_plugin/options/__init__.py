"""Option files: each option once (:mod:`schema`), read (:mod:`files`), checked before anything is written.

The checks come in three steps: :mod:`check` needs the file alone and no torch, :mod:`registered` BasicSR's registries,
:mod:`resources` the weights and data sets that the file names.
"""
