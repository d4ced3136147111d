"""What looked ill and is not: runs of kinds that users have, each of which a rule once spoke of."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Inputs, attach
from otoscope.callbacks.layers import described_parameters
from otoscope.diagnostics import judge
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.initialization import as_code, he_normal
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.thresholds import load
from otoscope.store import Event, Meta, connect
from torch import nn

from . import made
from .lab import digits, mlp
from .told import Made, Rows, named, rules_of, trained

# ---- how the weights were drawn ------------------------------------------------------------------


def drawn(loss_ratio: float, gain: float = 30.0) -> dict[str, Rows]:
    """Return the first step of a net whose first layer multiplies the signal's energy."""
    told = {"forward_gain": (gain, 1.0, 0.5), "backward_gain": (1.0, 1.0, 1.0)}
    told |= {"weight_std": (0.1,) * 3, "xavier_std": (0.1,) * 3, "he_std": (0.12,) * 3}
    columns = {
        f"{name}/{layer}": {1: value}
        for name, values in told.items()
        for layer, value in zip("abc", values, strict=True)
    }
    return {"initialization": {**columns, "loss_ratio": {1: loss_ratio}}}


@pytest.mark.parametrize("ratio", [math.nan, math.inf])
def test_a_gain_alone_is_no_bad_draw_where_the_loss_of_guessing_is_not_known(ratio: float) -> None:
    unknown = Made("bad_initialization", drawn(ratio))
    assert unknown.finding is None
    assert "guessing" in unknown.why  # that it was not judged is said
    assert Made("bad_initialization", drawn(4.0)).finding is not None
    assert Made("bad_initialization", drawn(ratio, gain=1.0)).why == ""


@pytest.mark.parametrize(("size", "fires"), [(0.5, False), (40.0, True)])
def test_targets_far_from_zero_are_no_weights_drawn_too_large(size: float, fires: bool) -> None:
    told = {**drawn(25.0)["initialization"], "initial_loss": {1: 2600.0}}
    sizes = {f"rms/{layer}": {1: size} for layer in "abc"}
    made_of = Made("bad_initialization", {"initialization": {**told, **sizes}})
    assert (made_of.finding is not None) == fires


# ---- batches of few rows -------------------------------------------------------------------------


def inputs(columns: dict[str, list[float]]) -> dict[str, Rows]:
    steps = (1, 2, 3, 4, 24, 44, 64, 84, 104, 124)
    shape = {"mean": [0.0] * 10, "std": [1.0] * 10, "min": [-2.0] * 10, "max": [2.0] * 10}
    whole = {**shape, "non_finite": [0.0] * 10, **columns}
    return {"inputs": {name: dict(zip(steps, v, strict=True)) for name, v in whole.items()}}


def accumulated(where: Path, parts: int, sort: bool = False) -> dict[str, Any]:
    """Return what is said of steps of so many batches, of 64 / `parts` rows each."""
    x, y = digits()
    order = torch.argsort(y, stable=True) if sort else torch.randperm(len(x))
    torch.manual_seed(0)
    net = mlp((32,))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    size = 64 // parts
    recorder = attach(
        net,
        optimizer,
        probes=[Inputs(every=10)],
        spool=where,
        verdict=False,
        strict=True,
        budget=1.0,
    )
    for step in range(60):
        optimizer.zero_grad()
        for part in range(parts):
            rows = order.roll(-(step * parts + part) * size)[:size]
            batch = (x[rows], y[rows])
            loss = nn.functional.cross_entropy(net(batch[0]), batch[1])
            (loss / parts).backward()
            if part == parts - 1:
                optimizer.step()
            recorder.step(loss, size, batch=batch, complete=part == parts - 1)
    recorder.finish()
    return judge(connect(where / str(recorder.run_id)), str(recorder.run_id))


def test_a_step_of_single_samples_is_not_sorted_by_their_labels(tmp_path: Path) -> None:
    assert "input_problem" not in rules_of(accumulated(tmp_path / "ones", 64))
    assert "input_problem" in rules_of(accumulated(tmp_path / "sorted", 2, sort=True))


