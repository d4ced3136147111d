"""The settings of a Lightning Trainer that a script may change in the middle of a fit."""

from __future__ import annotations

from typing import Any

from .recorder import Recorder

CHANGEABLE = ("gradient_clip_val", "accumulate_grad_batches")
"""Attributes of a Trainer that it reads anew in every step; schedulers and callbacks set them."""


class Settings:
    """Remembers what they were, so that whoever watches learns from which step on they are others."""

    def __init__(self) -> None:
        self._known: tuple[Any, ...] = ()

    def begin(self, trainer: Any) -> None:
        """Take the values that the run has told of itself."""
        self._known = _now(trainer)

    def tell(self, trainer: Any, recorder: Recorder) -> None:
        """Tell a recorder of those that have other values from the coming step on.

        Called before every step: 0.2 µs, as it only reads two attributes.
        """
        now = _now(trainer)
        if now == self._known:
            return
        before, self._known = self._known, now
        for name, old, new in zip(CHANGEABLE, before, now, strict=False):
            if old != new:
                recorder.event("action", {"parameter": name, "from": old, "to": new})


def _now(trainer: Any) -> tuple[Any, ...]:
    return trainer.gradient_clip_val, trainer.accumulate_grad_batches
