"""The three obstacles: non-linearity, conditioning and noise, as far as they were measured.

What was read of each stands in the state, not in the windows: a curvature sample every few
thousand steps would else be forgotten between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..store import Event, Meta
from ..store.schemas import Json
from .noise import Noise
from .readings import RECENT, measured, not_measured
from .windows import History
from .words import number, percent

KEPT = 15
"""Readings of a quantity that are kept: three times what a median is taken over."""
LARGEST_HORIZON = 16
"""Steps ahead that the longest scan looks."""

READ = {
    "horizon": ("landscape", "horizon"),
    "newton_gain": ("curvature", "newton_gain"),
    "preconditioned_newton_gain": ("curvature", "preconditioned_newton_gain"),
}
FAMILIES = {"non_linearity": "landscape", "conditioning": "curvature", "noise": "noise"}
NAMES = {"non_linearity": "non-linearity", "conditioning": "conditioning", "noise": "noise"}
TOLD_OFF = {"non_linearity": "landscape", "conditioning": "curvature", "noise": "noise"}
"""What the probe of each obstacle is called where it is switched off."""


@dataclass(slots=True)
class Obstacles:
    """What was read of the three obstacles, as scalars of the fold's state.

    `readings`: [step, value] by quantity, the last ones. `noise`: see there. `tries`: samples of
    each family, also those that told nothing. `off`: why a probe was switched off.
    """

    readings: dict[str, list[list[float]]] = field(default_factory=dict)
    noise: Noise = field(default_factory=Noise)
    tries: dict[str, int] = field(default_factory=dict)
    off: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the readings as a JSON object."""
        held = {name: getattr(self, name) for name in ("readings", "tries", "off")}
        return {**held, "noise": self.noise.to_json()}

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Obstacles:
        """Read what `to_json` wrote; an older state has less of it."""
        held = {name: body[name] for name in ("readings", "tries", "off") if name in body}
        return cls(noise=Noise.from_json(body.get("noise") or {}), **held)

    def begin_attempt(self, first_step: int) -> None:
        """Let go of what the new attempt does again."""
        self.off.clear()
        self.readings = {
            name: [reading for reading in kept if reading[0] < first_step]
            for name, kept in self.readings.items()
        }
        self.noise = Noise(batch=self.noise.batch)

    def heed(self, event: Event) -> None:
        """Note why a probe was switched off."""
        if event.kind == "probe_off":
            self.off[str(event.body.get("probe"))] = str(event.body.get("why") or "it failed")

    def why_off(self, probe: str) -> str | None:
        """Return why a probe was switched off, by a part of its name; None where it was not."""
        return next((why for name, why in self.off.items() if probe in name.lower()), None)

    def learn(self, history: History, before: int, step: int) -> None:
        """Take in what came with `before` < step <= the point."""
        for name, (family, column) in READ.items():
            kept = self.readings.setdefault(name, [])
            if not history.count(family, before, step):
                continue
            new = history.largest(family, column, before, step).finite
            kept += [list(row) for row in zip(new.steps.tolist(), new.values.tolist(), strict=True)]
            del kept[:-KEPT]
        for family in FAMILIES.values():
            self.tries[family] = self.tries.get(family, 0) + history.count(family, before, step)
        self.noise.learn(history, before, step)

    def panel(self, meta: Meta, *, ended: bool = False) -> dict[str, Json]:
        """Return the panel's JSON: each obstacle with value, trend, a sentence and its levers.

        `ended`: whether the run is over, so that nothing is yet to come.
        """
        found = {
            "non_linearity": self._horizon(),
            "conditioning": self._conditioning(meta),
            "noise": self.noise.said(meta),
        }
        return {key: item or self._unknown(key, meta, ended) for key, item in found.items()}

    def _unknown(self, key: str, meta: Meta, ended: bool) -> dict[str, Json]:
        """Return why nothing is known of an obstacle, and which setting would measure it."""
        probe, family = TOLD_OFF[key], FAMILIES[key]
        why = self.why_off(probe)
        if why is not None:
            return not_measured(f"not measured, the {probe} probe is off: {why}")
        tries = self.tries.get(family, 0)
        if tries:
            times = "once" if tries == 1 else f"{tries:,} times"
            return not_measured(
                f"sampled {times}, without a result{'' if ended else ' so far'}", tries
            )
        words = "never measured" if ended else "not yet measured"
        if not meta.probes:
            return not_measured(words)
        if family not in meta.probes:
            return not_measured(
                f'not measured: the {probe} probe is not among those of this run; `probes="all"` adds it'
            )
        if ended:
            return not_measured(
                f"{words}: the run ended before a budget of {percent(meta.budget)} had paid for the "
                "first sample; a larger `budget` pays for it sooner"
            )
        return not_measured(
            f"{words}: the first sample comes once the budget of {percent(meta.budget)} pays for it"
        )

    def _horizon(self) -> dict[str, Json] | None:
        steps, values = self._of("horizon")
        if not len(values):
            return None
        value = float(np.median(values[-RECENT:]))
        if value < 1:
            sentence = (
                f"the loss is not what the slope and the curvature foretell beyond {number(value)} "
                "of a step: steps are too long"
            )
        elif value >= LARGEST_HORIZON:
            sentence = f"slope and curvature foretell the loss at least {number(value)} steps ahead"
        else:
            ahead = "1 step" if value == 1 else f"{number(value)} steps"
            sentence = f"slope and curvature foretell the loss {ahead} ahead"
        levers = ["a smaller learning rate", "a longer warm-up", "gradient clipping"]
        return measured(value, values, steps, sentence, levers)

    def _conditioning(self, meta: Meta) -> dict[str, Json] | None:
        steps, plain = self._of("newton_gain")
        own_steps, own = self._of("preconditioned_newton_gain")
        if not len(plain) and not len(own):
            return None
        optimizer = str((meta.optimizers[0] if meta.optimizers else {}).get("name") or "")
        left = float(np.median(own[-RECENT:])) if len(own) else None
        if not len(plain):
            steps, plain = own_steps, own
        value = float(np.median(plain[-RECENT:]))
        sentence = f"one curvature-aware step is worth {_steps(value)}"
        levers = ["normalization layers", "standardized inputs"]
        if left is None:
            levers.insert(0, "Adam or AdamW")
            if not (meta.optimizers[0] if meta.optimizers else {}).get("momentum"):
                levers.insert(1, "momentum")
        else:
            # not "saves": the two gains together did not rank what Adam saves (docs/trust.md)
            sentence += f"; {number(left)} as {optimizer or 'the optimizer'} scales the weights"
        found = measured(value, plain, steps, sentence, levers)
        return {**found, "preconditioned": left}

    def _of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        kept = np.array(self.readings.get(name, []), dtype=np.float64).reshape(-1, 2)
        return kept[:, 0], kept[:, 1]


def measured_of(panel: Mapping[str, Json], facts: Mapping[str, Json]) -> list[str]:
    """Return what was measured of a run, a few words each; `facts` as the fold's state has them.

    >>> measured_of({"conditioning": {"measured": True, "value": 28.0}}, {"lambda_last": 12.0})
    ['largest eigenvalue 12', 'conditioning 28']
    """
    found = []
    start, best = facts.get("loss_start"), facts.get("loss_best")
    if isinstance(start, (int, float)):
        lowest = (
            f", lowest {number(best)}" if isinstance(best, (int, float)) and best < start else ""
        )
        found.append(f"loss {number(start)} at first{lowest}")
    top = facts.get("lambda_last")
    if isinstance(top, (int, float)):
        found.append(f"largest eigenvalue {number(top)}")
    for key, item in panel.items():
        if not item.get("measured"):
            continue
        if key == "noise":
            found.append(f"noise {percent(float(item['share']))} of a step")
        elif key == "conditioning":
            found.append(f"conditioning {number(float(item['value']))}")
        else:
            found.append(f"horizon {number(float(item['value']))} steps")
    return found


def _steps(value: float) -> str:
    return (
        "1 plain gradient step" if number(value) == "1" else f"{number(value)} plain gradient steps"
    )
