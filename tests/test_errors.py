"""What is missing is named with the command that installs it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from srflow_plugin import errors
from srflow_plugin.errors import UserError, install_command, needs
from tests.helpers import ROOT


def test_the_missing_module_and_its_extra_are_named() -> None:
    with pytest.raises(UserError) as error, needs("demo", "srflow demo"):
        import_module("no_such_module")
    expected = f'srflow demo needs no_such_module, which is not installed: pip install -e "{ROOT}[demo]"'
    assert str(error.value) == expected


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), needs("demo", "srflow demo"):
        raise ZeroDivisionError


def test_without_a_clone_every_package_of_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "srflow_plugin" / "errors.py"))
    assert install_command("demo") == 'pip install "gradio>=6" "scikit-image>=0.22"'
    assert '"lmdb>=1.4"' in install_command("train")
