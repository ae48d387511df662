"""Numbers of each image so far: lines of a file that several processes write, and killed ones leave readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from srflow_plugin.locks import LockFile

Values = dict[str, Any]


class Records:
    """Numbers by (data set, method, image), appended to a file one line each, by this process and by others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[tuple[str, str, str], Values] = {}
        self._read = 0  # bytes
        self.refresh()

    def has(self, dataset: str, method: str, image: str) -> bool:
        """Say whether there is a record, of this process or of another."""
        key = dataset, method, image
        if key not in self.values:
            self.refresh()
        return key in self.values

    def add(self, dataset: str, method: str, image: str, values: Values) -> None:
        """Append a record, alone with the file: a line is whole on file servers, too, which know no append."""
        with LockFile(self.path.with_name(f".{self.path.name}.lock")) as lock, lock.holding():
            self.refresh()
            has_part = self.path.exists() and self.path.stat().st_size > self._read  # of a line, which a kill has left
            with self.path.open("ab") as file:
                file.write(b"\n" * has_part + json.dumps([dataset, method, image, values]).encode() + b"\n")
            self.refresh()

    def refresh(self) -> None:
        """Read the lines that are new."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        for line in whole.splitlines():
            if record := _record(line):
                self.values[record[0]] = record[1]
        self._read += len(whole)


def _record(line: bytes) -> tuple[tuple[str, str, str], Values] | None:
    """Read a line; None for part of one, or a damaged one, whose image is done again."""
    try:
        *key, values = json.loads(line)
        dataset, method, image = map(str, key)
    except (ValueError, TypeError):
        return None
    return ((dataset, method, image), values) if isinstance(values, dict) else None
