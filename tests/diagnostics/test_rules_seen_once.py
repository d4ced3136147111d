"""What one sample, or none, is enough to tell: and what looks like it and is all right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.store import Event
from torch import nn

from . import made
from .lab import mlp
from .told import Made, named, rules_of, trained

Rows = dict[str, dict[str, dict[int, float]]]
BATCH_NORM = {
    "name": "1.weight", "layer": "1", "kind": "norm", "module": "BatchNorm1d", "ndim": 1,
    "numel": 12, "momentum": 5e-4, "fresh": True,
}  # fmt: skip


# ---- dead units ----------------------------------------------------------------------------------


def below(value: float) -> nn.Sequential:
    torch.manual_seed(0)
    net = mlp((32, 32, 32))
    with torch.no_grad():
        for layer in (2, 4):
            net[layer].bias.fill_(value)  # type: ignore[union-attr]
    return net


def test_layers_that_nothing_leaves_are_named_before_512_rows_were_seen(tmp_path: Path) -> None:
    net = below(-5.0)
    judged = trained(tmp_path, net, torch.optim.SGD(net.parameters(), 0.1), steps=30, batch=16)
    finding = named(judged, "dead_units")
    assert finding["layers"] == ["3", "5"]
    assert set(finding["recommendation"]["proposed"]) == {"0", "2", "4"}
    sound = below(-0.1)
    again = trained(
        tmp_path / "b", sound, torch.optim.SGD(sound.parameters(), 0.1), steps=30, batch=16
    )
    assert "dead_units" not in rules_of(again)


def silent(gradients: dict[str, list[float]], means: dict[str, float], moved: float = 1.0) -> Rows:
    steps = (1, 5)
    layers: dict[str, dict[int, float]] = {}
    for name, values in gradients.items():
        layers[f"grad_sq/{name}"] = dict(zip(steps, values, strict=False))
        layers[f"update_sq/{name}"] = dict.fromkeys(steps[: len(values)], moved)
    outputs: dict[str, dict[int, float]] = {}
    for name, mean in means.items():
        outputs |= {
            f"numel/{name}": {1: 100.0},
            f"sum/{name}": {1: 100 * mean},
            f"sum_sq/{name}": {1: 100 * (mean**2 + 0.01)},
        }
        outputs |= {f"samples/{name}.relu": {1: 32.0}, f"units/{name}.relu": {1: 32.0}}
        outputs |= {f"dead/{name}.relu": {1: np.nan}}
    return {"gradients": layers, "activations": outputs}


DARK = {"a": [0.0, 0.0], "b": [0.0, 0.0], "c": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("gradients", "means", "moved", "layers"),
    [
        (DARK, {"a": 0.0, "b": -4.0}, 1.0, ("b.relu",)),  # what lies before it hears nothing, and fires
        (DARK, {"a": 0.0, "b": 0.0}, 1.0, ()),  # something else keeps the gradient back
        (DARK, {"a": 0.0, "b": -4.0}, 0.0, ()),  # last weights of zero that have not moved yet
        ({**DARK, "b": [0.0, 1e-9]}, {"a": 0.0, "b": -4.0}, 1.0, ()),
        ({"a": [0.0], "b": [0.0], "c": [1.0]}, {"a": 0.0, "b": -4.0}, 1.0, ()),  # one sample
    ],
)  # fmt: skip
def test_a_silent_layer_has_outputs_far_under_zero_and_no_gradient(
    gradients: dict[str, list[float]],
    means: dict[str, float],
    moved: float,
    layers: tuple[str, ...],
) -> None:
    found = Made("dead_units", silent(gradients, means, moved)).finding
    assert (tuple(found.layers) if found else ()) == layers


def test_a_net_of_which_nothing_was_ever_heard_is_dead_where_its_outputs_lie_far_under_zero() -> (
    None
):
    dark = {layer: [0.0, 0.0] for layer in "abc"}
    for norms, means, layers in (
        ({1: 0.0, 5: 0.0}, {"a": -4.0, "b": -3.0}, ("a.relu", "b.relu")),
        ({1: 0.0, 5: 0.0}, {"a": 0.3, "b": 0.3}, ()),  # they fire: it is the loss that says nothing
        ({1: 0.0, 3: 2.0, 5: 0.0}, {"a": -4.0, "b": -3.0}, ()),  # it was heard of between
    ):
        every = {
            name: dict.fromkeys(range(1, 301), value)
            for name, value in (("loss", 2.0), ("lr", 0.1))
        }
        families = {**silent(dark, means), "train": {**every, "grad_sq": norms}}
        found = Made("dead_units", families).finding
        assert (tuple(found.layers) if found else ()) == layers


# ---- the head ------------------------------------------------------------------------------------


HEAD = (
    "probability_rows", "as_logits", "as_probabilities", "predicted_entropy", "label_entropy",
    "never_predicted", "rows", "in_eval",
)  # fmt: skip


def head(steps: tuple[int, ...], **columns: float) -> Rows:
    whole = {**dict.fromkeys(HEAD, np.nan), **columns}
    return {"head": {name: dict.fromkeys(steps, value) for name, value in whole.items()}}


@pytest.mark.parametrize(
    ("as_logits", "as_probabilities", "fires"),
    [(1.0, 1.03, True), (1.03, 1.0, False), (1.0, 1.0002, False), (1.0005, 1.03, False)],
)
def test_one_batch_tells_a_softmax_that_is_taken_twice(
    as_logits: float, as_probabilities: float, fires: bool
) -> None:
    told = head(
        (3,), probability_rows=1.0, as_logits=as_logits, as_probabilities=as_probabilities,
        label_entropy=2.3,
    )  # fmt: skip
    assert (Made("wrong_head", told).finding is not None) == fires


SHARES = {"class_share_0": 0.94, "class_share_1": 0.03, "class_share_2": 0.03}
FIRST = {
    "as_logits": 1.0, "predicted_entropy": 0.0, "label_entropy": 0.27, "never_predicted": 2.0,
    "rows": 512.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "changed", "fires"),
    [
        (0.27, {}, True),
        (0.1, {}, False),
        (0.27, {"predicted_entropy": 0.2}, False),
        (0.27, {"as_logits": 0.7}, False),
    ],
    ids=["at the entropy", "far under it", "several were named", "another loss"],
)
def test_a_loss_at_the_entropy_of_uneven_labels_names_the_frequent_class_alone(
    loss: float, changed: dict[str, float], fires: bool
) -> None:
    told = head((3, 4), **{**FIRST, **changed}, **SHARES)
    run = Made("wrong_head", told, steps=400, loss=lambda s: loss + 0.8 * 0.9**s)
    assert (run.finding is not None) == fires
    if fires:
        assert run.advice.parameter == "class_weights"


def test_two_classes_of_which_one_is_rare_are_left_alone_without_a_look() -> None:
    two = {"class_share_0": 0.94, "class_share_1": 0.06}
    told = head((3, 4), **FIRST, **two)
    assert Made("wrong_head", told, steps=400, loss=lambda s: 0.27).finding is None


def test_a_head_that_is_not_looked_at_is_not_judged_although_its_modes_are() -> None:
    off = Event("probe_off", step=1, body={"probe": "head", "why": "it is compiled"}, id="off")
    modes: dict[str, dict[int, float]] = {
        name: dict.fromkeys((300, 400), 1.0) for name in ("train_loss", "eval_loss")
    }
    run = Made("wrong_head", {"modes": modes}, steps=500, events=[off])
    assert run.finding is None
    assert "it is compiled" in run.why


# ---- batch norms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "max_steps", "validated", "fires"),
    [
        ({}, 600, None, True),
        ({}, 600, 2.3, True),
        ({}, 600, 1.05, False),  # validation sees the same net
        ({"momentum": 0.1}, 600, None, False),
        ({"momentum": None}, 600, None, False),
        ({"fresh": False}, 600, None, False),  # it goes on from moments that were gathered
        ({}, 100_000, None, False),
        ({}, None, None, False),
    ],
)
def test_running_moments_that_never_arrive_are_told_by_their_momentum(
    changed: dict[str, Any], max_steps: int | None, validated: float | None, fires: bool
) -> None:
    told: Rows = {}
    if validated is not None:
        told["validation"] = {"val_loss": dict.fromkeys((50, 100, 150), validated)}
    run = Made(
        "wrong_head", told, steps=200, loss=lambda s: 1.0, max_steps=max_steps,
        parameters=[{**BATCH_NORM, **changed}],
    )  # fmt: skip
    assert (run.finding is not None) == fires
    if fires:
        assert run.advice.proposed == {"1": {"kind": "BatchNorm", "momentum": 0.1}}


@pytest.mark.parametrize(("fresh", "task", "fires"), [(True, "supervised", True), (False, "supervised", False), (True, "finetune", False)])  # fmt: skip
def test_batch_norms_in_eval_mode_that_never_saw_a_batch_normalize_nothing(
    fresh: bool, task: str, fires: bool
) -> None:
    norm = {**BATCH_NORM, "momentum": 0.1, "fresh": fresh}
    run = Made("wrong_head", head((3, 4), in_eval=1.0), parameters=[norm], task=task)
    assert (run.finding is not None) == fires


def test_one_look_at_eval_mode_is_enough_where_validation_bears_it_out() -> None:
    modes = {"train_loss": {260: 0.8}, "eval_loss": {260: 2.2}}
    known: Rows = {"modes": modes, "validation": {"val_loss": {200: 2.2, 250: 2.1}}}
    norm = {**BATCH_NORM, "momentum": 0.1}
    how: dict[str, Any] = {"loss": lambda s: 0.8 + 1.5 * 0.98**s, "parameters": [norm]}
    run = Made("wrong_head", known, **how)
    assert run.advice.proposed == {"1": "GroupNorm"}
    assert "GroupNorm(6, 12)" in run.advice.snippet
    known["validation"] = {"val_loss": {200: 0.9, 250: 0.8}}
    assert Made("wrong_head", known, **how).finding is None


# ---- rates, gradients, inputs, a loss that stands ----------------------------------------------


@pytest.mark.parametrize(("low", "fires"), [(1e-6, True), (1e-3, False), (0.0, False)])
def test_groups_whose_rates_lie_far_apart_need_no_look_at_a_layer(low: float, fires: bool) -> None:
    run = made.Made("update_imbalance")
    run.add("train", {**made.train(made.falling(200)), "lr": np.full(200, low)})
    schema = next(iter(run.fold.schemas.values()))
    assert schema.family == "train"
    two = made.Made("update_imbalance")
    columns = made.train(made.falling(200))
    two.add("train", {k: v for k, v in columns.items() if k != "lr"}, layers={"lr": {"0.0": np.full(200, low), "0.1": columns["lr"]}})  # type: ignore[dict-item]  # fmt: skip
    assert (len(two.judge()) == 1) == fires
    assert run.judge() == []


SGD = {"name": "SGD", "lr": 0.1}
IN_LIGHTNING: dict[str, Any] = {"loop": "lightning"}


def cyclic(optimizer: Any, base_lr: list[float], max_lr: list[float]) -> None:
    torch.optim.lr_scheduler.CyclicLR(optimizer, base_lr, max_lr, 4, cycle_momentum=False)


@pytest.mark.parametrize(
    ("config", "rows", "made_in"),
    [
        ({"loop": "own"}, [SGD], ""),
        (IN_LIGHTNING, [SGD], ""),
        (IN_LIGHTNING | {"schedules": ["LambdaLR"]}, [SGD], "half"),
        ({"loop": "transformers"}, [SGD], "half"),
        (IN_LIGHTNING | {"schedules": ["OneCycleLR"]}, [SGD], "one"),
        ({"loop": "own"}, [SGD | {"base_lr": 0.004, "max_lr": 0.1}], "one"),
        ({"loop": "transformers"}, [SGD | {"base_lr": 0.004, "max_lr": 0.1}], "one"),
        (IN_LIGHTNING | {"schedules": ["CyclicLR"]}, [SGD], "cycles"),
        # of several optimizers another one has it
        (
            IN_LIGHTNING | {"schedules": ["LambdaLR", "OneCycleLR"]},
            [SGD | {"base_lr": 0.1}, SGD | {"base_lr": 0.004, "max_lr": 0.1}],
            "half",
        ),
        (
            IN_LIGHTNING | {"schedules": ["OneCycleLR", "LambdaLR"]},
            [SGD | {"base_lr": 0.004, "max_lr": 0.1}, SGD | {"base_lr": 0.1}],
            "half of 1",
        ),
    ],
)
def test_the_line_that_raises_a_groups_rate_holds_under_a_schedule(
    config: dict[str, Any], rows: list[Any], made_in: str
) -> None:
    run = made.Made("update_imbalance", config=config, optimizers=rows)
    columns = made.train(made.falling(200), lr=0.05)
    which = "1" if made_in.endswith("1") else "0"
    rates = {f"{which}.0": np.full(200, 1e-6), f"{which}.1": columns.pop("lr")}
    run.add("train", columns, layers={"lr": rates})  # type: ignore[dict-item]
    (finding,) = run.judge()
    assert finding.recommendation is not None
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups = [{"params": [weights[0]], "lr": 2e-6}, {"params": [weights[1]], "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    held = SimpleNamespace(optimizers=lambda: optimizer, create_optimizer=lambda: optimizer)
    names: dict[str, Any] = {"optimizer": optimizer, "self": held, "trainer": held}
    names |= {"base_lr": [1e-6, 0.05], "max_lr": [2e-6, 0.1]}
    exec(finding.recommendation.snippet, names)
    if made_in.startswith("half"):  # it halves what it finds as it is made
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    elif made_in == "one":  # it begins at half of it
        torch.optim.lr_scheduler.OneCycleLR(optimizer, names["max_lr"], 9, div_factor=2)
    elif made_in == "cycles":
        cyclic(optimizer, names["base_lr"], names["max_lr"])
        assert names["max_lr"] == pytest.approx([0.1, 0.1])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("loop", "names"), [("own", []), ("lightning", ["SequentialLR"]), ("lightning", ["LambdaLR"])]
)
def test_where_nobody_knows_the_schedule_the_line_says_what_one_with_a_max_lr_goes_by(
    loop: str, names: list[str]
) -> None:
    config = {"loop": loop} | ({"schedules": names} if names else {})
    run = made.Made("update_imbalance", config=config, optimizers=[SGD | {"base_lr": 0.1}])
    columns = made.train(made.falling(200), lr=0.05)
    rates = {"0.0": np.full(200, 1e-6), "0.1": columns.pop("lr")}
    run.add("train", columns, layers={"lr": rates})  # type: ignore[dict-item]
    (finding,) = run.judge()
    assert finding.recommendation is not None
    said = "max_lr[0] *= 50000" in finding.recommendation.snippet
    assert said == (names != ["LambdaLR"])


def vanishing(last: float, steps: tuple[int, ...]) -> Rows:
    squares = {"a": 1e-16 * last, "b": 1e-11, "c": 1e-6, "d": 1.0}
    rows: dict[str, dict[int, float]] = {}
    for name, square in squares.items():
        rows[f"grad_sq/{name}"] = dict.fromkeys(steps, square)
        rows[f"numel/{name}"] = dict.fromkeys(steps, 100.0)
        rows[f"weight_sq/{name}"] = dict.fromkeys(steps, 1.0)
        rows[f"update_sq/{name}"] = dict.fromkeys(steps, 0.01 * square)
    return {"gradients": rows}


def test_one_sample_tells_a_gradient_that_is_all_but_gone() -> None:
    assert Made("vanishing_gradients", vanishing(1.0, (30,))).finding is not None
    assert Made("vanishing_gradients", vanishing(1e6, (30,))).finding is None
    guess: Rows = {"initialization": {"expected_loss": {1: 1.1}}}
    # a drop from the first loss to that of guessing is nothing that was learned
    told = {**vanishing(1.0, (60, 70)), **guess}
    assert Made("vanishing_gradients", told, loss=lambda s: 1.4 if s < 20 else 1.05).finding
    assert not Made("vanishing_gradients", told, loss=lambda s: 1.4 if s < 20 else 0.8).finding


def test_a_run_may_stand_at_its_start_for_a_tenth_of_it() -> None:
    for max_steps, fires in ((8000, False), (700, True), (None, True)):
        run = made.Made("plateau", max_steps=max_steps)
        run.add("train", made.train(made.flat(600)))
        assert (len(run.judge()) == 1) == fires


BATCH = {"mean": 100.0, "std": 150.0, "min": -80.0, "max": 600.0, "non_finite": 0.0}


@pytest.mark.parametrize(
    ("ending", "fires"), [(20.0, True), (0.5, False)], ids=["over guessing", "under it"]
)
def test_a_loss_that_came_down_to_guessing_from_far_above_has_learned_nothing(
    ending: float, fires: bool
) -> None:
    told: Rows = {
        "inputs": {name: dict.fromkeys((1, 2, 3), value) for name, value in BATCH.items()},
        "initialization": {"expected_loss": {1: 1.4}},
    }
    run = Made("input_problem", told, loss=lambda s: 5e5 if s < 4 else ending)
    assert (run.finding is not None and run.finding.state == "firing") == fires


def test_a_single_batch_tells_what_is_far_out_of_scale_at_once() -> None:
    one: Rows = {"inputs": {name: {1: value} for name, value in BATCH.items()}}
    assert Made("input_problem", one, steps=40).finding is not None
    near = {"inputs": {**one["inputs"], "mean": {1: 6.0}, "std": {1: 8.0}}}
    assert Made("input_problem", near, steps=40).finding is None


def test_a_few_rows_that_are_alike_are_no_constant_input() -> None:
    same = {"mean": 0.5, "std": 0.0, "min": 0.5, "max": 0.5, "non_finite": 0.0}
    told: Rows = {"inputs": {name: dict.fromkeys((1, 2, 3, 4), v) for name, v in same.items()}}
    assert Made("input_problem", told, samples=1).finding is None
    assert Made("input_problem", told, samples=32).finding is not None
