"""Noise as an obstacle: what of a step is noise, from squared gradient norms at two batch sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..store import Meta
from ..store.noise import NoiseEstimate, NoiseScaleEstimator
from ..store.schemas import Json
from .readings import not_measured, trend
from .windows import History
from .words import count, number, percent

COLUMNS = ("small_sq", "big_sq", "small", "big")
KEPT = 16
"""Noise scales that are kept of the whole run, evenly: twice as many are thinned to these."""
SMALL = 0.1
"""Share of a step that is noise under which the batch is larger than needed."""


@dataclass(slots=True)
class Noise:
    """The noise of an attempt so far: the estimator's sums, and the batch it is held against.

    `scales`: [step, noise scale] over the run. `batch`: samples in a step.
    """

    estimator: NoiseScaleEstimator = field(default_factory=NoiseScaleEstimator)
    scales: list[list[float]] = field(default_factory=list)
    batch: float | None = None
    step: int = 0

    def to_json(self) -> dict[str, Json]:
        """Return the sums as a JSON object."""
        held = {name: getattr(self, name) for name in ("scales", "batch", "step")}
        return {**held, "estimator": self.estimator.state()}

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Noise:
        """Read what `to_json` wrote; nothing gives a fresh one."""
        held = {name: body[name] for name in ("scales", "batch", "step") if name in body}
        if "estimator" in body:
            held["estimator"] = NoiseScaleEstimator.restored(body["estimator"])
        return cls(**held)

    def learn(self, history: History, before: int, step: int) -> None:
        """Take in what came with `before` < step <= the point."""
        samples = history.column("train", "samples", before, step).finite
        if len(samples) and samples.median > 0:
            self.batch = samples.median
        if not history.count("noise", before, step):
            return
        columns = [history.column("noise", name, before, step) for name in COLUMNS]
        if not all(
            len(column) for column in columns
        ):  # a probe of one's own may be called noise too
            return
        for row in zip(*(column.values.tolist() for column in columns), strict=True):
            self.estimator.update(*row)
        self.step = int(columns[0].steps[-1])
        scale = self.estimator.estimate().scale
        if math.isfinite(scale):
            self.scales.append([self.step, scale])
            if len(self.scales) > 2 * KEPT:
                self.scales = self.scales[1::2]

    def said(self, meta: Meta) -> dict[str, Json] | None:
        """Return the obstacle's JSON; None where nothing was sampled.

        `value`: 1 + noise scale / batch, the steps that one step without noise takes; `share` of a
        step that is noise; `scale` the noise scale itself in samples; `batch` that of a step.
        """
        samples = self.estimator.samples
        if not samples or not self.batch:
            return None
        found = self.estimator.estimate()
        if not math.isfinite(found.scale):
            return not_measured(_undetermined(found, samples), samples)
        factor, low, high = (1 + x / self.batch for x in (found.scale, found.low, found.high))
        share = 1 - 1 / factor
        batch = count(round(self.batch), "sample")
        if share < SMALL:
            sentence = (
                f"{percent(share)} of a step is noise: the batch of {batch} is larger than needed"
            )
        else:
            sentence = (
                f"{percent(share)} of a step is noise: with {batch} in a batch it takes "
                f"{number(factor)} steps where one without noise would do"
            )
        return {
            "value": factor,
            "low": low,
            "high": high,
            "trend": trend(np.array([scale for _, scale in self.scales])),
            "sentence": sentence,
            "levers": ["a larger batch", "gradient accumulation", "a learning rate that decays"],
            "measured": True,
            "step": self.step,
            "samples": samples,
            "share": share,
            "scale": found.scale,
            "batch": self.batch,
        }


def _undetermined(found: NoiseEstimate, samples: int) -> str:
    times = "one sample" if samples == 1 else f"{samples:,} samples"
    if found.gradient_sq > 0:
        why = "the gradient cannot be told from its noise with confidence"
    else:
        why = "the noise drowns the gradient"
    return f"undetermined after {times}: {why}"
