"""``basicsr test``: test a model as an option file says."""

from __future__ import annotations

import argparse

from srflow_plugin.cli.train import add_run_arguments, run_of

HELP = "test a model as an option file says"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, is_train=False)


def run(args: argparse.Namespace) -> int:
    with run_of(args, is_train=False) as ready:
        from srflow_plugin.training.pipelines import test_pipeline

        return test_pipeline(ready)
