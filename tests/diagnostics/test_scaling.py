"""Inputs whose features are of unequal scale: each is scaled by itself, at a rate that fits."""

from __future__ import annotations

from pathlib import Path

import torch
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.scaling import scaling_snippet
from otoscope.store import Meta
from torch import Tensor, nn

from .lab import digits
from .told import named, trained

SGD = torch.optim.SGD


def table(times: float) -> tuple[Tensor, Tensor]:
    """Return 600 rows of 12 features, each up to so many times larger than the first, and targets."""
    draw = torch.Generator().manual_seed(3)
    x = torch.randn(600, 12, generator=draw)
    y = x @ torch.randn(12, 1, generator=draw)
    return x * times ** torch.linspace(0, 1, 12), (y - y.mean()) / y.std()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 1))


def left(net: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        return float(nn.functional.mse_loss(net(data[0]), data[1]))


def test_each_of_uneven_features_is_scaled_and_the_rate_with_it_mends_the_run(
    tmp_path: Path,
) -> None:
    data, mse = table(100.0), nn.functional.mse_loss
    net = model()
    judged = trained(tmp_path, net, SGD(net.parameters(), 5e-5), data=data, loss=mse, steps=200)
    advice = named(judged, "input_problem")["recommendation"]
    mean, std = (torch.tensor(advice["proposed"][key]) for key in ("mean", "std"))
    assert std.shape == (12,)
    assert 50 < float(std[-1] / std[0]) < 200
    (rate,) = [item["proposed"] for item in advice["also"] if item["parameter"] == "lr"]
    scaled = ((data[0] - mean) / std, data[1])
    anew = model()
    trained(tmp_path / "anew", anew, SGD(anew.parameters(), rate), data=scaled, loss=mse, steps=200)
    assert left(net, data) > 0.3
    assert left(anew, scaled) < 0.1


def test_a_rate_that_was_stable_grows_by_what_the_curvature_of_the_largest_feature_was(
    tmp_path: Path,
) -> None:
    net, loss = model(), nn.functional.mse_loss
    optimizer = SGD(net.parameters(), 1e-5)
    judged = trained(tmp_path, net, optimizer, data=table(30.0), loss=loss, steps=150)
    advice = named(judged, "input_problem")["recommendation"]
    (rate,) = [item["proposed"] for item in advice["also"] if item["parameter"] == "lr"]
    # by the mean square of all features it would be 1.7e-3; the largest deviation is 30
    assert 0.35e-5 * 30**2 < rate < 1e-5 * 30**2


def test_features_of_one_scale_share_one_mean_and_one_deviation(tmp_path: Path) -> None:
    x, y = table(1.0)
    net = model()
    judged = trained(
        tmp_path,
        net,
        SGD(net.parameters(), 1e-4),
        data=(60 * x + 100, y),
        loss=nn.functional.mse_loss,
    )
    assert isinstance(named(judged, "input_problem")["recommendation"]["proposed"]["std"], float)


def behind_what_saturates(path: Path, lr: float, momentum: float) -> list[float]:
    """Return the rates that go with the scaling of a net of tanh, of inputs far out of scale."""
    x, y = digits()
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)
    )
    optimizer = SGD(net.parameters(), lr, momentum=momentum)
    judged = trained(path, net, optimizer, data=(60 * x + 110, y), steps=60)
    advice = named(judged, "input_problem")["recommendation"]
    assert advice["parameter"] == "input_normalization"
    return [item["proposed"] for item in advice["also"] if item["parameter"] == "lr"]


def test_behind_what_saturates_the_rate_stays_as_it_is(tmp_path: Path) -> None:
    assert behind_what_saturates(tmp_path, 0.05, momentum=0.9) == []


def test_behind_what_saturates_a_rate_far_too_low_for_any_inputs_is_raised(tmp_path: Path) -> None:
    (rate,) = behind_what_saturates(tmp_path, 2e-4, momentum=0.0)
    assert 10 * 2e-4 < rate < 0.1


def test_the_lines_that_scale_each_feature_run_as_they_are() -> None:
    told = Context(Meta(config={"loop": "own"}), *[None] * 3)  # type: ignore[arg-type]
    scope = {"torch": torch, "x": torch.tensor([[3.0, 50.0]])}
    exec(scaling_snippet(told, {"mean": [1.0, 10.0], "std": [2.0, 20.0]}), scope)
    assert scope["x"].tolist() == [[1.0, 2.0]]
