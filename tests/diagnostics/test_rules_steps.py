"""Rules on steps, batches and clips: real runs that fire each, and twins that do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.diagnostics import judge
from otoscope.store import Event
from torch import Tensor, nn

from .lab import RUN, Lab, digits, mlp
from .recorded import Batch, named, recorded, rules

SGD, Adam = torch.optim.SGD, torch.optim.Adam


class Mislabelled:
    """A loss that shuffles the labels of some steps; it counts its calls."""

    def __init__(self, first: int, count: int) -> None:
        self.step, self.first, self.count = 0, first, count
        self.draw = torch.Generator().manual_seed(7)

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        self.step += 1
        if self.first <= self.step < self.first + self.count:
            target = target[torch.randperm(len(target), generator=self.draw)]
        return nn.functional.cross_entropy(outputs, target)


def run(
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer], **settings: Any
) -> dict[str, Any]:
    torch.manual_seed(0)
    model = settings.pop("net", mlp)()
    lab = Lab(model, optimizer(list(model.parameters())), curvature=0, **settings)
    return judge(lab.train(), RUN)


def test_twenty_batches_of_wrong_labels_are_a_spike_from_their_first_step_on() -> None:
    judged = run(lambda p: SGD(p, 0.05, momentum=0.9), steps=400, loss=Mislabelled(300, 20))
    finding = named(judged, "loss_spike")
    assert finding["severity"] == "warning"
    assert finding["first_step"] == 300
    advice = finding["recommendation"]
    assert (advice["parameter"], advice["basis"]) == ("gradient_clip_val", "from your run")


def test_a_spike_goes_back_to_the_checkpoint_a_hundred_steps_before_it() -> None:
    events = [
        Event("checkpoint", step=step, body={"path": f"{step}.ckpt", "finite": True}, id=f"c{step}")
        for step in (100, 200, 290)
    ]
    judged = run(lambda p: Adam(p, 1e-3), steps=360, loss=Mislabelled(300, 20), events=events)
    advice = named(judged, "loss_spike")["recommendation"]
    assert advice["proposed"] == {"step": 200, "path": "200.ckpt", "then": {"betas": [0.9, 0.95]}}
    assert "ckpt_path" in advice["snippet"]
    assert "group.update(betas=(0.9, 0.95)," in advice["snippet"], "behind those of the checkpoint"


def test_nobody_is_sent_back_to_a_checkpoint_that_is_gone() -> None:
    """Lightning keeps the last one alone, unless it is told otherwise."""

    def advised(*steps: int) -> dict[str, Any]:
        told = [
            Event(
                "checkpoint",
                step=step,
                body={"path": f"{step}.ckpt", "finite": True, "gone": [f"{before}.ckpt"]},
                id=f"c{step}",
            )
            for before, step in pairwise((0, *steps))
        ]
        judged = run(
            lambda p: SGD(p, 0.05, momentum=0.9), steps=360, loss=Mislabelled(300, 20), events=told
        )
        return named(judged, "loss_spike")["recommendation"]

    assert advised(100, 200, 290)["proposed"]["path"] == "290.ckpt"
    none = advised(100, 200, 290, 305)
    assert none["parameter"] != "rollback"
    assert ".ckpt" not in none["snippet"]


def test_two_hard_batches_are_no_spike() -> None:
    judged = run(lambda p: Adam(p, 1e-3), steps=400, loss=Mislabelled(300, 2))
    assert judged["findings"] == []


def test_a_loss_that_long_steps_swing_gets_the_rate_of_sound_ones_and_then_swings_no_more() -> None:
    judged = run(lambda p: SGD(p, 1.1), steps=600)
    finding = named(judged, "oscillating_loss")
    advice = finding["recommendation"]
    # a step of 66 % of the weights: half of it would be as wild
    assert (advice["parameter"], advice["proposed"]) == ("lr", 0.055)
    again = run(lambda p: SGD(p, advice["proposed"]), steps=600)
    assert "oscillating_loss" not in rules(again)


def test_adam_without_a_warm_up_whose_loss_leaps_is_told_a_rate_that_needs_none() -> None:
    judged = run(lambda p: Adam(p, 0.1), steps=200, meta={"max_steps": 10_000})
    finding = named(judged, "missing_warmup")
    assert finding["severity"] == "info"
    advice = finding["recommendation"]  # a first step of all of the weights: later ones are as long
    assert advice["parameter"] == "lr"
    again = run(lambda p: Adam(p, advice["proposed"]), steps=200)
    assert again["findings"] == []


def test_a_rate_that_is_warmed_up_or_makes_no_leap_wants_no_warm_up() -> None:
    warmed = run(lambda p: Adam(p, 0.1), steps=200, schedule=lambda step: min(1.0, step / 90))
    assert "missing_warmup" not in rules(warmed)
    calm = run(lambda p: Adam(p, 3e-3), steps=200)
    assert "missing_warmup" not in rules(calm)
    assert "missing_warmup" in calm["judged"]


def test_a_clip_of_a_hundredth_is_too_tight_and_the_norms_tell_the_one_to_set(
    tmp_path: Path,
) -> None:
    judged = recorded(tmp_path, lambda p: SGD(p, 0.1), clip=0.01, steps=260)
    finding = named(judged, "clipping_too_tight")
    assert finding["severity"] == "warning"
    advice = finding["recommendation"]
    assert (advice["parameter"], advice["basis"]) == ("gradient_clip_val", "from your run")
    assert 1 < advice["proposed"] < 8
    assert "lr_too_low" not in rules(judged)


def test_a_clip_that_is_often_active_is_left_alone_and_one_under_adam_is_an_info(
    tmp_path: Path,
) -> None:
    usual = recorded(tmp_path / "usual", lambda p: SGD(p, 0.1), clip=0.3, steps=260)
    assert usual["findings"] == []
    adam = recorded(tmp_path / "adam", lambda p: Adam(p, 1e-3), clip=0.01, steps=260)
    assert named(adam, "clipping_too_tight")["severity"] == "info"
    assert adam["state"] == "healthy"


def test_inputs_that_jump_leave_the_second_moment_behind(tmp_path: Path) -> None:
    def spoil(step: int, batch: Batch) -> Batch:
        return (batch[0] * 25, batch[1]) if 200 <= step < 210 else batch

    judged = recorded(
        tmp_path, lambda p: Adam(p, 1e-3), spoil=spoil, steps=240, every={"gradients": 2}
    )
    finding = named(judged, "stale_second_moment")
    assert 200 <= finding["first_step"] <= 210
    assert finding["recommendation"]["proposed"] == [0.9, 0.95]
    assert "betas=(0.9, 0.95)" in finding["recommendation"]["snippet"]


def test_a_healthy_second_moment_and_small_noise_bring_no_finding(tmp_path: Path) -> None:
    judged = recorded(
        tmp_path, lambda p: Adam(p, 1e-3), steps=260, every={"gradients": 2, "noise": 4}
    )
    assert judged["findings"] == []
    assert {"stale_second_moment", "batch_too_small"} <= set(judged["judged"])


def test_a_loss_stuck_in_noise_gets_smaller_steps_first_and_a_larger_batch_to_choose(
    tmp_path: Path,
) -> None:
    x, y = digits()
    draw = torch.Generator().manual_seed(1)
    wrong = torch.rand(len(y), generator=draw) < 0.9
    labels = torch.where(wrong, torch.randint(0, 10, (len(y),), generator=draw), y)
    judged = recorded(
        tmp_path, lambda p: SGD(p, 0.1), data=(x, labels), batch=8, steps=420, every={"noise": 1}
    )
    finding = named(judged, "batch_too_small")
    assert "noise" in finding["because"][0]["text"]
    advice = finding["recommendation"]
    assert (advice["parameter"], advice["proposed"]) == ("lr", 0.03)
    larger = advice["alternatives"][0]
    assert larger["parameter"] == "batch_size"
    assert 8 < larger["proposed"] <= 64
    assert larger["also"][0]["parameter"] == "lr"


@pytest.mark.parametrize(("rate", "std", "fires"), [(1.0, 0.4, True), (0.1, None, False)])
def test_steps_beyond_what_slope_and_curvature_foretell(
    tmp_path: Path, rate: float, std: float | None, fires: bool
) -> None:
    def net() -> nn.Module:
        model = mlp((64,) * (10 if std else 2), activation=nn.Tanh)
        for layer in model:
            if std and isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=std)
        return model

    judged = recorded(tmp_path, lambda p: SGD(p, rate), net=net, steps=200, every={"landscape": 25})
    assert ("nonlinear_step" in rules(judged)) is fires
    assert fires or "nonlinear_step" in judged["judged"]
    if fires:
        advice = named(judged, "nonlinear_step")["recommendation"]
        assert advice["proposed"] < rate
        assert math.isclose(advice["range"][1], rate) or advice["range"][1] <= rate
