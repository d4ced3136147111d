"""The checkpoints that a Lightning Trainer writes, told as soon as their paths are known."""

from __future__ import annotations

from typing import Any

from .recorder import Recorder


class Checkpoints:
    """Remembers that one was saved until the next look: while it is saved nobody knows its path."""

    def __init__(self) -> None:
        self.saved: bool | None = None
        """Whether all weights were finite in the one saved last; None where all are told of."""
        self._known: set[str] = set()

    def begin(self, trainer: Any) -> None:
        """Take the files that are there already for known."""
        self._known = set(checkpoint_paths(trainer))

    def tell(self, trainer: Any, recorder: Recorder) -> None:
        """Tell a recorder of what was written since the last look."""
        finite, self.saved = self.saved, None
        paths = checkpoint_paths(trainer)
        new = [path for path in dict.fromkeys(paths) if path not in self._known]
        # a file that is written over keeps its name
        for path in new or paths[:1]:
            recorder.checkpoint(path, finite=finite)
        self._known |= set(paths)


def checkpoint_paths(trainer: Any) -> list[str]:
    """Return the paths that the checkpoint callbacks name, the newest of each first."""
    paths: list[str] = []
    for callback in trainer.checkpoint_callbacks:
        for name in ("_last_checkpoint_saved", "last_model_path", "best_model_path"):
            path = getattr(callback, name, "")
            if isinstance(path, str) and path:
                paths.append(path)
    return paths
