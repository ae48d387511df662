"""BasicSR's data sets and models, built: quickly for many files, and with a line where that cannot be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from basicsr.data import build_dataset

from srflow_plugin.data.checked import CheckedImages
from srflow_plugin.errors import UserError


def build(make: Callable[[dict[str, Any]], Any], opt: dict[str, Any], what: str) -> Any:
    """Build something of BasicSR or a plugin; what its class says about its options becomes one line."""
    try:
        return make(opt)
    except UserError:
        raise
    except (AssertionError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what} cannot be built: {text:.300}") from error


def checked_images(opt: dict[str, Any], where: str) -> CheckedImages:
    """Build the data set of an option file's section, its files to be checked."""
    return CheckedImages(build(build_dataset, opt, where))
