"""Numbers of each image so far: lines of a file that a killed run leaves readable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Values = dict[str, Any]


class Records:
    """Numbers by (data set, method, image), appended to a file one line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[tuple[str, str, str], Values] = {}
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a killed run may have left part of a line
        if whole != text:
            path.write_text(whole)
        for line in whole.splitlines():
            dataset, method, image, values = json.loads(line)
            self.values[dataset, method, image] = values

    def has(self, dataset: str, method: str, image: str) -> bool:
        return (dataset, method, image) in self.values

    def add(self, dataset: str, method: str, image: str, values: Values) -> None:
        self.values[dataset, method, image] = values
        with self.path.open("a") as file:
            file.write(json.dumps([dataset, method, image, values]) + "\n")
