"""The commands: ``basicsr train|test`` and ``srflow ...``; ``python -m srflow_plugin`` knows them all."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import torch.distributed

from srflow_plugin import __version__
from srflow_plugin.checkpoints import convert
from srflow_plugin.cli.benchmark import BENCHMARK
from srflow_plugin.cli.demo import DEMO
from srflow_plugin.cli.latent_tools import LATENT_TOOLS
from srflow_plugin.cli.options import parse_options
from srflow_plugin.cli.prepare import PREPARE
from srflow_plugin.cli.upscale import UPSCALE
from srflow_plugin.errors import TrainingError, UserError
from srflow_plugin.pipelines import test_pipeline, train_pipeline

PLUGIN_GROUP = "basicsr.plugins"


def basicsr_command(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``basicsr``."""
    return _run("basicsr", "Train and test BasicSR models, SRFlow and other plugins' included.", TRAIN_AND_TEST, argv)


def srflow_command(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``srflow``."""
    return _run("srflow", "What BasicSR has no word for.", TOOLS, argv)


def all_commands(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m srflow_plugin``."""
    return _run("python -m srflow_plugin", "SRFlow for BasicSR.", {**TRAIN_AND_TEST, **TOOLS}, argv)


def _run(name: str, description: str, commands: dict[str, Command], argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--version", action="version", version=f"srflow_plugin {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command, (help_text, add_arguments, run) in commands.items():
        subparser = subparsers.add_parser(command, help=help_text, description=help_text)
        add_arguments(subparser)
        subparser.set_defaults(run=run)
    args = parser.parse_args(argv)
    try:
        return args.run(args) or 0
    except UserError as error:
        parser.exit(2, f"{name}: error: {error}\n")
    except TrainingError as fault:
        parser.exit(1, f"{name}: stopped: {fault}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{name}: interrupted\n")
    finally:
        if torch.distributed.is_initialized():
            gc.collect()  # a DDP model that is freed after its process group can wait for Gloo's threads forever
            torch.distributed.destroy_process_group()


def _add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-opt", required=True, metavar="FILE", help="option file (YAML)")
    parser.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        default="pytorch" if "TORCHELASTIC_RUN_ID" in os.environ else "none",
        help="how processes are started; under torchrun the default is pytorch, else none",
    )
    parser.add_argument("--auto_resume", action="store_true", help="go on from the experiment's newest state, if any")
    parser.add_argument("--debug", action="store_true", help="log every iteration, save and validate every 8th")
    parser.add_argument("--local_rank", type=int, default=0, help="accepted from old launchers; not used")
    parser.add_argument(
        "--force_yml", nargs="+", metavar="KEY:SUBKEY=VALUE", help="change options, e.g. train:ema_decay=0.999"
    )


def _train(args: argparse.Namespace) -> int:
    _load_plugins()
    return train_pipeline(parse_options(args, Path.cwd(), is_train=True), args.opt)


def _test(args: argparse.Namespace) -> int:
    _load_plugins()
    return test_pipeline(parse_options(args, Path.cwd(), is_train=False))


def _load_plugins() -> None:
    """Import every package that registers classes with BasicSR and says so by an entry point."""
    for plugin in entry_points(group=PLUGIN_GROUP):
        try:
            plugin.load()
        except Exception as error:
            raise UserError(f"plugin {plugin.name} ({plugin.value}) cannot be imported: {error!r}") from error


def _add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="IN", help="a checkpoint of this project, or a released SRFlow one"
    )
    parser.add_argument("target", type=Path, metavar="OUT", help="file to write: .pth, or .safetensors")
    parser.add_argument("--to-released", action="store_true", help="write the released key names")
    parser.add_argument(
        "--param-key",
        choices=["params_ema", "params"],
        default="params_ema",
        help="take the mean over iterations or the last weights, where a file has both (default: params_ema)",
    )
    parser.add_argument(
        "--storage",
        choices=["float32", "half", "compact"],
        default="float32",
        help="half: float16, half the size; compact: the encoder in eight bits, a third (default: float32)",
    )


def _convert(args: argparse.Namespace) -> None:
    convert(args.source, args.target, args.to_released, args.storage, args.param_key)
    sys.stdout.write(f"{args.target} is written.\n")


Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int | None]]
TRAIN_AND_TEST: dict[str, Command] = {
    "train": ("train a model as an option file says", _add_pipeline_arguments, _train),
    "test": ("test a model as an option file says", _add_pipeline_arguments, _test),
}
TOOLS: dict[str, Command] = {
    **UPSCALE,
    **DEMO,
    **PREPARE,
    "convert": ("write a checkpoint in another format", _add_convert_arguments, _convert),
    **BENCHMARK,
    **LATENT_TOOLS,
}
