"""Noise by pairs: what the cosines of consecutive gradients say of a batch where no probe had a turn."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.diagnostics.batching import by_pairs
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.thresholds import load
from otoscope.diagnostics.windows import Window

from .made import ADAM, Made, falling, flat, train


def cosines(times: float, count: int, seed: int = 0, size: int = 400) -> np.ndarray:
    """Return cosines of pairs of gradients whose noise is `times` the signal, in squared norms."""
    draw = np.random.default_rng(seed)
    signal = np.zeros(size)
    signal[0] = 1.0
    pairs = signal + np.sqrt(times / size) * draw.standard_normal((count, 2, size))
    first, second = pairs[:, 0], pairs[:, 1]
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / lengths


def made(values: np.ndarray, losses: np.ndarray, batch: int = 64, **told: int) -> Made:
    told = {"max_steps": len(losses), **told}
    run = Made("batch_too_small", "batch_too_large", optimizers=[ADAM], **told)
    run.add("train", {**train(losses), "samples": np.full(len(losses), float(batch))})
    steps = np.linspace(20, len(losses) - 5, len(values)).astype(int)
    run.add("gradients", {"grad_cosine": values}, steps.tolist())
    return run


def context_of(run: Made) -> Context:
    numbers = load("batch_too_large")
    return Context(run.fold.meta, Facts(), numbers, numbers, obstacles=run.fold.obstacles)


@pytest.mark.parametrize("times", [0.1, 1.0, 8.0])
def test_the_interval_of_pairs_holds_the_noise_scale_over_the_batch(times: float) -> None:
    held = 0
    for seed in range(100):
        run = made(cosines(times, 30, seed), flat(400))
        run.judge()
        found = by_pairs(Window(run.fold.history, 400), context_of(run))
        assert found is not None
        held += found.low < times < found.high
    assert held >= 90


def test_pairs_that_hardly_agree_tell_of_a_small_batch_where_the_loss_stands() -> None:
    (finding,) = made(cosines(30.0, 20), flat(500)).judge()
    assert (finding.rule, finding.severity) == ("batch_too_small", "warning")
    assert finding.because[0].column == "grad_cosine"
    assert made(cosines(30.0, 20), falling(500)).judge() == []
    assert made(cosines(2.0, 20), flat(500)).judge() == []


def test_a_loss_that_creeps_by_more_than_its_noise_is_held_by_no_batch() -> None:
    creeps = flat(600) - np.linspace(0, 0.1, 600)  # 1.4 % in 200 steps
    assert made(cosines(30.0, 20), creeps).judge() == []


def test_pairs_that_agree_tell_of_a_large_batch() -> None:
    (finding,) = made(cosines(0.05, 40), falling(700), 1024).judge()
    assert (finding.rule, finding.severity) == ("batch_too_large", "info")
    assert finding.recommendation is not None
    assert 60 < finding.recommendation.proposed < 160  # twice a noise scale of 51
    assert made(cosines(0.5, 40), falling(700), 1024).judge() == []


def test_three_pairs_behind_the_start_tell_of_a_large_batch_and_those_of_the_start_do_not() -> None:
    def found(*near: float) -> list[str]:
        pairs = np.array(
            [0.5, *near, *[np.nan] * (8 - len(near))]
        )  # the first one at step 20 of 700
        return [item.rule for item in made(pairs, falling(700), 1024).judge()]

    assert found(0.93, 0.95, 0.94) == ["batch_too_large"]
    assert found(0.93, 0.95) == []
    assert found(0.99, 0.7, 0.95) == []


def test_three_pairs_of_many_steps_are_no_moment_and_wait_for_no_others() -> None:
    def found(*steps: int) -> list[str]:
        run = made(np.full(1, np.nan), falling(430), 1024)
        run.add("gradients", {"grad_cosine": [0.93, 0.95, 0.94]}, list(steps))
        return [item.rule for item in run.judge()]

    assert found(240, 320, 400) == ["batch_too_large"]
    assert found(380, 390, 400) == []


def test_losses_that_go_as_smoothly_as_those_of_all_samples_are_a_choice() -> None:
    near = np.array([0.5, 0.999, 0.998, 0.999, 0.999, 0.999])
    run = made(near, falling(700, noise=0.0), 1024)
    assert run.judge() == []
    assert "all samples" in run.why("batch_too_large")


@pytest.mark.parametrize("values", [np.full(4, 0.01), np.full(30, -0.4), np.full(30, np.nan)])
def test_few_pairs_and_those_that_zigzag_tell_nothing(values: np.ndarray) -> None:
    run = made(values, flat(500))
    assert run.judge() == []
    assert not run.judged("batch_too_small")
    assert not run.judged("batch_too_large")


def test_batches_of_the_whole_data_set_or_large_parts_of_it_are_no_pairs_of_draws() -> None:
    alike = cosines(0.01, 40)
    (finding,) = made(alike, falling(700), 1024, training_samples=5000).judge()
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == 64, "a sixteenth, not the 20 that the formula gives"
    for rows in (1024, 2000):
        run = made(alike, falling(700), 1024, training_samples=rows)
        assert run.judge() == []
        assert not run.judged("batch_too_large")