def test_rows_of_recordings_that_do_not_tell_them_follow_from_what_was_accumulated() -> None:
    classes = {"label_classes": [1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 5.0, 6.0, 6.0, 7.0]}
    order = {"label_entropy": [math.nan] + [0.0] * 9, "top_class_share": [0.5] * 10, **classes}
    one = Made("input_problem", inputs(order), accumulate_grad_batches=8, samples=8, loss=falling)
    assert one.finding is None
    assert Made("input_problem", inputs(order), samples=8, loss=falling).finding is not None


def falling(step: int) -> float:
    return 2.0 * 0.99**step


def test_batches_that_differ_among_themselves_have_not_shifted() -> None:
    # pictures taken by day and by night: the last three happen to be dark ones
    stds = [1.0, 0.4, 1.1, 0.9, 1.0, 0.5, 0.9, 0.42, 0.41, 0.43]
    means = [2.0, 0.1, 2.02, 1.98, 0.1, 2.1, 2.0, 0.2, 0.15, 0.12]
    assert Made("input_problem", inputs({"std": stds, "mean": means}), loss=falling).finding is None
    apart = {"std": [1.0, 0.9, 1.1, 0.9, 1.0, 0.9, 0.9, 0.42, 0.41, 0.43]}
    assert Made("input_problem", inputs(apart), loss=falling).finding is not None
    few = inputs({**apart, "rows": [4.0] * 10})
    assert Made("input_problem", few, loss=falling).finding is None


def test_values_that_lie_on_both_sides_of_the_first_ones_are_no_shift() -> None:
    means = [0.0, 0.01, 0.02, 0.0, 0.0, 0.0, 0.0, 3.0, -3.0, 3.0]
    assert Made("input_problem", inputs({"mean": means}), loss=falling).finding is None
    assert Made("input_problem", inputs({"mean": list(np.abs(means))}), loss=falling).finding


def test_the_loader_that_shuffles_has_the_batches_of_the_run() -> None:
    order = {"label_entropy": [0.05] * 10, "top_class_share": [0.3] * 10, "rows": [16.0] * 10}
    sorted_ = Made("input_problem", inputs({**order, "label_classes": [4.0] * 10}), samples=64)
    assert sorted_.advice.snippet == "DataLoader(dataset, batch_size=16, shuffle=True)"


# ---- layers that are not meant to move -----------------------------------------------------------


PARAMETERS = [
    {"name": f"{layer}.weight", "layer": layer, "kind": "weight", "ndim": 2, "numel": 100, **more}
    for layer, more in (
        ("a", {"optimized": True, "group": "0.0"}),
        ("b", {"optimized": True, "group": "0.1"}),
        ("c", {"optimized": False}),
    )
]


def layers(still: str, ran: str, of: str = "abc") -> dict[str, Rows]:
    """Return steps of layers, of which some stand still and some run."""
    steps = range(10, 200, 10)
    gradients: dict[str, dict[int, float]] = {}
    outputs: dict[str, dict[int, float]] = {}
    for layer in of:
        moved = 0.0 if layer in still else 1e-4
        told = {"grad_sq": 1.0, "weight_sq": 10.0, "update_sq": moved, "numel": 100.0}
        gradients |= {f"{name}/{layer}": dict.fromkeys(steps, v) for name, v in told.items()}
        outputs[f"numel/{layer}"] = dict.fromkeys(steps, 64.0 if layer in ran else math.nan)
    return {"gradients": gradients, "activations": outputs}


def test_a_teacher_that_no_optimizer_holds_is_no_layer_that_should_train() -> None:
    teacher = Made("frozen_layer", layers("c", ran="ab"), steps=200, parameters=PARAMETERS)
    assert teacher.finding is None
    slip = Made("frozen_layer", layers("c", ran="abc"), steps=200, parameters=PARAMETERS)
    assert slip.sure.layers == ["c"]
    never_looked_at = {"gradients": layers("c", ran="")["gradients"]}
    told = Made("frozen_layer", never_looked_at, steps=200, parameters=PARAMETERS)
    assert told.sure.layers == ["c"]


@pytest.mark.parametrize(("rate", "still"), [(0.0, None), (0.1, ["b"])])
def test_a_group_whose_rate_is_zero_is_held_on_purpose(
    rate: float, still: list[str] | None
) -> None:
    every = range(1, 201)
    rates = {"lr": dict.fromkeys(every, 0.1), "lr/0.1": dict.fromkeys(every, rate)}
    losses = {"loss": {step: falling(step) for step in every}}
    told: dict[str, Rows] = {**layers("b", ran="abc"), "train": {**losses, **rates}}
    rows = [row for row in PARAMETERS if row["layer"] != "c"]
    found = Made("frozen_layer", told, parameters=rows).finding
    assert (found and found.layers) == still


