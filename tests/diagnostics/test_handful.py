"""A handful of samples in a step: what its losses alone tell where the noise was never measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from otoscope.store import Finding
from torch import nn

from .lab import digits, mlp
from .labs import run_lab
from .made import Made, train


def noisy(course: np.ndarray, apart: float = 0.5, seed: int = 0) -> np.ndarray:
    """Return losses around a course whose single steps differ by a share of it."""
    draw = np.random.default_rng(seed)
    return course * draw.gamma(1 / apart**2, apart**2, len(course))


def stuck(n: int = 900, at: float = 1.6) -> np.ndarray:
    """Return the course of a run that begins at 2.3 and stands from step 200 on."""
    return at + (2.3 - at) * np.clip(1 - np.arange(n) / 200, 0, 1)


def said(
    losses: np.ndarray,
    batch: int = 2,
    guess: float = 2.3,
    first: float = 0.001,
    optimizer: str = "SGD",
    **columns: Any,
) -> list[Finding]:
    losses = losses.copy()
    losses[:5] = 2.3  # what begins is known, or little is said of what is left
    made = Made("batch_too_small", batch_size=batch, optimizers=[{"name": optimizer, "lr": 0.05}])
    sizes = {"update_sq": {"0": [first**2]}, "weight_sq": {"0": [1.0]}}
    made.add("gradients", {}, [1], sizes)
    made.add("initialization", {"expected_loss": [guess]}, [1])
    told = {**train(losses, lr=0.05), "samples": np.full(len(losses), float(batch)), **columns}
    made.add("train", told)
    return made.judge()


def test_a_loss_that_stands_under_two_samples_a_step_is_told_with_a_batch_and_its_rate() -> None:
    (finding,) = said(noisy(stuck()))
    assert (finding.rule, finding.severity) == ("batch_too_small", "info")
    assert "2 samples" in finding.title
    advice = finding.recommendation
    assert advice is not None
    assert (advice.parameter, advice.current, advice.proposed) == ("batch_size", 2, 16)
    assert advice.also == [
        {"parameter": "lr", "proposed": 0.2}
    ]  # not 8 times: that threw runs back
    assert "batch_size=16" in advice.snippet
    assert "noise scale: how large a batch would do" in finding.not_measured
    (longer,) = said(noisy(stuck()), first=0.02)  # 5 % of the weights are the most
    assert longer.recommendation is not None
    assert longer.recommendation.also == [{"parameter": "lr", "proposed": 0.12}]


def test_with_adam_a_lower_rate_comes_first_and_more_samples_beside_it() -> None:
    (finding,) = said(noisy(stuck()), batch=4, optimizer="Adam")
    advice = finding.recommendation
    assert advice is not None
    assert (advice.parameter, advice.proposed) == ("lr", 0.015)
    assert [item["parameter"] for item in advice.alternatives] == ["batch_size"]


def test_with_adam_a_sample_or_two_undo_each_other_far_below_the_start_too() -> None:
    low = noisy(stuck(at=0.5), apart=1.6)
    (finding,) = said(low, batch=1, optimizer="Adam")
    advice = finding.recommendation
    assert advice is not None
    # over as many samples 16 of them at that rate set two of five runs back
    assert (advice.parameter, advice.proposed, advice.also) == ("lr", 0.015, [])
    assert said(low, batch=1) == []  # plain steps shrink with the gradient
    assert said(low, batch=4, optimizer="Adam") == []
    assert said(noisy(stuck(at=0.1), apart=1.6), batch=1, optimizer="Adam") == []
    learns = noisy(np.geomspace(2.3, 0.3, 900), apart=1.1)
    assert said(learns, batch=1, optimizer="Adam") == []


def test_two_looks_fifty_steps_apart_tell_and_one_does_not() -> None:
    stands = noisy(np.full(900, 1.8))
    assert len(said(stands[:470])) == 1
    assert said(stands[:430]) == []
    learns = noisy(np.concatenate([np.full(420, 1.8), np.linspace(1.8, 0.2, 80)]))
    assert said(learns) == []


@pytest.mark.parametrize(
    "losses",
    [
        noisy(np.linspace(2.3, 0.9, 900)),  # it learns, by a tenth in 200 steps and more
        noisy(stuck(), apart=0.05),  # single steps agree: it is not their noise that holds it
        noisy(stuck(at=1.0)),  # less than half of its start is left
        noisy(stuck())[:390],  # too few losses for so few samples
        np.full(900, np.nan),
    ],
)
def test_a_loss_that_falls_or_agrees_or_is_low_is_held_by_no_handful(losses: np.ndarray) -> None:
    assert said(losses) == []


def test_more_than_a_handful_and_a_net_that_had_learned_before_are_not_judged_so() -> None:
    losses = noisy(stuck())
    assert said(losses, batch=8) == []
    assert said(losses, guess=6.0) == []


def test_the_final_decay_of_the_rate_explains_losses_that_stand() -> None:
    assert said(noisy(stuck()), lr=np.geomspace(0.05, 1e-4, 900)) == []


def test_a_loss_that_falls_again_clears_what_was_said() -> None:
    falls = np.concatenate([stuck(), np.linspace(1.6, 0.5, 600)])
    (finding,) = said(noisy(falls))
    assert finding.state == "resolved"


def wrong_labels() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = digits()
    draw = torch.Generator().manual_seed(5)
    wrong = torch.rand(len(y), generator=draw) < 0.3
    return x, torch.where(wrong, torch.randint(0, 10, y.shape, generator=draw), y)


def test_a_real_net_that_two_samples_a_step_hold_up_is_told_and_its_twin_is_not() -> None:
    def run(rate: float, batch: int) -> list[str]:
        def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
            return torch.optim.SGD(parameters, rate)

        _, judged = run_lab(
            optimizer, net=lambda: mlp((128, 128)), data=wrong_labels(), batch=batch,
            steps=900, curvature=0, every=300,
        )  # fmt: skip
        return [item["rule"] for item in judged["findings"]]

    assert "batch_too_small" in run(0.1, 2)
    assert run(0.1, 32) == []
