"""As drawn: how a net's weights began, and what they do to the signal and to its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .initialization import PLAIN, can_be_drawn
from .rule import Context
from .windows import KEPT_STEPS, Window

COLUMNS = ("forward_gain", "backward_gain", "weight_std", "xavier_std", "he_std")
EXPLAINED = 0.5
"""Share of what a layer's deviation lets through beyond which its gain is not the weights' doing."""
DEEP = 4
"""Layers over which a deviation that is too large adds up; a net of fewer soon makes up for it."""


@dataclass(frozen=True)
class Drawn:
    """How the layers were drawn, [layers], NaN where it was not seen."""

    layers: tuple[str, ...]
    forward: np.ndarray
    backward: np.ndarray
    std: np.ndarray
    xavier: np.ndarray
    he: np.ndarray
    ratio: float
    rectifies: bool
    drawn: set[str]
    """The layers that can be drawn anew."""
    plain: set[str]
    """Those of them that multiply by their weights as these are, as far as their class tells."""
    own: float
    """Square of the largest outputs of a layer over the first loss; NaN where it is not known."""

    @classmethod
    def of(cls, window: Window, context: Context) -> Drawn | None:
        """Read the first step, which windows that began anew since then do not hold any more."""
        history, after = window.history, max(context.start, window.step - KEPT_STEPS)
        read = [history.layers("initialization", name, after, window.step) for name in COLUMNS]
        if not len(read[0]):
            return None
        ratio = history.column("initialization", "loss_ratio", after, window.step)
        sizes = history.layers("initialization", "rms", after, window.step)
        loss = history.column("initialization", "initial_loss", after, window.step)
        table = history.tables.get("activations")
        rectifies = table is not None and bool(table.of_layers("dead", None)[1])

        def made() -> Drawn | None:
            if len({found.layers for found in read}) > 1:
                return None
            forward, backward, std, xavier, he = (found.values[0] for found in read)
            first = float(ratio.values[0]) if len(ratio) else math.nan
            drawn = can_be_drawn(context)
            largest = float(np.fmax.reduce(sizes.values[:1].flatten(), initial=math.nan))
            own = (
                largest**2 / float(loss.values[0]) if len(loss) and loss.values[0] > 0 else math.nan
            )
            layers = read[0].layers
            plain = drawn - _of_own_making(context)
            return cls(
                layers, forward, backward, std, xavier, he, first, rectifies, drawn, plain, own
            )

        known = (context.meta, *read, ratio, sizes, loss, rectifies)
        return history.once("bad_initialization", known, made)

    @cached_property
    def grows(self) -> float:
        """The whole net's gain in energy."""
        return math.exp(logs_of(self.forward).sum())

    @cached_property
    def over(self) -> float:
        """How many times what keeps the signal the median layer was drawn with, of so many that it adds up."""
        return self.times if self.counted >= DEEP else math.nan

    @cached_property
    def times(self) -> float:
        """The same of however many layers; NaN where none can be drawn anew."""
        return float(np.median(self._times)) if self.counted else math.nan

    @property
    def counted(self) -> int:
        """How many layers can be drawn anew, and tell what keeps the signal."""
        return len(self._times)

    @cached_property
    def _times(self) -> np.ndarray:
        drawn = np.array([layer in self.plain for layer in self.layers])
        keeps = self.he if self.rectifies else self.he / math.sqrt(2)
        with np.errstate(invalid="ignore", divide="ignore"):
            times = (self.std / keeps)[drawn]
        return times[np.isfinite(times)]

    @cached_property
    def returns(self) -> float:
        """What the gradient's energy is multiplied by on its way from the last layer to the first."""
        return math.exp(np.clip(logs_of(self.backward[1:]).sum(), -200, 200))

    @cached_property
    def fades(self) -> float:
        """What is left of the energy, forth or back, over all but the last layer.

        No layer takes more than its weights explain: a mean over places shrinks each one's gradient, too.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            own = EXPLAINED * (self.std / self.he) ** 2
        forward = logs_of(np.where(own > self.forward, own, self.forward)[:-1])
        backward = logs_of(np.where(own > self.backward, own, self.backward)[1:-1])
        return math.exp(min(forward.sum(), backward.sum()))

    @cached_property
    def forth(self) -> float:
        """What is left of the signal's energy over all but the last layer, by their weights alone."""
        with np.errstate(invalid="ignore"):
            own = EXPLAINED * (self.std / self.he) ** 2
        forward = np.where(own > self.forward, own, self.forward)[:-1]
        return math.exp(logs_of(forward).sum())

    @cached_property
    def slope(self) -> float:
        """The activations' part of the backward gain, against that of a ReLU."""
        with np.errstate(invalid="ignore", divide="ignore"):
            part = self.backward / (self.std / self.he) ** 2
        part = part[1:-1][np.isfinite(part[1:-1])]
        return float(np.median(part)) if len(part) else math.nan


def _of_own_making(context: Context) -> set[str]:
    """Return the layers of a class that torch has not: some scale their weights whenever they are used."""
    return context.once(
        "of own making",
        lambda: {
            str(row.get("layer"))
            for row in context.meta.parameters
            if "module" in row and str(row["module"]) not in PLAIN
        },
    )


def logs_of(gains: np.ndarray) -> np.ndarray:
    """Return the logarithms of the gains that are known; [0.0] where none is."""
    known = gains[np.isfinite(gains) & (gains > 0)]
    return np.clip(np.log(known), -200, 200) if len(known) else np.zeros(1)
