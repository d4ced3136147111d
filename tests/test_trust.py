"""docs/trust.md says what the benchmark of trust measured, and its pure parts are right."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.trust import edge, gain, newton, noise, running
from benchmarks.trust.branching import Checkpoint, flat
from benchmarks.trust.finished import Finished
from benchmarks.trust.page import PAGE, RESULT, page
from benchmarks.trust.ranking import ranking, spread
from benchmarks.trust.subjects import HELD_OUT, Subject
from benchmarks.trust.training import curve, over_all


def bowl(eigenvalues: tuple[float, ...], noisy: bool = False) -> Subject:
    """A net whose loss is a quadratic of known spectrum: rows of the data are its axes."""
    scale = torch.tensor(eigenvalues).sqrt() * math.sqrt(len(eigenvalues))

    def net() -> nn.Module:
        made = nn.Linear(len(eigenvalues), 1, bias=False)
        nn.init.ones_(made.weight)
        return made

    x = torch.diag(scale) if not noisy else torch.randn(512, len(eigenvalues))
    y = 0 * x[:, :1] if not noisy else torch.randn(512, 1)

    def half(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).square().mean() / 2

    return Subject("bowl", net, lambda: (x, y), half, batch=len(x))


def test_the_page_holds_the_figures_of_the_result() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))

    assert PAGE.read_text(encoding="utf-8") == page(result)
    assert {row["net"] for row in result["edge"]["each"]} == {one.name for one in HELD_OUT}
    assert len(HELD_OUT) >= 12
    assert {row["net"] for row in result["gain"]["each"]} == {one.name for one in gain.SUBJECTS}


def test_the_summaries_are_those_of_the_rows() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))

    for name, experiment in running.EXPERIMENTS.items():
        told = running.summarised(experiment, result[name]["each"])
        assert told == result[name]["summary"], name


def test_bisection_finds_where_a_quadratic_blows_up() -> None:
    subject = bowl((4.0, 1.0, 0.5))

    found = edge.blow_up(subject, "sgd", 0)

    assert 2 ** (-1 / edge.FINE) * 0.5 < found["survives"] <= 0.5  # 2 / 4
    assert found["calm"] <= found["survives"]


def test_the_edge_is_exact_on_a_quadratic() -> None:
    row = edge.measured(bowl((4.0, 1.0, 0.5)), "sgd")

    assert row["edge_at_start"] == pytest.approx(0.5, rel=1e-3)
    assert row["edge_early"] == pytest.approx(0.5, rel=1e-3)
    step = [0.05 * eigenvalue for eigenvalue in (4.0, 1.0, 0.5)]  # from weights of one
    size = math.hypot(*step) / math.hypot(*(1 - part for part in step))
    assert row["update_rule"] == pytest.approx(0.05 * 0.02 / size, rel=1e-3)


def test_a_run_that_breaks_off_has_no_loss_any_more() -> None:
    losses = curve(bowl((4.0, 1.0)), "sgd", 50.0, (1, 2, 50))

    assert math.isfinite(losses[1])
    assert math.isinf(losses[-1])
    assert not edge.survives(losses)


def test_the_gain_of_a_quadratic_is_what_a_newton_step_is_worth() -> None:
    found = newton.measured(bowl((8.0, 4.0, 1.0)))

    # weights of one: the gradient is the spectrum, and the gain the mean of 8/λ over its squares
    gain = (8**2 * 1 + 4**2 * 2 + 1**2 * 8) / (8**2 + 4**2 + 1**2)
    assert found["full_gain_start"] == pytest.approx(gain, rel=0.1)  # damped by a hundredth
    assert gain < found["worth_start"] < 2 * gain  # the top direction falls half as far as by slope
    assert found["newton_speed_up"] > 5


def test_the_noise_scale_is_that_of_the_definition() -> None:
    torch.manual_seed(3)
    here = Checkpoint(bowl((1.0,) * 6, noisy=True), 0)
    rows = len(here.data[0])
    each = flat(
        here.gradients(here.copies(rows), (here.data[0][:, None], here.data[1][:, None]))
    ).double()
    mean = each.mean(0)
    trace = float((each - mean).square().sum(1).mean())

    truth = trace / float(mean @ mean)

    assert noise.estimated(here).scale == pytest.approx(truth, rel=0.25)


def test_one_step_of_a_quadratic_falls_as_much_farther_as_the_weighted_scale_says() -> None:
    torch.manual_seed(3)
    here = Checkpoint(bowl((1.0,) * 6, noisy=True), 0)
    scale, best = noise.weighted(here)

    found = noise.fall(here, 16, best) / noise.fall(here, 8, best)

    assert found == pytest.approx(noise.speed_up(scale, 8), rel=0.15)


def test_measuring_a_loss_leaves_the_statistics_of_batch_norm_alone() -> None:
    subject = next(one for one in HELD_OUT if "batchnorm" in one.name)
    net = subject.net()
    before = [buffer.clone() for buffer in net.buffers()]

    over_all(subject, net, subject.data())

    moved = [
        name
        for (name, buffer), old in zip(net.named_buffers(), before, strict=True)
        if "num_batches" not in name and not torch.equal(buffer, old)
    ]
    assert moved == []


def test_a_prediction_that_is_off_by_a_constant_ranks_perfectly_and_shows_its_bias() -> None:
    truth = np.array([1.0, 2.0, 5.0, 9.0, 30.0])

    told = ranking(list(truth / 4), list(truth))
    off = spread(list(truth / 4), list(truth))

    assert (told.rho, told.low) == (pytest.approx(1.0), pytest.approx(1.0))
    assert off.mean == pytest.approx(4.0)
    assert (off.within_two, off.within_two_calibrated) == (0.0, 1.0)


def test_what_is_not_known_does_not_count() -> None:
    told = ranking([1.0, math.nan, 3.0, 4.0], [1.0, 2.0, 3.0, math.nan])

    assert told.count == 2
    assert math.isnan(told.rho)


def test_an_interrupted_run_goes_on_and_changed_code_measures_again(tmp_path) -> None:
    path = tmp_path / "kept.json"
    Finished(path, "one").get("a", lambda: [1.0, math.inf])

    kept = Finished(path, "one")
    assert kept.get("a", lambda: pytest.fail("measured twice")) == [1.0, math.inf]
    assert "b" not in kept
    assert Finished(path, "two").get("a", lambda: 2) == 2
