"""A trace: everything that a peer's rule may ask for, at every step of one run of the fault bench."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
VALIDATE_EVERY = 10
"""Steps between two validations of a trace: ten times as often as a run needs, for rules that ask."""
FIRST_STEPS = 10
"""Steps at whose tensors rules about the initialization look."""


@dataclass(frozen=True)
class Trace:
    """One run as its own dense logger saw it; arrays of T steps, L weights, A activations.

    `series` (T): loss, lr, grad_norm (before clipping), val_loss, val_accuracy, train_accuracy,
    step_seconds, data_seconds. `weights` (T, L) of the tensors of two dimensions and more, in the
    order of the model: grad_abs_mean, grad_norm, grad_zeros (share of entries), grad_spread (95th
    less 5th percentile), weight_norm, update_norm. `activations` (T, A) of the modules in `kinds`:
    inactive (share of units active in under 1 % of a batch), input_variance. `labels` and `wrong`
    (T, C): how many of each class a step had, and how many of them it got wrong. What was not
    measured is NaN.
    """

    series: Mapping[str, Floats]
    layers: tuple[str, ...] = ()
    weights: Mapping[str, Floats] | None = None
    kinds: tuple[str, ...] = ()
    activations: Mapping[str, Floats] | None = None
    labels: Floats | None = None
    wrong: Floats | None = None
    epoch_steps: int = 1

    def __post_init__(self) -> None:
        lengths = {len(values) for values in self.series.values()}
        if len(lengths) != 1:
            raise ValueError(f"the series of a trace are of one length, got {sorted(lengths)}")

    @property
    def steps(self) -> int:
        return len(self.series["loss"])

    def get(self, name: str) -> Floats:
        """Return a series; NaN throughout where the run has none."""
        found = self.series.get(name)
        return np.full(self.steps, math.nan) if found is None else found

    def weight(self, name: str) -> Floats:
        """Return a quantity of the weights, (T, L)."""
        found = None if self.weights is None else self.weights.get(name)
        return np.full((self.steps, 0), math.nan) if found is None else found

    def activation(self, name: str, kind: str) -> Floats:
        """Return a quantity of the activations of one kind, (T, A of that kind)."""
        found = None if self.activations is None else self.activations.get(name)
        columns = [number for number, one in enumerate(self.kinds) if one == kind]
        return np.full((self.steps, 0), math.nan) if found is None else found[:, columns]


def save(trace: Trace, path: Path) -> None:
    """Write a trace into one file, whole or not at all."""
    arrays = {f"series/{name}": values for name, values in trace.series.items()}
    arrays |= {f"weights/{name}": values for name, values in (trace.weights or {}).items()}
    arrays |= {f"activations/{name}": values for name, values in (trace.activations or {}).items()}
    if trace.labels is not None and trace.wrong is not None:
        arrays |= {"labels": trace.labels, "wrong": trace.wrong}
    about = {"layers": trace.layers, "kinds": trace.kinds, "epoch_steps": trace.epoch_steps}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.part.npz")
    # float32 as frames have it; the type checker takes the names for keywords of savez itself
    narrow: dict[str, Any] = {name: values.astype(np.float32) for name, values in arrays.items()}
    np.savez_compressed(part, about=np.array(json.dumps(about)), **narrow)
    part.replace(path)


def load(path: Path) -> Trace:
    """Read a trace back."""
    parts: dict[str, dict[str, Floats]] = {"series": {}, "weights": {}, "activations": {}, "": {}}
    with np.load(path, allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        for name in file.files:
            if name != "about":
                group, _, key = name.rpartition("/")
                parts[group][key] = file[name].astype(np.float64)
    return Trace(
        parts["series"],
        layers=tuple(about["layers"]),
        weights=parts["weights"] or None,
        kinds=tuple(about["kinds"]),
        activations=parts["activations"] or None,
        labels=parts[""].get("labels"),
        wrong=parts[""].get("wrong"),
        epoch_steps=int(about["epoch_steps"]),
    )
