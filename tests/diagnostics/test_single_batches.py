"""Single bad batches: those that a run digests, those that undo what it learned, and the tails of few samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from otoscope.diagnostics.rule import Case, Context, Verdict, breach
from otoscope.diagnostics.windows import Window
from otoscope.store import Evidence, Recommendation

from .made import ADAM, Made, falling, flat, train
from .scripted import ADVICE, a_fold, frames
from .scripted import rule as scripted_rule


def spikes(losses: np.ndarray) -> list[tuple[str, str]]:
    made = Made("loss_spike", optimizers=[ADAM])
    made.add("train", train(losses))
    return [(item.rule, item.severity) for item in made.judge()]


def thrown(top: float, echo: float, lasts: int) -> np.ndarray:
    """Return losses of which that of step 300 is `top`, and those behind it come down from `echo`."""
    losses = falling(500, begin=1.0, end=0.06, noise=0.005)
    losses[299] = top
    losses[301 : 301 + lasts] += echo * np.linspace(1, 0.1, lasts)
    return losses


def test_what_a_single_batch_leaves_behind_is_no_spike_of_many() -> None:
    assert spikes(thrown(3.0, 0.4, 40)) == []
    assert spikes(thrown(0.5, 0.4, 40)) == [("loss_spike", "warning")]


def test_an_echo_that_does_not_go_by_is_told() -> None:
    ((rule, severity),) = spikes(thrown(3.0, 0.6, 180))
    assert (rule, severity) == ("loss_spike", "warning")


def test_what_was_high_before_the_highest_loss_is_no_echo_of_it() -> None:
    losses = falling(340, begin=1.0, end=0.06, noise=0.005)
    losses[299:305] = [10.0, 12.0, 11.0, 9.0, 14.0, 9.0]  # loud batches
    losses[305] = 40.0
    assert [rule for rule, _ in spikes(losses)] == ["loss_spike"]


@pytest.mark.parametrize(("top", "told"), [(12.0, False), (3.0, True)])
def test_the_echo_of_a_batch_far_over_all_others_lasts_for_longer(top: float, told: bool) -> None:
    losses = thrown(top, 0.4, 140)[:410]
    assert bool(spikes(losses)) is told


def explosions(losses: np.ndarray, norms: float = 0.5) -> list[Recommendation | None]:
    """Judge losses of a run whose norms were measured in its first 30 steps alone."""
    measured = np.where(np.arange(len(losses)) < 30, norms**2, np.nan)
    made = Made("exploding_gradients")
    made.add("train", train(losses, grad_sq=measured))
    return [item.recommendation for item in made.judge()]


@pytest.mark.parametrize("stays", [2.3, 2.05])
def test_one_batch_that_undoes_what_was_learned_is_clipped(stays: float) -> None:
    losses = flat(450, at=2.0, noise=0.02)
    losses[:180] += np.linspace(0.3, 0, 180)
    losses[181] = 12.0
    losses[182:] += stays - 2.0
    advice = explosions(losses)
    if stays < 2.1:  # it came back
        assert advice == []
        return
    (clip,) = advice
    assert clip is not None
    # norms of the first steps tell nothing of what is usual 150 steps later: not their quantile
    assert (clip.parameter, clip.proposed) == ("gradient_clip_val", 1.5)


def test_one_batch_after_which_the_loss_comes_back_by_itself_is_waited_for() -> None:
    def behind(comes_back: float) -> np.ndarray:
        losses = falling(440, begin=1.0, end=0.05, noise=0.005)
        losses[309] = 7.0
        losses[310:] += np.exp(-np.arange(130) / comes_back)
        return losses

    assert explosions(behind(60.0)) == []
    assert len(explosions(behind(400.0))) == 1


def test_a_second_batch_far_from_the_first_is_as_single_as_that_one() -> None:
    losses = falling(430, begin=1.0, end=0.05, noise=0.005)
    losses[[170, 310]] = 20.0
    losses[170:310] += 0.2 + 0.3 * np.exp(-np.arange(140) / 20)  # not quite what it was before
    losses[311:] += 0.4  # a third of what was learned
    assert explosions(losses) == []
    losses[311:] += 0.6  # most of it
    assert len(explosions(losses)) == 1


def swinging(top: float, course: np.ndarray, longest: float = 0.38) -> list[Recommendation | None]:
    """Judge the swings of losses behind steps of which the one of step 240 moved the weights most."""
    made = Made("oscillating_loss", optimizers=[{"name": "SGD", "lr": 1.0, "momentum": 0.9}])
    losses = np.concatenate([falling(233, 2.3, 2.0, 0.02), [top], course])
    made.add("train", train(losses, lr=1.0))
    sizes = [0.02**2, longest**2, 0.001**2]
    rows = {"update_sq": {"0": sizes, "1": sizes}, "weight_sq": {"0": [1.0] * 3, "1": [1.0] * 3}}
    made.add("gradients", {}, [1, 240, 320], rows)
    return [item.recommendation for item in made.judge()]


def test_a_long_step_behind_a_single_batch_is_no_rates_doing() -> None:
    stands = flat(300, 2.1, 0.02)
    (advice,) = swinging(2.0, stands)
    assert advice is not None
    # by how long the first step was, and not half of it: 1 % of the weights, of 20 % in the long run
    assert (advice.parameter, advice.proposed) == ("lr", pytest.approx(0.05))
    assert swinging(900.0, stands) == []


def test_a_step_of_a_twentieth_of_the_weights_is_met_in_sound_runs_that_stand_at_their_noise() -> (
    None
):
    stands = flat(300, 2.1, 0.02)
    assert swinging(2.0, stands, longest=0.06) == []


@pytest.mark.parametrize(("spread", "fires"), [(0.1, True), (0.7, False)])
def test_losses_of_a_few_samples_have_tails_of_their_own(spread: float, fires: bool) -> None:
    draw = np.random.default_rng(3)
    losses = 0.6 * np.exp(spread * draw.standard_normal(500))
    losses[:100] += np.linspace(1.0, 0, 100)
    losses[[350, 371]] = 4.5
    losses[351:] *= 1.25
    assert bool(explosions(losses)) is fires


def overfitted(losses: np.ndarray, accuracy: np.ndarray | None = None) -> list[tuple[str, int]]:
    """Judge a run that validates every 20 steps while its training loss goes to zero."""
    made = Made("overfitting")
    n = 20 * len(losses)
    columns = (
        {"val_loss": losses} if accuracy is None else {"val_loss": losses, "val_acc": accuracy}
    )
    made.add("validation", columns, steps=range(20, n + 1, 20))
    made.add("train", train(np.geomspace(1.6, 0.002, n)))
    return [(item.severity, item.first_step) for item in made.judge()]


def test_a_loss_by_heart_that_is_worse_than_knowing_nothing_is_no_information() -> None:
    fell, rises = np.linspace(1.6, 1.2, 6), np.linspace(0.2, 0.4, 20)
    stands = np.r_[rises, np.full(10, 0.4)]
    assert overfitted(np.r_[fell, np.linspace(1.2, 1.8, 24)], stands) == []
    assert overfitted(np.r_[fell, np.linspace(1.2, 3.0, 24)], stands)[0][0] == "warning"
    goes_on = np.linspace(0.2, 0.6, 30)
    assert overfitted(np.r_[fell, np.linspace(1.2, 3.0, 24)], goes_on)[0][0] == "info"


def test_a_rise_that_goes_on_becomes_a_warning() -> None:
    fell = np.linspace(1.0, 0.5, 6)
    assert overfitted(np.r_[fell, np.linspace(0.5, 0.58, 24)]) == [("info", 121)]
    assert overfitted(np.r_[fell, np.linspace(0.5, 0.7, 24)]) == [("warning", 121)]


def test_a_finding_that_began_as_information_comes_to_its_usual_severity() -> None:
    def judge(window: Window, context: Context) -> Verdict:
        mild = window.step < 50
        told = Evidence("a loss", "train", "loss", window.step, 1.0, 1.0)
        case = Case("it", "so", (told,), ADVICE, "never", severity="info" if mild else None)
        return breach(2.0, case)

    rule = replace(scripted_rule(), judge=judge)
    fold = a_fold(rule)
    fold.push(frames(range(1, 46)))
    fold.judge()
    assert [item.severity for item in fold.findings()] == ["info"]
    fold.push(frames(range(46, 91)))
    fold.judge()
    assert [item.severity for item in fold.findings()] == ["warning"]


def test_a_gradient_that_stood_out_once_is_not_where_a_stale_moment_began() -> None:
    ratios = np.ones(40)
    ratios[30], ratios[34:38] = 4.3, 5.0  # of every tenth step
    made = Made("stale_second_moment", optimizers=[ADAM])
    made.add("train", train(flat(400)))
    layers = {"adam_ratio": {"0": ratios.tolist()}}
    made.add("gradients", {}, steps=range(10, 401, 10), layers=layers)
    (finding,) = made.judge()
    assert finding.first_step == 350


@pytest.mark.parametrize(("leap", "named"), [(40.0, "exploding_gradients"), (0.0, "lr_too_high")])
def test_a_run_that_one_batch_blew_up_had_no_rate_that_was_too_high(
    leap: float, named: str
) -> None:
    losses = falling(500, begin=1.0, end=0.05, noise=0.005)
    losses[300:] = np.minimum(
        0.05 * 1.05 ** np.arange(200), 5.0
    )  # a rate too high climbs by and by
    if leap:
        losses[300:] = 2.0
        losses[300] = leap
    norms, ratios = np.full(500, 0.3), np.full(500, 0.005)
    norms[300:], ratios[300:] = 30.0, 0.1
    made = Made("lr_too_high", "exploding_gradients")
    made.add("train", train(losses, grad_sq=norms**2))
    layers = {"update_sq": {"0": (ratios**2).tolist()}, "weight_sq": {"0": [1.0] * 500}}
    made.add("gradients", {}, layers=layers)
    assert made.judge()[0].rule == named
