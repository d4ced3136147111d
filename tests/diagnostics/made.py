"""Made windows: columns of any family written step by step, judged by one rule without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.rule import Verdict
from otoscope.diagnostics.rules import RULES
from otoscope.store import Column, Event, Finding, Frame, Meta, Schema

ADAM = {"name": "Adam", "lr": 1e-3, "betas": [0.9, 0.999]}
SGD = {"name": "SGD", "lr": 0.1, "momentum": 0.0}


class Made:
    """A run being judged by rules alone: `add` writes a family's samples, `judge` goes on."""

    def __init__(self, *rules: str, **meta: Any) -> None:
        chosen = [rule for rule in RULES if rule.id in rules]
        told = Meta(**{"optimizers": [SGD], "batch_size": 64, **meta})
        self.fold = Fold("made-01", told, {}, rules=chosen)
        self.rules = chosen
        self.step = 0

    def add(
        self,
        family: str,
        values: Mapping[str, Sequence[float] | np.ndarray],
        steps: Sequence[int] | None = None,
        layers: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    ) -> None:
        """Write columns of one length, and quantities per layer, at `steps`; at 1, 2, … where None."""
        layered = layers or {}
        columns = [Column.of(name, ranks="mean") for name in values]
        columns += [
            Column.of(name, layer=layer, group="weight")
            for name in layered
            for layer in layered[name]
        ]
        schema = Schema(family, tuple(columns))
        self.fold.schemas[schema.hash] = schema
        parts = [*values.values(), *(row for name in layered for row in layered[name].values())]
        rows = np.stack([np.asarray(part, dtype=np.float64) for part in parts], axis=1)
        at = range(1, len(rows) + 1) if steps is None else steps
        self.fold.push(
            [
                Frame(family, 0, 1, step, 1e9 + step, schema.hash, row.astype(np.float32))
                for step, row in zip(at, rows, strict=True)
            ]
        )
        if family == "train":
            self.step = max(self.step, *at)

    def judge(self, **ending: Any) -> list[Finding]:
        """Judge all that was written, as of a run that has ended."""
        event = Event("finished", step=self.step, body={"reason": "done"}, id="end")
        self.fold.push(events=[event])
        self.fold.judge()
        return self.fold.findings()

    def why(self, rule: str) -> str:
        """Return why a rule was not judged."""
        return self.fold.coverage()[1][rule]

    def judged(self, rule: str) -> bool:
        """Tell whether a rule could judge."""
        return rule in self.fold.coverage()[0]


def train(losses: Sequence[float] | np.ndarray, lr: float = 0.1, **more: Any) -> dict[str, Any]:
    """Return the columns of `train`: the loss, a constant rate, and what is given besides."""
    n = len(losses)
    whole = {name: np.broadcast_to(value, n) for name, value in more.items()}
    return {"loss": losses, "lr": np.full(n, lr), "samples": np.full(n, 64.0), **whole}


def falling(n: int, begin: float = 2.3, end: float = 0.3, noise: float = 0.05) -> np.ndarray:
    """Return losses that fall as a healthy run's, with the noise of batches."""
    draw = np.random.default_rng(0)
    return end + (begin - end) * np.exp(-np.arange(n) / 80) + noise * draw.standard_normal(n) ** 2


def flat(n: int, at: float = 2.3, noise: float = 0.05) -> np.ndarray:
    """Return losses that stand still, with the noise of batches."""
    return at + noise * np.random.default_rng(1).standard_normal(n)


__all__ = ["ADAM", "SGD", "Made", "Verdict", "falling", "flat", "train"]
