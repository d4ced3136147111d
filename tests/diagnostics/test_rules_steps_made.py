"""Rules on steps, batches and clips: what they say of made windows, at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.diagnostics.batching import noise_over_batch, smaller_batch
from otoscope.diagnostics.facts import Facts
from otoscope.diagnostics.rule import Context
from otoscope.diagnostics.thresholds import load
from otoscope.diagnostics.windows import History, Window
from otoscope.store import Event, Meta
from otoscope.store.noise import NoiseScaleEstimator

from .made import ADAM, SGD, Made, falling, flat, train


def layer_steps(ratio: float, n: int) -> dict[str, dict[str, list[float]]]:
    """Return a layer whose steps are `ratio` of its weights."""
    return {"update_sq": {"0": [ratio**2] * n}, "weight_sq": {"0": [1.0] * n}}


# ---- loss_scale_collapse -----------------------------------------------------------------


def scaler(scales: np.ndarray) -> Made:
    made = Made("loss_scale_collapse", precision="16-mixed")
    made.add("train", train(falling(len(scales)), loss_scale=scales))
    return made


def test_a_scale_under_sixteen_asks_for_bfloat16() -> None:
    (finding,) = scaler(np.full(300, 8.0)).judge()
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == "bf16-mixed"
    assert 'precision="bf16-mixed"' in finding.recommendation.snippet


def test_the_halvings_of_a_start_are_normal_and_those_behind_step_500_are_not() -> None:
    halved = 2.0 ** (16 - np.minimum(np.arange(700) // 15, 6))
    assert scaler(halved).judge() == []
    late = np.concatenate([np.full(600, 2.0**16), 2.0 ** (16 - np.arange(120) // 20)])
    (finding,) = scaler(late).judge()
    assert 620 <= finding.first_step <= 720


def test_a_run_without_a_loss_scaler_is_not_judged_for_its_scale() -> None:
    made = Made("loss_scale_collapse")
    made.add("train", train(falling(200), loss_scale=math.nan))
    assert made.judge() == []
    assert made.why("loss_scale_collapse") == "the run has no loss scaler"


# ---- loss_spike --------------------------------------------------------------------------


def test_a_loss_that_comes_back_resolves_and_one_that_stays_has_diverged() -> None:
    losses = falling(700)
    losses[400:420] = 3.0
    made = Made("loss_spike")
    made.add("train", train(losses))
    (finding,) = made.judge()
    assert (finding.first_step, finding.state, finding.severity) == (401, "resolved", "warning")
    losses[400:] = 3.0
    made = Made("loss_spike")
    made.add("train", train(losses))
    (finding,) = made.judge()
    assert (finding.state, finding.severity) == ("firing", "critical")


def test_a_handful_of_high_losses_is_told_as_information_and_two_are_not_told() -> None:
    found = []
    for n in (2, 4):
        losses = falling(400)
        losses[300 : 300 + n] = 3.0
        made = Made("loss_spike")
        made.add("train", train(losses))
        found.append([finding.severity for finding in made.judge()])
    assert found == [[], ["info"]]


def test_spikes_are_not_judged_before_there_are_losses_to_compare_with() -> None:
    made = Made("loss_spike")
    made.add("train", train(falling(60)))
    assert made.judge() == []
    assert not made.judged("loss_spike")


# ---- stale_second_moment -----------------------------------------------------------------


def second_moment(values: list[float], losses: np.ndarray, optimizer: dict[str, object]) -> Made:
    made = Made("stale_second_moment", optimizers=[optimizer])
    made.add("train", train(losses))
    steps = list(range(30, 30 + 10 * len(values), 10))
    made.add("gradients", {}, steps, {"adam_ratio": {"0": values}})
    return made


def test_three_samples_over_the_limit_or_one_far_over_it_with_the_loss_are_stale() -> None:
    calm = [1.0] * 10
    assert second_moment([*calm, 3.4, 3.3, 2.5], falling(160), ADAM).judge() == []
    assert second_moment([*calm, 12.0], falling(160), ADAM).judge() == []
    assert (
        second_moment([*calm, 5.0, 6.0, 5.0], falling(160), ADAM).judge() == []
    )  # it does no harm
    losses = falling(180)
    losses[130:155] = 4.0
    assert second_moment([*calm, 5.0, 6.0, 5.0], losses, ADAM).judge()
    (finding,) = second_moment([*calm, 12.0], losses, ADAM).judge()
    assert finding.layers == ["0"]


def test_where_the_second_beta_is_small_already_the_rate_is_lowered() -> None:
    fast = {**ADAM, "betas": [0.9, 0.95]}
    losses = falling(180)
    losses[130:165] = 4.0
    (finding,) = second_moment([1.0] * 10 + [5.0, 8.0, 5.0], losses, fast).judge()
    assert finding.recommendation is not None
    assert finding.recommendation.parameter == "lr"
    assert finding.recommendation.proposed == pytest.approx(0.1 / 8, rel=0.05)


def test_plain_gradient_steps_have_no_second_moment() -> None:
    made = second_moment([math.nan] * 12, falling(160), SGD)
    assert made.judge() == []
    assert made.why("stale_second_moment") == "SGD has no second moment"


# ---- clipping_too_tight ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "ratio", "end", "fires"),
    [
        (0.05, 6e-5, 2.3, True),
        (0.5, 6e-5, 2.3, False),
        (0.05, 5e-3, 2.3, False),
        (0.05, 6e-5, 0.3, False),
    ],
)
def test_a_clip_is_too_tight_where_it_cuts_much_and_the_run_stands(
    factor: float, ratio: float, end: float, fires: bool
) -> None:
    losses = flat(260) if end > 2 else falling(260, noise=0.0)
    made = Made("clipping_too_tight", gradient_clip_val=0.01)
    measured = np.where(np.arange(260) < 60, factor, math.nan)  # the budget allowed no more
    made.add("train", train(losses, clip_factor=measured, grad_sq=np.full(260, 0.04)))
    made.add("gradients", {}, [10, 20, 30], layer_steps(ratio, 3))
    found = made.judge()
    assert bool(found) is fires
    if fires:
        advice = found[0].recommendation
        assert advice is not None
        assert (advice.current, advice.proposed) == (0.01, 1.6)


def test_a_clip_that_was_not_measured_is_not_judged() -> None:
    made = Made("clipping_too_tight")
    made.add("train", train(flat(260), clip_factor=math.nan))
    assert made.judge() == []
    assert "fewer than 4" in made.why("clipping_too_tight")


# ---- lr_too_low, plateau -----------------------------------------------------------------


def test_a_rate_is_too_low_only_where_steps_were_measured_and_nothing_warms_up() -> None:
    found = {}
    for name, ratio, rate in (
        ("low", 1e-7, 0.1),
        ("warming", 1e-7, np.linspace(0.01, 0.1, 400)),
        ("none", math.nan, 0.1),
    ):
        made = Made("lr_too_low")
        made.add("train", {**train(flat(400)), "lr": np.broadcast_to(rate, 400)})
        made.add("gradients", {}, [1, 20, 40], layer_steps(ratio, 3))
        found[name] = (len(made.judge()), made.judged("lr_too_low"))
    assert found == {"low": (1, True), "warming": (0, False), "none": (0, False)}


@pytest.mark.parametrize(
    ("first", "events", "silent"),
    [
        (1.0, [], False),
        (0.3, [], True),
        (None, [Event("probe_off", body={"probe": "Initialization", "why": "resumed"})], True),
    ],
    ids=["drawn", "trained before", "resumed"],
)
def test_short_steps_of_a_net_that_had_learned_are_no_rate_that_is_too_low(
    first: float | None, events: list[Event], silent: bool
) -> None:
    made = Made("lr_too_low", optimizers=[ADAM])
    made.fold.push(events=events)
    made.add("train", train(flat(450, noise=0.01), lr=1e-5))
    made.add("gradients", {}, list(range(10, 450, 10)), layer_steps(3e-4, 44))
    if first is not None:
        made.add("initialization", {"loss_ratio": [first]}, [1])
    assert (made.judge() == []) is silent
    assert made.judged("lr_too_low")


# ---- oscillating_loss --------------------------------------------------------------------


def test_swings_count_and_the_noise_of_batches_does_not() -> None:
    swings = 0.5 + 0.4 * np.sin(np.arange(500) / 20) + 2.0 * np.exp(-np.arange(500) / 10)
    made = Made("oscillating_loss")
    made.add("train", train(swings))
    (finding,) = made.judge()
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == 0.05
    noisy = falling(500) * np.random.default_rng(2).lognormal(0.0, 0.6, 500)
    made = Made("oscillating_loss")
    made.add("train", train(noisy))
    assert made.judge() == []


# ---- batch_too_small, batch_too_large ----------------------------------------------------


def noisy(rule: str, losses: np.ndarray, gradient_sq: float, trace: float, batch: float) -> Made:
    """Return a run whose noise scale is trace / gradient_sq, in batches of so many samples."""
    made = Made(rule)
    made.add("train", {**train(losses), "samples": np.full(len(losses), batch)})
    steps = list(range(5, len(losses), 5))
    draw = np.random.default_rng(3)
    wobble = draw.normal(1.0, 0.05, len(steps))
    made.add(
        "noise",
        {
            "small_sq": (gradient_sq + trace / (batch / 2)) * wobble,
            "big_sq": (gradient_sq + trace / batch) * draw.normal(1.0, 0.05, len(steps)),
            "small": np.full(len(steps), batch / 2),
            "big": np.full(len(steps), batch),
        },
        steps,
    )
    return made


def test_a_batch_under_the_noise_counts_where_the_loss_stands_and_only_there() -> None:
    (finding,) = noisy("batch_too_small", flat(450), 0.001, 10.0, 8).judge()
    assert finding.severity == "warning"
    assert noisy("batch_too_small", falling(450), 0.001, 10.0, 8).judge() == []
    assert noisy("batch_too_small", flat(450), 10.0, 10.0, 8).judge() == []


def test_late_in_training_a_small_batch_is_an_opportunity() -> None:
    losses = np.concatenate([falling(600, noise=0.0), flat(400, at=0.3, noise=0.005)])
    (finding,) = noisy("batch_too_small", losses, 0.001, 10.0, 8).judge()
    assert finding.severity == "info"
    assert "Stuck" not in finding.title, "it has learned most of what there was"


def test_a_batch_far_over_the_noise_is_told_after_200_steps_with_what_it_costs() -> None:
    made = noisy("batch_too_large", falling(700), 1.0, 60.0, 1024)
    (finding,) = made.judge()
    advice = finding.recommendation
    assert finding.severity == "info"
    assert advice is not None
    assert advice.parameter == "batch_size"
    assert 60 < advice.proposed < 200
    assert noisy("batch_too_large", falling(240), 1.0, 60.0, 1024).judge() == []
    assert noisy("batch_too_large", falling(700), 1.0, 600.0, 1024).judge() == []


def test_without_samples_of_noise_neither_is_judged() -> None:
    made = Made("batch_too_small", "batch_too_large")
    made.add("train", train(flat(450)))
    assert made.judge() == []
    assert not made.judged("batch_too_small")
    assert not made.judged("batch_too_large")


def test_a_smaller_batch_is_twice_the_noise_scale_in_whole_ranks() -> None:
    numbers = load("batch_too_large")
    context = Context(Meta(world_size=8), Facts(), numbers, numbers)
    batch, saved = smaller_batch(context, 1024, 61.0)
    assert batch % 8 == 0 and abs(batch - 122) <= 4
    assert saved == pytest.approx(1 - (batch + 61) / (1024 + 61))
    assert noise_over_batch(Window(History(), 100), context, 4) is None


def test_where_the_gradient_drowns_the_noise_scale_still_has_a_lower_bound() -> None:
    """The lower end covers the truth in 95 % of seeds, also where there is no upper end."""
    truth, covered, bounded, n = 4000.0, 0, 0, 150
    for seed in range(n):
        draw = np.random.default_rng(seed)
        estimator = NoiseScaleEstimator(decay=1.0)
        for _ in range(60):
            halves = draw.normal(1 / math.sqrt(100), math.sqrt(truth / 100 / 8), (2, 100))
            whole = float((halves.mean(0) ** 2).sum())
            estimator.update(float((halves**2).sum(1).mean()), whole, 8, 16)
        assert (
            math.isnan(estimator.estimate().scale)
            or estimator.at_least() == estimator.estimate().low
        )
        covered += estimator.at_least() < truth
        bounded += math.isfinite(estimator.at_least())
    assert bounded > 0.9 * n
    assert covered > 0.93 * bounded


# ---- missing_warmup, ill_conditioned, nonlinear_step -------------------------------------


def test_a_first_leap_with_long_steps_wants_a_warm_up_unless_the_attempt_was_resumed() -> None:
    losses = falling(200)
    losses[5:20] = 6.0
    made = Made("missing_warmup", optimizers=[ADAM])
    made.add("train", train(losses))
    made.add("gradients", {}, [1, 10], layer_steps(0.07, 2))
    (finding,) = made.judge()
    assert finding.recommendation is not None
    assert finding.recommendation.proposed == 2000
    few = Made("missing_warmup", optimizers=[ADAM])  # samples: three in a hundred are as high
    few.add("train", train(falling(200) * np.random.default_rng(0).gamma(4, 0.25, 200)))
    few.add("gradients", {}, [1, 10], layer_steps(0.2, 2))
    assert few.judge() == []
    short = Made("missing_warmup", optimizers=[ADAM])
    short.add("train", train(losses))
    short.add("gradients", {}, [1, 10], layer_steps(0.01, 2))
    assert short.judge() == []


def gains(values: list[float], losses: np.ndarray, **meta: object) -> Made:
    made = Made("ill_conditioned", **meta)
    made.add("train", train(losses))
    steps = list(range(20, 20 + 60 * len(values), 60))
    made.add("curvature", {"newton_gain": values}, steps)
    made.add(
        "gradients", {}, [20, 80], {"weight_sq": {"0": [16.0, 16.0]}, "numel": {"0": [1600.0] * 2}}
    )
    return made


def test_three_large_gains_and_a_slow_loss_ask_for_adam_with_a_rate_from_the_weights() -> None:
    slow = np.linspace(1.02, 1.0, 420)
    (finding,) = gains([50.0] * 5, slow).judge()
    advice = finding.recommendation
    assert advice is not None
    assert advice.proposed == {"name": "Adam", "lr": 0.002}  # 2 % of a root mean square of 0.1
    assert "torch.optim.Adam" in advice.snippet
    assert gains([50.0, 50.0, 12.0, 50.0, 50.0], slow).judge() == []
    assert gains([50.0] * 5, falling(420, end=0.0, noise=0.0)).judge() == []


def test_gains_too_few_or_of_adam_are_not_judged() -> None:
    few = gains([50.0, 50.0], flat(420))
    assert few.judge() == []
    assert few.why("ill_conditioned") == "curvature was sampled 2 times, 3 are needed"
    adam = gains([50.0] * 5, flat(420), optimizers=[ADAM])
    assert adam.judge() == []
    assert not adam.judged("ill_conditioned")


def scans(horizons: list[float], alphas: list[float], losses: np.ndarray) -> Made:
    made = Made("nonlinear_step")
    made.add("train", train(losses))
    steps = list(range(20, 20 + 40 * len(horizons), 40))
    made.add("landscape", {"horizon": horizons, "alpha": alphas}, steps)
    return made


def test_scans_that_fail_within_a_step_lower_the_rate_by_the_horizon() -> None:
    (finding,) = scans([0.5, 0.25, 2.0, 0.5, 0.5], [0.0] * 5, flat(300)).judge()
    advice = finding.recommendation
    assert advice is not None
    assert (advice.proposed, advice.basis) == (0.05, "derived")
    assert (
        scans([0.5, 0.25, 2.0, 0.5, 0.5], [0.0] * 5, falling(300, end=0.0, noise=0.0)).judge() == []
    )
    assert scans([0.5, 4.0, 2.0, 8.0, 0.5], [0.0] * 5, flat(300)).judge() == []


def test_steps_that_land_too_far_count_by_their_median_of_five() -> None:
    wide = [16.0] * 6
    (finding,) = scans(wide, [1.5, 2.0, -0.5, 1.4, 1.2, 3.0], flat(300)).judge()
    assert finding.recommendation is not None
    assert finding.recommendation.basis == "rule of thumb"
    assert scans(wide[:4], [1.5] * 4, flat(300)).judge() == []


def test_a_plateau_in_noise_names_the_noise_and_a_larger_batch_to_choose() -> None:
    (finding,) = noisy("plateau", flat(450), 0.001, 10.0, 8).judge()
    assert finding.not_measured == []
    assert any("noise scale" in evidence.text for evidence in finding.because)
    advice = finding.recommendation
    assert advice is not None
    assert advice.alternatives[0]["parameter"] == "batch_size"
    (quiet,) = noisy("plateau", flat(450), 10.0, 10.0, 8).judge()
    assert quiet.recommendation is not None
    assert quiet.recommendation.alternatives == []
