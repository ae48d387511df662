"""Files of safetensors that carry a hash of themselves; those of other programs, which have none, are read as well.

The hash is the SHA-256 of the whole file with zeros in its own place, in hexadecimal digits among the metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from srflow_plugin.checkpoints.foreign import LENGTH_BYTES
from srflow_plugin.errors import UserError

HASH_KEY = "srflow_sha256"
BLANK = b"0" * (2 * hashlib.sha256().digest_size)


def sealed(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Make the contents of a file, with its hash; the same for the same tensors and metadata."""
    content = save({key: value.contiguous() for key, value in tensors.items()})
    data = content[LENGTH_BYTES + len(_header(content)) :]
    # By hand, since the library writes metadata in any order.
    described = {"__metadata__": {**(metadata or {}), HASH_KEY: BLANK.decode()}, **json.loads(_header(content))}
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % LENGTH_BYTES)
    content = len(header).to_bytes(LENGTH_BYTES, "little") + header + data
    place = _place(content)
    return content[:place] + hashlib.sha256(content).hexdigest().encode() + content[place + len(BLANK) :]


def read_sealed(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata.

    Raises:
        UserError: the file is not as it was written.
        SafetensorError: it is none of safetensors.
    """
    content = path.read_bytes()
    tensors = load(content)
    described = json.loads(_header(content))
    metadata: dict[str, str] = described.pop("__metadata__", {})
    if HASH_KEY in metadata:
        place = _place(content)
        digest = hashlib.sha256(memoryview(content)[:place])
        digest.update(BLANK)
        digest.update(memoryview(content)[place + len(BLANK) :])
        if digest.hexdigest() != metadata[HASH_KEY]:
            raise UserError(f"{path} is damaged: it has changed since it was written; fetch or make it again")
    return {name: tensors[name] for name in described}, metadata


def _header(content: bytes) -> bytes:
    return content[LENGTH_BYTES : LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")]


def _place(content: bytes) -> int:
    """Find the hash; quotation marks within names and values have a backslash before them."""
    start = f'"{HASH_KEY}":"'.encode()
    return LENGTH_BYTES + _header(content).find(start) + len(start)
