"""What today's libraries need before BasicSR 1.4.2 (2022) can be imported, item by item with its reason.

Each item does nothing where BasicSR is already fine. Where BasicSR's own launcher, checkpoints and loops do not do the
job, :mod:`srflow_plugin.distributed`, :mod:`srflow_plugin.training_state` and :mod:`srflow_plugin.pipelines` say why.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

# Modules that BasicSR imports and that have moved: old name -> where the same functions are now.
MOVED_MODULES = {
    # Removed in torchvision 0.17; basicsr.data.degradations imports from it, and `import basicsr` imports that.
    "torchvision.transforms.functional_tensor": "torchvision.transforms.functional",
    # Deprecated, to be removed in SciPy 2.0; basicsr.metrics.niqe imports convolve from it.
    "scipy.ndimage.filters": "scipy.ndimage",
}


def alias_if_missing(old: str, new: str) -> None:
    """Make ``import old`` give the module ``new`` where ``old`` does not exist."""
    if old not in sys.modules and importlib.util.find_spec(old) is None:
        sys.modules[old] = importlib.import_module(new)


def apply() -> None:
    """Make BasicSR importable."""
    for old, new in MOVED_MODULES.items():
        alias_if_missing(old, new)
