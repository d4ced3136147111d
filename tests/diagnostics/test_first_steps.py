"""First steps so long that nothing of the initialization is left: what tells them, and what does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.store import Finding

from .made import ADAM, Made, falling, train

RMSPROP = {"name": "RMSprop", "lr": 0.02}
RISES = [2.3, 2.4, 2.9, 3.2, 3.0, 2.8, 2.6, 2.5, 2.4, 2.4]


def behind_gates(steps: dict[str, float], learns: np.ndarray) -> list[Finding]:
    """Judge a run whose layers' first steps are so large shares of their weights, behind ten losses."""
    made = Made("lr_too_high", optimizers=[RMSPROP], classes=10)
    made.add("train", train(np.concatenate([RISES, learns]), lr=0.02))
    # of the weights behind the step
    squares = {name: [ratio**2 / (1 + ratio**2)] for name, ratio in steps.items()}
    layers = {"update_sq": squares, "weight_sq": {name: [1.0] for name in steps}}
    made.add("gradients", {}, [1], layers)
    return made.judge()


def test_layers_behind_a_share_of_zero_do_not_tell_how_long_a_first_step_was() -> None:
    gates = {f"block.{place}": 0.0 for place in range(6)}
    (finding,) = behind_gates({"first": 4.0, **gates, "last": 4.0}, falling(200, 2.2, 0.9))
    assert finding.rule == "lr_too_high"
    advice = finding.recommendation
    assert advice is not None
    assert advice.proposed == pytest.approx(0.001)  # 0.02 × 2 % / 40 %
    assert behind_gates({"first": 0.2, **gates, "last": 0.2}, falling(200, 2.2, 0.9)) == []
    assert behind_gates(gates, falling(200, 2.2, 0.9)) == []
    learned = 0.1 + 2.1 * np.exp(-np.arange(200) / 15)
    assert behind_gates({"first": 4.0, **gates, "last": 4.0}, learned) == []


def adam_from(first: float, losses: np.ndarray, **meta: object) -> list[Finding]:
    """Judge a run with Adam whose first step is such a share of the weights."""
    made = Made("missing_warmup", **{"optimizers": [{**ADAM, "lr": 0.03}], **meta})
    made.add("train", train(losses, lr=0.03))
    square = first**2 / (1 + first**2)
    layers = {"update_sq": {"a": [square], "b": [square]}, "weight_sq": {"a": [1.0], "b": [1.0]}}
    made.add("gradients", {}, [1], layers)
    return made.judge()


def test_a_first_step_of_a_third_of_the_weights_is_told_although_the_loss_falls() -> None:
    learns = falling(300, 4.5, 2.0)
    (finding,) = adam_from(0.3, learns)
    assert finding.severity == "info"
    advice = finding.recommendation
    assert advice is not None
    assert (advice.parameter, advice.proposed) == ("lr", pytest.approx(0.002))
    assert adam_from(0.09, learns) == []
    assert adam_from(0.3, falling(300, 4.5, 0.2)) == []  # it did no harm
    assert adam_from(math.nan, learns) == []
    single = [{"name": "weight", "kind": "weight", "layer": "a"}]
    assert adam_from(0.3, learns, parameters=single) == []
