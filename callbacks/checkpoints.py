"""Checkpoints: those that a Lightning Trainer writes, told as soon as their paths are known, and those that are gone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .recorder import Recorder

LOOKED_AT = 20
"""Files of which it is remembered that they were there: the newest, as many as advice may go back to."""


class Files:
    """Remembers which checkpoints were there, to tell of those that were deleted: most runs keep the last one alone.

    Of places that no look at the disk reaches (`s3://`), and of files that were never there, nothing is told.
    """

    def __init__(self) -> None:
        self._there: dict[str, Path] = {}
        """{path as it was told: path to look at, which outlives a change of the folder}"""
        self._awaited: dict[str, Path] = {}
        """Those that were told before they were written."""

    def add(self, path: str) -> None:
        """Remember a path that is told of, or was by an earlier attempt."""
        self._awaited.pop(path, None)
        self._there.pop(path, None)
        place = Path(path).absolute()
        (self._awaited if _stamp(place) is None else self._there)[path] = place
        for held in (self._there, self._awaited):
            while len(held) > LOOKED_AT:
                held.pop(next(iter(held)))

    def gone(self) -> list[str]:
        """Return those that were there and are not any more, once each."""
        for path in [path for path, place in self._awaited.items() if _stamp(place) is not None]:
            self._there[path] = self._awaited.pop(path)
        gone = [path for path, place in self._there.items() if _is_gone(place)]
        for path in gone:
            del self._there[path]
        return gone


class Checkpoints:
    """Remembers that one was saved until the next look: while it is saved nobody knows its path."""

    def __init__(self) -> None:
        self.saved: bool | None = None
        """Whether all weights were finite in the one saved last; None where all are told of."""
        self._known: dict[str, int | None] = {}

    def begin(self, trainer: Any, recorder: Recorder) -> None:
        """Take the files that are there already for known, and tell where one of them is deleted."""
        self._known = {path: _stamp(path) for path in checkpoint_paths(trainer)}
        for path in [*_best(trainer), *self._known]:
            recorder.files.add(path)

    def tell(self, trainer: Any, recorder: Recorder) -> None:
        """Tell a recorder of what was written since the last look."""
        finite, self.saved = self.saved, None
        stamps = {path: _stamp(path) for path in checkpoint_paths(trainer)}
        # a file that is written over keeps its name
        new = [path for path, at in stamps.items() if self._known.get(path, -1) != at]
        for path in new or list(stamps)[:1]:
            recorder.checkpoint(path, finite=finite)
        self._known |= stamps


def _stamp(path: str | Path) -> int | None:
    """Return when a file was written last, in ns; None where it cannot be looked at."""
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, ValueError):
        return None


def _is_gone(path: Path) -> bool:
    """Tell whether there is no such file; a disk that does not answer is no answer."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _best(trainer: Any) -> list[str]:
    """Return the paths that the checkpoint callbacks keep besides, those of earlier attempts too."""
    kept = [getattr(callback, "best_k_models", None) for callback in trainer.checkpoint_callbacks]
    return [path for held in kept if isinstance(held, dict) for path in held if path]


def checkpoint_paths(trainer: Any) -> list[str]:
    """Return the paths that the checkpoint callbacks name, those that are written over in front."""
    paths: dict[str, None] = {}
    for name in ("last_model_path", "best_model_path", "_last_checkpoint_saved"):
        for callback in trainer.checkpoint_callbacks:
            path = getattr(callback, name, "")
            if isinstance(path, str) and path:
                paths.setdefault(path)
    return list(paths)
