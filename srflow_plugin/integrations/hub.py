"""Networks of the Hugging Face Hub: ``hf://user/name``, fetched, saved, pushed.

These are functions of huggingface_hub, not its PyTorchModelHubMixin: that would have to be a base class of the network,
so that the core would import it, and it loads weights in a way of its own, past the checks of :func:`load_network`.
From the Hub come safetensors only, which hold numbers and nothing that runs. Needs huggingface_hub to fetch and to
push, and no torch to fetch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from srflow_plugin._version import __version__
from srflow_plugin.checkpoints.shipped import HUB as PREFIX
from srflow_plugin.checkpoints.shipped import is_address
from srflow_plugin.errors import UserError, needs
from srflow_plugin.files import complete_or_absent, write_whole

if TYPE_CHECKING:
    from srflow_plugin.archs.srflow_arch import SRFlowNet

SUFFIX = ".safetensors"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
FORM = "hf://user/name, hf://user/name@revision or hf://user/name/file.safetensors"


class Address(NamedTuple):
    """Place of a file on the Hub; a revision is a branch, a tag or a commit, None the newest."""

    repository: str
    revision: str | None
    file: str


def parse(address: str) -> Address:
    """Read an address.

    >>> parse("hf://user/name@v1")
    Address(repository='user/name', revision='v1', file='model.safetensors')

    Raises:
        UserError: it is none, or of a file that is not safetensors.
    """
    name = r"[\w.-]+"
    match = re.fullmatch(rf"hf://({name}/{name})(?:@([\w.-]+))?(?:/([\w./ -]+))?", address)
    if match is None:
        raise UserError(f"{address} is no address of the Hub; write {FORM}")
    repository, revision, file = match.groups()
    if file is not None and not file.endswith(SUFFIX):
        raise UserError(f"{address}: only {SUFFIX} files are taken from the Hub, since others can run code")
    return Address(repository, revision, file or WEIGHTS)


def fetched(address: str) -> Path:
    """Fetch a file into the cache of huggingface_hub, unless it is there; return its path.

    Raises:
        UserError: there is none, or it cannot be had.
    """
    place = parse(address)
    with needs("hub", address):
        from huggingface_hub import hf_hub_download
    with _explained(address, place.repository):
        return Path(hf_hub_download(place.repository, place.file, revision=place.revision))


def from_pretrained(source: str | Path, revision: str | None = None, **overrides: Any) -> SRFlowNet:
    """Load a network from a folder of :func:`save_pretrained`, or from the Hub: "user/name", or an address.

    ``overrides`` are those of :func:`load_network`.
    """
    from srflow_plugin.checkpoints.load import load_network

    if Path(source).is_dir():
        return load_network(Path(source) / WEIGHTS, **overrides)
    is_name = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)) is not None
    if not is_name and not is_address(source):
        raise UserError(f"{source} is no folder, and no user/name of the Hub; correct it")
    address = str(source) if is_address(source) else f"{PREFIX}{source}"
    if revision is not None:
        place = parse(address)
        address = f"{PREFIX}{place.repository}@{revision}/{place.file}"
    return load_network(address, **overrides)


def save_pretrained(network: SRFlowNet, folder: str | Path, name: str = "", license: str = "unknown") -> None:
    """Write a network as a repository of the Hub has it: weights, settings, model card.

    Weights and settings that are there are replaced. A card that is there stays, since its author has filled it in.

    Args:
        network: of any device.
        folder: made if it is not there.
        name: of the repository, "user/name", for the card; default: the folder's.
        license: of the weights, by the Hub's names, such as "apache-2.0".
    """
    from srflow_plugin.checkpoints.fit import hyperparameters
    from srflow_plugin.checkpoints.sealed import sealed

    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder, which is made if it is not there")
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    settings = hyperparameters(weights, "the network")
    with complete_or_absent(folder / WEIGHTS) as unfinished:
        unfinished.write_bytes(sealed(weights, {"format": "pt"}))
    config = {"architecture": "SRFlowNet", "srflow_plugin": __version__, **settings}
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    if not (folder / CARD).exists():
        write_whole(folder / CARD, card(name or folder.resolve().name, settings, license))


def push_to_hub(
    network: SRFlowNet,
    repository: str,
    private: bool = False,
    license: str = "unknown",
    message: str = "A network of srflow_plugin",
    token: str | None = None,
) -> str:
    """Push a network to the Hub, to a repository that is made if it is not there; return its address in the web.

    A model card that the repository has stays.

    Args:
        network: of any device.
        repository: "user/name".
        private: of a repository that is made.
        license: see :func:`save_pretrained`.
        message: of the commit.
        token: with the right to write; default: that of ``hf auth login``.
    """
    place = parse(f"{PREFIX}{repository}")
    with needs("hub", "push_to_hub"):
        from huggingface_hub import HfApi
    api = HfApi(token=token)
    with TemporaryDirectory() as folder:
        save_pretrained(network, folder, place.repository, license)
        with _explained(repository, place.repository):
            url = api.create_repo(place.repository, private=private, exist_ok=True)
            kept = [CARD] if api.file_exists(place.repository, CARD) else []
            api.upload_folder(
                repo_id=place.repository, folder_path=folder, commit_message=message, ignore_patterns=kept or None
            )
    return str(url)


def card(name: str, settings: dict[str, Any], license: str) -> str:
    """Write a model card; what nobody but the author knows is left to the author, and said to be."""
    scale = settings["scale"]
    rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
    address = f"{PREFIX}{name}" if "/" in name else f"{PREFIX}USER/{name}"
    return CARD_TEXT.format(name=name, license=license, scale=scale, rows=rows, address=address, version=__version__)


@contextmanager
def _explained(address: str, repository: str) -> Iterator[None]:
    """Turn what goes wrong between this machine and the Hub into a line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        reason = f"{repository} asks for consent: give it on its page, then `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = f"there is no {repository} on the Hub, or it is private: correct the name, or `hf auth login`"
    except errors.RevisionNotFoundError:
        reason = f"{repository} has no such revision; correct what follows the @"
    except errors.LocalEntryNotFoundError:
        reason = "it is not in the cache and the Hub cannot be reached: connect (HF_HUB_OFFLINE unset) and try again"
    except errors.EntryNotFoundError:
        reason = f"{repository} has no such file; name one of its {SUFFIX} files: {PREFIX}{repository}/FILE{SUFFIX}"
    except errors.HFValidationError:
        reason = f"{repository} is no name of a repository; write {FORM}"
    except errors.LocalTokenNotFoundError:
        reason = "the Hub does not know you; `hf auth login` first, or give a token"
    except (errors.HfHubHTTPError, OSError) as error:
        reason = f"the Hub does not answer as it should: {' '.join(str(error).split()):.200}"
    else:
        return
    raise UserError(f"{address}: {reason}") from None


CARD_TEXT = """\
---
license: {license}
library_name: srflow_plugin
pipeline_tag: image-to-image
tags:
- super-resolution
- normalizing-flow
- srflow
- pytorch
---

# {name}

An SRFlow network for super-resolution, scale {scale}: it draws images from their distribution given a low-resolution
image, instead of one image. Written by srflow_plugin {version}.

## How to use it

```sh
pip install "srflow_plugin[hub]"
srflow upscale photo.png --checkpoint {address} -o result.png
```

```python
from srflow_plugin import load_network

network = load_network("{address}")
```

## Training data

Not filled in by the author yet: which images, how they were downscaled, and under which terms they may be used.

## Limits

Not filled in by the author yet: on which images it was tested, and what it does with noise and JPEG compression. A
sample is one plausible image of many. What it shows beyond the low-resolution image is invented: do not identify people
by it.

## Settings

| argument of SRFlowNet | value |
|---|---|
{rows}
"""
