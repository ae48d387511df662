"""BasicSR 1.4.2 (2022) on today's libraries: what it needs to be imported, and our classes in its registries.

Both happen when somebody imports BasicSR, whoever that is: ``import srflow_plugin`` itself does not. Each item does
nothing where BasicSR is already fine. Where BasicSR's own launcher, checkpoints and loops do not do the job,
:mod:`srflow_plugin.training` says why.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

# Modules that BasicSR imports and that have moved: old name -> where the same functions are now.
MOVED_MODULES = {
    # Removed in torchvision 0.17; basicsr.data.degradations imports from it, and `import basicsr` imports that.
    "torchvision.transforms.functional_tensor": "torchvision.transforms.functional",
    # Deprecated, to be removed in SciPy 2.0; basicsr.metrics.niqe imports convolve from it.
    "scipy.ndimage.filters": "scipy.ndimage",
}


def follow_basicsr() -> None:
    """Prepare BasicSR and fill its registries as soon as it is imported; now, if it has been."""
    if "basicsr" in sys.modules:
        fill_registries()
    elif not any(isinstance(finder, BasicSRFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, BasicSRFinder())


class BasicSRFinder(MetaPathFinder):
    """Finder of ``basicsr`` wherever the other finders find it; importing it does what this module is for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "basicsr":
            return None
        others = (finder.find_spec for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (find(fullname, path, target) for find in others)), None)
        if spec is None or spec.loader is None:
            return spec
        import_as_usual = spec.loader.exec_module

        def import_prepared(module: ModuleType) -> None:
            alias_moved_modules()
            import_as_usual(module)
            fill_registries()

        spec.loader.exec_module = import_prepared  # type: ignore[method-assign]
        return spec


def alias_moved_modules() -> None:
    """Make BasicSR importable."""
    for old, new in MOVED_MODULES.items():
        alias_if_missing(old, new)


def alias_if_missing(old: str, new: str) -> None:
    """Make ``import old`` give the module ``new`` where ``old`` does not exist."""
    if old not in sys.modules and find_spec(old) is None:
        sys.modules[old] = import_module(new)


def fill_registries() -> None:
    """Register this package's classes and metrics with BasicSR."""
    import_module("srflow_plugin.registry")
