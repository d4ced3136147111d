"""Finished cells, kept in a file until the code that measured them changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
KEPT = FOLDER.parent / "out"


def digest(paths: Iterable[Path]) -> str:
    """Return what changes with the content of some files."""
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


class Finished:
    """What was measured, by name; a cell of older code counts as missing."""

    def __init__(self, path: Path, version: str) -> None:
        self._path, self._version = path, version
        text = path.read_text(encoding="utf-8") if path.exists() else "{}"
        self._all: dict[str, Any] = json.loads(text)

    def __contains__(self, name: str) -> bool:
        return self._all.get(name, {}).get("version") == self._version

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return a cell, measured now where it is not known."""
        if name not in self:
            self._all[name] = {"version": self._version, "value": measure()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(self._all, indent=1) + "\n", encoding="utf-8")
            new.replace(self._path)
        return self._all[name]["value"]