@pytest.mark.parametrize(("gain", "still"), [(math.nan, None), (0.5, ["c", "d"])])
def test_no_gradient_comes_back_to_the_outputs_of_a_teacher(
    gain: float, still: list[str] | None
) -> None:
    told = layers("cd", ran="abcd", of="cdab")
    gains = {"c": math.nan, "d": gain, "a": math.nan, "b": 0.7}
    told["initialization"] = {f"backward_gain/{name}": {1: value} for name, value in gains.items()}
    rows = [*PARAMETERS, {**PARAMETERS[2], "name": "d.weight", "layer": "d"}]
    found = Made("frozen_layer", told, steps=200, parameters=rows).finding
    assert (found and found.layers) == still


# ---- nothing left to gain ------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "loss", "fires"), [(1e-4, 2e-4, False), (1.0, 2.0, True)])
def test_a_net_that_knows_all_already_is_moved_little_by_any_rate(
    first: float, loss: float, fires: bool
) -> None:
    steps = range(1, 500, 10)
    told: dict[str, Rows] = {
        "gradients": {
            "update_sq/a": dict.fromkeys(steps, 1e-12),
            "weight_sq/a": dict.fromkeys(steps, 1.0),
        },
        "initialization": {"loss_ratio": {1: first}},
    }
    made_of = Made("lr_too_low", told, steps=500, loss=lambda step: loss)
    assert (made_of.finding is not None) == fires


@pytest.mark.parametrize(("stands", "fires"), [(0.85, False), (0.99, True)])
def test_targets_that_are_mostly_noise_leave_a_loss_that_stands_under_guessing(
    stands: float, fires: bool
) -> None:
    run = made.Made("plateau")
    run.add("initialization", {"expected_loss": [1.0]}, steps=[1])
    run.add("train", made.train(np.r_[np.linspace(1.1, stands, 100), made.flat(500, stands, 0.01)]))
    assert bool(run.judge()) == fires


@pytest.mark.parametrize(("begin", "fires"), [(5001, False), (1, True)])
def test_a_run_that_goes_on_stands_where_it_ended_and_at_no_start(begin: int, fires: bool) -> None:
    run = made.Made("plateau")
    run.add("train", made.train(made.flat(600, 0.3, 0.01)), steps=list(range(begin, begin + 600)))
    assert bool(run.judge()) == fires


# ---- not yet learned -----------------------------------------------------------------------------


def named_one_class(
    steps: int,
    rate: Callable[[int], float] = lambda step: 0.1,
    rare: int = 2,
    inputs: Rows | None = None,
    **meta: Any,
) -> bool:
    """Tell whether it is said of a net that it names one class alone, of so many rare ones."""
    told = {"predicted_entropy": 0.0, "label_entropy": 0.6, "never_predicted": 2.0, "rows": 512.0}
    told |= {"class_share_0": 0.8, **{f"class_share_{i + 1}": 0.2 / rare for i in range(rare)}}
    told |= {"probability_rows": 0.0, "as_logits": 1.0, "as_probabilities": 9.0}
    rows = {name: dict.fromkeys(range(10, steps, 20), value) for name, value in told.items()}
    families = {"head": rows, **({} if inputs is None else {"inputs": inputs})}
    run = Made("wrong_head", families, steps=steps, lr=rate, loss=lambda s: 0.9 * 0.9995**s, **meta)
    return run.finding is not None


def test_letters_of_a_text_are_no_rare_classes() -> None:
    tokens = {"is_integer": {1: 1.0}, "label_entropy": {1: math.nan}}
    assert named_one_class(500, rare=40)
    assert not named_one_class(500, rare=40, inputs=tokens)
    assert named_one_class(500, rare=5, inputs=tokens)  # tags of words
    of_rows = {"is_integer": {1: 1.0}, "label_entropy": {1: 1.0}}  # one label for each text
    assert named_one_class(500, rare=40, inputs=of_rows)


