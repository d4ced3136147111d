"""Runs of which nothing at all comes back from the loss, and those where that is as it should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from .lab import digits
from .told import Made, named, trained


def made(
    norms: dict[int, float],
    steps: int = 60,
    loss: Callable[[int], float] = lambda step: 2.0,
    rule: str = "vanishing_gradients",
) -> Made:
    """Return what is said of norms of the gradient, which is spread over three layers."""
    layers, every = ("0", "2", "4"), range(1, steps + 1)
    return Made(
        rule,
        {
            "train": {
                "loss": {step: loss(step) for step in every},
                "lr": dict.fromkeys(every, 0.1),
                "samples": dict.fromkeys(every, 64),
                "grad_sq": norms,
            },
            "gradients": {
                **{f"grad_sq/{layer}": norms for layer in layers},
                **{f"update_sq/{layer}": norms for layer in layers},
                **{f"weight_sq/{layer}": dict.fromkeys(norms, 1.0) for layer in layers},
                **{f"numel/{layer}": dict.fromkeys(norms, 64.0) for layer in layers},
            },
        },
        steps=steps,
    )


def at(steps: Sequence[int], value: float = 0.0) -> dict[int, float]:
    return dict.fromkeys(steps, value)


def test_a_gradient_of_zero_since_the_first_step_is_named_at_once() -> None:
    found = made(at((1, 2, 3, 20, 30)), steps=30).sure
    assert (found.severity, found.first_step) == ("critical", 1)
    assert found.title.startswith("No gradient reaches any weight")
    assert found.recommendation is not None
    assert found.recommendation.parameter == "inspect"


@pytest.mark.parametrize(
    ("norms", "loss"),
    [
        ({**at((1, 2, 20, 40, 60)), 3: 1e-12}, 2.0),
        (at((42, 43, 44, 45, 60)), 2.0),
        (at((1, 30, 60)), 2.0),
        (at((1, 2, 3, 20, 30, 40, 60)), 0.0),
    ],
    ids=["a gradient shortly before", "too few steps", "too few norms", "no loss"],
)
def test_no_case_is_made_of(norms: dict[int, float], loss: float) -> None:
    assert made(norms, loss=lambda step: loss).finding is None


def test_a_net_that_knows_all_by_heart_may_have_no_gradient_left() -> None:
    norms = at(range(1, 200, 10), 1.0) | at(range(200, 400, 10))
    known = made(norms, 400, lambda step: 2.0 if step < 50 else 0.01)
    assert known.finding is None
    assert made(norms, 400).sure.first_step == 200


def test_batches_of_unlike_losses_are_no_explosion_where_no_step_moves_anything() -> None:
    def loss(step: int) -> float:
        bad = step > 150 and step % 12 == 0
        return 60.0 if bad else max(0.3, 2.3 - 0.02 * step) if step < 150 else 1.5

    assert made(at(range(1, 300, 10)), 300, loss, "exploding_gradients").finding is None
    assert made(at(range(1, 300, 10), 1.0), 300, loss, "exploding_gradients").finding is not None


def net(last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1), last)


def binary() -> tuple[Tensor, Tensor]:
    x, y = digits()
    return x, (y > 4).float()


def loss(outputs: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy(outputs[:, 0].clamp(1e-6, 1 - 1e-6), target)


def test_a_softmax_over_one_unit_is_what_keeps_all_gradients_from_coming_back(
    tmp_path: Path,
) -> None:
    model = net(nn.Softmax(1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    found = named(
        trained(tmp_path, model, optimizer, data=binary(), loss=loss), "vanishing_gradients"
    )
    assert found["recommendation"]["parameter"] == "remove_softmax"
    assert any("softmax over one unit" in seen["text"] for seen in found["because"])


def test_a_sigmoid_in_its_place_trains_and_is_silent(tmp_path: Path) -> None:
    model = net(nn.Sigmoid())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    told = trained(tmp_path, model, optimizer, data=binary(), loss=loss)
    assert "vanishing_gradients" not in {finding["rule"] for finding in told["findings"]}
