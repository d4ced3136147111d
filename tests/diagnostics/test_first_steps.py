"""First steps so long that nothing of the initialization is left: what tells them, and what does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.store import Finding, Recommendation

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
    assert advice.proposed == pytest.approx(0.0015)  # 0.02 × 3 % / 40 %
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
    assert (advice.parameter, advice.proposed) == ("lr", pytest.approx(0.003))
    assert adam_from(0.21, learns) != []
    assert adam_from(0.14, learns) == []
    assert adam_from(0.3, falling(300, 4.5, 0.2)) == []  # it did no harm
    assert adam_from(math.nan, learns) == []
    single = [{"name": "weight", "kind": "weight", "layer": "a"}]
    assert adam_from(0.3, learns, parameters=single) == []


def test_a_loss_thrown_up_a_hundredfold_tells_of_steps_that_later_ones_do_not_equal() -> None:
    def thrown(top: float) -> list[Finding]:
        made = Made("lr_too_high", optimizers=[RMSPROP], classes=10)
        losses = np.concatenate([[2.3, 2.2, top, top, top / 2], falling(300, 3.0, 0.9)])
        made.add("train", train(losses, lr=0.02))
        # of RMSprop only the first steps are as long: the tenth of it in the long run
        layers = {"update_sq": {"a": [0.6, 0.9]}, "weight_sq": {"a": [1.0, 1.0]}}
        layers = {name: {"a": row["a"], "b": row["a"]} for name, row in layers.items()}
        made.add("gradients", {}, [1, 2], layers)
        return made.judge()

    assert [item.rule for item in thrown(4000.0)] == ["lr_too_high"]
    assert thrown(4.0) == []


@pytest.mark.parametrize(("gradient", "fires"), [(0.0, True), (1e-6, False)])
def test_a_net_that_no_gradient_comes_back_through_was_killed_by_its_steps(
    gradient: float, fires: bool
) -> None:
    made = Made("lr_too_high", optimizers=[{"name": "SGD", "lr": 1.0, "momentum": 0.9}])
    swings = 0.03 * np.sin(np.arange(400) / 12)  # it seems to fall, every now and then
    made.add("train", train(0.45 + swings + 0.03 * np.random.default_rng(0).standard_normal(400)))
    names = ("a", "b", "c", "d")
    layers = {
        "update_sq": {name: [0.0015**2, 0.0, 0.0] for name in names},
        "weight_sq": {name: [1.0] * 3 for name in names},
        "grad_sq": {name: [0.01, gradient, gradient] for name in names[:3]} | {"d": [0.01] * 3},
    }
    made.add("gradients", {}, [1, 240, 241], layers)
    assert bool(made.judge()) is fires


def test_of_plain_gradients_layers_that_stand_still_have_a_gradient_that_fades() -> None:
    made = Made("lr_too_high", optimizers=[{"name": "SGD", "lr": 0.05}])
    made.add("train", train(2.3 + 0.02 * np.random.default_rng(0).standard_normal(600)))
    steps = {"first": 0.0, "middle": 0.0, "last": 0.015**2}
    layers = {"update_sq": {name: [size] for name, size in steps.items()}}
    made.add("gradients", {}, [1], {**layers, "weight_sq": {name: [1.0] for name in steps}})
    assert made.judge() == []


def drawn_by(std: float) -> dict[str, list[float]]:
    """Return what the initialization probe tells of a layer of 50 inputs whose weights have this deviation."""
    told = {"forward_gain": 1.0, "backward_gain": 1.0, "weight_std": std, "xavier_std": 0.14}
    return {name: [value] for name, value in {**told, "he_std": 0.2}.items()}


@pytest.mark.parametrize("rule", ["lr_too_high", "missing_warmup"])
@pytest.mark.parametrize(("std", "fires"), [(0.08, True), (0.04, True), (0.006, False)])
def test_a_first_step_is_long_beside_weights_as_they_are_usually_drawn(
    rule: str, std: float, fires: bool
) -> None:
    """Weights that only may be positive, or that begin with next to no part, are drawn far smaller."""
    made = Made(rule, optimizers=[{**ADAM, "lr": 0.003}])
    layers = {name: {"a": value, "b": value} for name, value in drawn_by(std).items()}
    made.add("initialization", {"loss_ratio": [1.0], "initial_loss": [0.8]}, [1], layers)
    stands = np.concatenate([falling(60, 0.8, 0.45), np.full(300, 0.42)])
    made.add("train", train(stands + 0.01 * np.sin(np.arange(360)), lr=0.003))
    square = 0.4**2 / (1 + 0.4**2)
    steps = {"update_sq": {"a": [square], "b": [square]}, "weight_sq": {"a": [1.0], "b": [1.0]}}
    made.add("gradients", {}, [1], steps)
    assert bool(made.judge()) == fires


@pytest.mark.parametrize(("optimizer", "fires"), [(RMSPROP, False), ({**ADAM, "lr": 0.02}, True)])
def test_the_first_steps_of_rmsprop_are_no_longer_than_its_rate_makes_them_later(
    optimizer: dict[str, object], fires: bool
) -> None:
    made = Made("lr_too_high", optimizers=[optimizer], classes=2)
    losses = np.concatenate([[0.55, 2.9, 2.2, 1.6, 1.2], np.full(95, 0.58)])
    made.add("train", train(losses + 0.004 * np.sin(np.arange(100)), lr=0.02))
    row = {"a": [0.036, 0.0001], "b": [0.036, 0.0001]}  # a step of 19 % of the weights, then of one
    made.add(
        "gradients", {}, [1, 50], {"update_sq": row, "weight_sq": {"a": [1.0] * 2, "b": [1.0] * 2}}
    )
    assert bool(made.judge()) == fires


def leaping(first: float, **meta: object) -> Recommendation:
    """Return what is advised where the loss leaps behind a first step of such a share of the weights."""
    losses = falling(300)
    losses[5:20] = 6.0
    (finding,) = adam_from(first, losses, **meta)
    assert finding.recommendation is not None
    return finding.recommendation


def test_a_warm_up_is_advised_only_where_steps_are_sound_behind_it() -> None:
    sound = leaping(0.07)
    assert (sound.parameter, sound.proposed) == ("warmup_steps", 2000)
    long = leaping(0.3)  # later steps are as long
    assert (long.parameter, long.proposed) == ("lr", pytest.approx(0.003))


def test_a_warm_up_lasts_for_a_twentieth_of_the_run_at_most() -> None:
    advice = leaping(0.07, max_steps=10_000)
    assert advice.proposed == 500  # 2 / (1 - 0.999) is more
    assert '"interval": "step"' in advice.snippet