def test_a_net_may_name_the_background_alone_for_a_tenth_of_its_run_and_while_it_warms_up() -> None:
    assert named_one_class(500)
    assert not named_one_class(500, max_steps=6000)
    assert named_one_class(700, max_steps=6000)
    assert not named_one_class(500, rate=lambda step: 1e-4 * step)


# ---- what is pasted ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_rates_of_layers_are_set_in_the_optimizer_that_the_run_has(name: str) -> None:
    steps = list(range(60, 200, 10))
    squares = {"0": 1e-2, "1": 1e-2, "10": 1e-10}
    told = {
        "update_sq": {layer: [value] * len(steps) for layer, value in squares.items()},
        "weight_sq": {layer: [1.0] * len(steps) for layer in squares},
    }
    run = made.Made(
        "update_imbalance", optimizers=[{"name": name, "lr": 0.1}], config={"loop": "own"}
    )
    run.add("train", made.train(made.falling(200)))
    run.add("gradients", {}, steps=steps, layers=told)
    advice = run.judge()[0].recommendation
    assert advice is not None
    assert advice.proposed == {"10": 100.0}
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(11)))
    place: dict[str, Any] = {"torch": torch, "model": model}
    exec(advice.snippet, place)  # pasted as it is
    assert type(place["optimizer"]).__name__ == name
    rates = [group["lr"] for group in place["optimizer"].param_groups]
    assert rates == [0.1] * 20 + [10.0] * 2


def test_only_layers_that_have_a_weight_by_that_name_are_drawn_anew() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16)
    rows = described_parameters(model)
    drawn = he_normal(
        Context(Meta(parameters=rows), Facts(), load("dead_units"), load("lr_too_high"))
    )
    assert set(drawn) == {"self_attn.out_proj", "linear1"}  # the last one stays
    exec(as_code(drawn), {"torch": torch, "model": model})


# ---- what windows forget -------------------------------------------------------------------------


def test_missing_values_that_are_masked_stay_information_when_their_steps_are_long_past() -> None:
    rows = inputs({"non_finite": [0.0, 0.0, 0.0, 0.1, *[0.0] * 6]})
    change = Event("lr", attempt=1, step=200, body={"from": 0.1, "to": 0.5, "phase": "constant"})
    closed = Event("closed", attempt=1, step=300, body={"finding": "input_problem:run:1:4"})
    later = Made("input_problem", rows, steps=900, loss=falling, events=[change, closed])
    assert [(f.severity, f.state) for f in later.fold.findings()] == [("info", "firing")]


def test_rows_that_a_step_made_alike_are_no_bad_draw_after_thousands_of_steps() -> None:
    run = made.Made("symmetric_weights", "lr_too_high")
    steps = [20, 520, 1020, 1520, 2020, 2520]
    layers = {"alike_rows": {"a": [1.0] * 6, "b": [0.0] * 6}}
    run.add("initialization", {}, steps=[1], layers={"identical_rows": {"a": [0.0], "b": [0.0]}})
    run.add("symmetry", {}, steps=steps, layers=layers)
    run.add("train", made.train(np.r_[2.3, np.full(2599, 30.0)]))
    run.add(
        "gradients", {}, steps=[1, 2], layers={"update_sq": {"a": [50.0] * 2, "b": [50.0] * 2},
        "weight_sq": {"a": [60.0] * 2, "b": [60.0] * 2}}
    )  # fmt: skip
    assert {finding.rule for finding in run.judge()} == {"lr_too_high"}


# ---- outputs that nothing uses -------------------------------------------------------------------


class Blocks(nn.Module):
    """Each block takes from the input what it explains: what the last one takes, nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(nn.Linear(64, 32) for _ in range(3))
        self.backs = nn.ModuleList(nn.Linear(32, 64) for _ in range(3))
        self.aheads = nn.ModuleList(nn.Linear(32, 10) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        told = torch.zeros(len(x), 10)
        for trunk, back, ahead in zip(self.trunks, self.backs, self.aheads, strict=True):
            h = torch.relu(trunk(x))
            x, told = x - back(h), told + ahead(h)
        return told


def test_a_layer_whose_outputs_nothing_uses_is_information(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Blocks()
    judged = trained(tmp_path, model, torch.optim.SGD(model.parameters(), 0.05), steps=60)
    finding = named(judged, "frozen_layer")
    assert (finding["layers"], finding["severity"]) == (["backs.2"], "info")
