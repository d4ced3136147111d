"""Gradients explode: their norm leaves what was usual, and the loss goes up with it.

What: three of the last hundred norms over both three times the 95th percentile and eight times
the median of the 200 before; or the median of 50 four times the one before; and in each case the
loss above its own median. Norms under twice the run's first ones do not count: late in training
all norms are small and a single hard batch stands out. Where the norm was not measured at every
step, lone spikes of the loss that throw the run back tell the same, a single one where the loss does not
come back by itself. With two losses against each other,
and in reinforcement learning, the loss is no measure: there it is information only. So it is where norms
and losses are high in one stretch of steps, from its first one on: its batches threw both up.
Why: one such step undoes hundreds of good ones; norms that go on growing end in NaN.
Source: Pascanu et al. 2013 (clipping); measured on a digits net under periodic batches × 30:
clipping at the 90th percentile brings accuracy from 0.77 to 0.97.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json, Severity
from ..advice import lower_rate
from ..clip_values import clip_by_few, clip_by_norms
from ..facts import BLOCK
from ..medians import median_of, quantiles_of
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import tighter
from ..spikes import AROUND, bursts, single_spikes
from ..standing import error_of, spread_of
from ..windows import Samples, Window
from ..words import count, listing, number, percent

FAMILY = "train"
FROM_START = True
UNMEASURED = ("gan", "reinforcement")
"""Task profiles in which the loss does not tell how well a run goes."""


STRETCH = 50
"""Steps that a stretch of bad batches lasts at most: norms that stay high for longer are no such thing."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """Norms that left the usual: where, how large, and what was usual before."""

    steps: np.ndarray
    norms: np.ndarray
    before: np.ndarray
    limit: float
    sustained: bool
    of_loss: bool = False
    """`norms` are losses: the norm was not measured at those steps."""
    few: bool = False
    """Too few norms were measured shortly before to say what was usual."""


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep the step of a lone spike of the loss, until the loss is better than it was before.

    And the `first` of the spikes that follow one another: norms behind it are not of usual steps.
    """
    losses = window.samples("train", "loss", count=BLOCK).finite
    floor = context.facts.spike_floor(context.thresholds)
    found = single_spikes(losses.values, context.thresholds, floor)
    episode = _episode(losses.steps[found], window.step, context)
    kept = context.memory.get("single")
    if isinstance(kept, int) and context.facts.loss_best_step <= kept + BLOCK:
        return {"single": kept, **episode}
    usual = median_of(losses.values)
    for i in found[
        found < len(losses) - AROUND
    ].tolist():  # one at the end may be the first of many
        behind = float(losses.values[i + 1 : i + 1 + AROUND].max()) - usual
        if behind < context.thresholds["single"] * (float(losses.values[i]) - usual):
            return {"single": int(losses.steps[i]), **episode}
    return episode


def _episode(spikes: np.ndarray, step: int, context: Context) -> dict[str, Json]:
    """Return the `first` spike and the `latest`, of those with less than a window between two of them."""
    first, latest = context.memory.get("first"), context.memory.get("latest")
    if len(spikes):
        latest = max(int(spikes[-1]), int(latest or 0))
        first = int(spikes[0]) if first is None else first
    over = latest is None or int(latest) <= step - context.thresholds["burst_window"]
    return {} if over else {"first": first, "latest": latest}


def judge(window: Window, context: Context) -> Verdict:
    """Breach where gradient norms leave the usual and the loss follows."""
    numbers = context.thresholds
    squares = window.samples("train", "grad_sq", span=numbers.span).finite
    losses = window.samples("train", "loss", span=numbers.span).finite
    if len(losses) < 2 * numbers.min_samples:
        return unknown(
            f"fewer than {2 * numbers.min_samples} finite losses since the windows began"
        )
    if len(squares) and not squares.values.any():
        return fine()  # steps of nothing undo nothing: the batches differ
    seen = None
    if len(squares) >= numbers.min_samples:
        seen = _look(squares, context)
    if seen is None or not len(seen.steps):
        seen = _lone_losses(losses, squares, context) or _single(losses, squares, context) or seen
    if seen is None:
        return unknown(f"fewer than {numbers.min_samples} gradient norms to compare")
    strength = 1.0 if _thrown_back(losses, context) else _strength(seen)
    if not len(seen.steps):
        return fine(strength)
    up, now, usual = _loss_is_up(losses, seen, int(numbers["usual"]))
    since = losses.values[losses.steps >= seen.steps[0]]
    # what one batch threw up may take a while to come back by itself
    lone = seen.of_loss and len(seen.steps) < numbers["spikes"]
    if seen.of_loss and len(since) < numbers["usual_lone" if lone else "usual"]:
        return fine(strength)
    if lone and _comes_back(since, usual, numbers["coming_back"]):
        return fine(strength)
    damaged = now - usual > numbers["loss_rise"] * context.facts.loss_scale
    undone = seen.of_loss and _undone(context, now)
    # that it was a single batch is told by what has not come back since, for as long
    damaged = undone or (damaged and not (lone and _is_single(losses, seen, context)))
    if not (up and damaged and _beyond_noise(losses, seen, now - usual, numbers["errors"])):
        return fine(strength)  # keeps a finding that stands, and makes none
    # a loss that comes back between the bursts has not gone to waste
    stays = float(np.quantile(since, 0.1)) - usual
    least = max(
        abs(usual) * (numbers["doubled"] - 1), numbers["loss_rise"] * context.facts.loss_scale
    )
    severity: Severity | None = "critical" if stays > least else None
    stretch = _in_one_stretch(squares, losses, seen, usual, numbers["single"])
    if stretch or context.meta.task in UNMEASURED:
        severity = "info"
    return breach(strength, _case(window, context, seen, now, usual, severity))


def _in_one_stretch(
    squares: Samples, losses: Samples, seen: _Seen, usual: float, share: float
) -> bool:
    """Tell whether the norms were high in one stretch of steps whose losses were high from the first one on.

    The weights were sound at that step: its batch, and those behind it, threw both up. Between lone bad
    batches norms are usual again, and the loss comes back by most of what it rose.
    """
    if seen.of_loss:
        return False
    first, last = seen.steps[0], seen.steps[-1]
    measured = int(((squares.steps >= first) & (squares.steps <= last)).sum())
    if 2 * len(seen.steps) < measured or last - first > STRETCH:
        return False
    rises = losses.values[(losses.steps >= first) & (losses.steps <= last)] - usual
    least = share * float(rises.max(initial=0.0))
    return len(rises) >= AROUND and min(float(rises[0]), median_of(rises)) > least > 0


def _comes_back(since: np.ndarray, usual: float, share: float) -> bool:
    """Tell whether what a batch threw up is on its way down: the later half of it lies nearer to the usual.

    With Adam that takes as long as its second moment holds that batch: steps are shorter by then.
    """
    half = len(since) // 2
    return median_of(since[half:]) - usual < share * (median_of(since[:half]) - usual)


def _thrown_back(losses: Samples, context: Context) -> bool:
    """Tell whether the run has not come back yet from bursts that were seen: not over by then."""
    facts, numbers = context.facts, context.thresholds
    now = median_of(losses.values[-numbers.window :])
    damage = now - facts.loss_best
    left = damage > numbers["loss_rise"] * facts.loss_scale
    single = context.memory.get("single")
    if single is not None and _undone(context, now):
        return True
    return facts.bursts_step > facts.loss_best_step and left


def _look(squares: Samples, context: Context) -> _Seen:
    numbers, steps = context.thresholds, squares.steps
    fresh = len(steps) - int(steps.searchsorted(steps[-1] - numbers["burst_window"], "right"))
    recent = min(fresh, len(steps) // 2)
    looked = recent + max(int(numbers["before"]), numbers.window)
    steps, norms = steps[-looked:], np.sqrt(squares.values[-looked:])
    before = norms[:-recent][-int(numbers["before"]) :]
    median = median_of(before)
    floor = numbers["of_start"] * context.facts.grad_start
    limit = max(numbers["p95"] * quantiles_of(before, 0.95)[0], numbers.fire * median, floor)
    high = norms[-recent:] > limit
    bursts = int(high.sum()) >= numbers["burst"]
    half = norms[-numbers.window :]
    settled = median_of(half) > max(numbers["sustained"] * median, floor)
    if settled and not bursts:
        high = norms[-recent:] > numbers["sustained"] * median
    found = high if bursts or settled else np.zeros_like(high)
    return _Seen(steps[-recent:][found], norms[-recent:][found], before, limit, settled)


def _lone_losses(losses: Samples, squares: Samples, context: Context) -> _Seen | None:
    """Return bursts that only the loss shows: norms are not always measured at every step."""
    numbers = context.thresholds
    recent = losses.steps > losses.steps[-1] - numbers["burst_window"]
    steps, values = losses.steps[recent], losses.values[recent]
    floor = context.facts.spike_floor(numbers)
    spikes = bursts(values, numbers, floor)
    if not len(spikes):
        return None
    return _of_losses(steps[spikes], values[spikes], squares, context)


def _of_losses(
    steps: np.ndarray, losses: np.ndarray, squares: Samples, context: Context
) -> _Seen | None:
    """Return bursts of the loss with the norms that were measured before the first one; None without any.

    That is the first of all that followed one another: those in the window may be later ones.
    """
    numbers = context.thresholds
    begun = min(int(steps[0]), int(context.memory.get("first") or steps[0]))
    if not (squares.steps < begun).any():
        begun = int(steps[0])
    before = squares.steps < begun
    norms, at = np.sqrt(squares.values[before]), squares.steps[before]
    if not len(norms):
        return None
    near = norms[at >= begun - numbers["burst_window"]]
    # norms of the start tell nothing of what is usual now
    few = len(near) < numbers["few_norms"]
    floor = context.facts.spike_floor(numbers)
    return _Seen(steps, losses, norms if few else near, floor, False, of_loss=True, few=few)


def _single(losses: Samples, squares: Samples, context: Context) -> _Seen | None:
    """Return the one batch that threw the loss up, where only the loss shows it, None where there is none."""
    at = np.flatnonzero(losses.steps == context.memory.get("single", -1))
    return _of_losses(losses.steps[at], losses.values[at], squares, context) if len(at) else None


def _is_single(losses: Samples, seen: _Seen, context: Context) -> bool:
    """Tell whether the losses behind a lone spike were no such ones, be it the first of the run or a later one."""
    step = int(seen.steps[0])
    if step == context.memory.get("single"):
        return True
    usual = median_of(losses.values[losses.steps < step][-BLOCK:])
    behind = losses.values[losses.steps > step][:AROUND].max(initial=-math.inf) - usual
    return bool(behind < context.thresholds["single"] * (float(seen.norms[0]) - usual))


def _strength(seen: _Seen) -> float:
    if not len(seen.norms) or not math.isfinite(seen.limit) or seen.limit <= 0:
        return 0.0
    if seen.of_loss:
        return 1.0
    return float(median_of(seen.norms) / seen.limit)


def _loss_is_up(losses: Samples, seen: _Seen, count: int) -> tuple[bool, float, float]:
    """Compare the losses since the onset with those before it: medians, so that bursts alone count little.

    `count`: losses just before the onset that tell where it stood; more, and a loss that was
    falling looks higher than it was.
    """
    earlier = losses.steps < seen.steps[0]
    before, since = losses.values[earlier], losses.values[~earlier]
    if not len(before) or not len(since):
        return False, math.nan, math.nan
    usual, now = median_of(before[-count:]), median_of(since)
    at = np.isin(losses.steps, seen.steps)
    hit = median_of(losses.values[at]) if at.any() else now
    low, high = quantiles_of(before[-100:], 0.25, 0.75)
    return (now > usual + 0.25 * (high - low) and hit > usual), now, usual


def _undone(context: Context, now: float) -> bool:
    """Tell whether half of what the run had learned is gone: a little, where it had just begun to."""
    facts = context.facts
    learned = facts.loss_start - facts.loss_best
    return learned > 0 and now - facts.loss_best > context.thresholds["undone"] * learned


def _beyond_noise(losses: Samples, seen: _Seen, rise: float, errors: float) -> bool:
    """Tell whether the loss rose by more than two medians differ by, of so many losses."""
    before = losses.values[losses.steps < seen.steps[0]][-100:]
    since = int((losses.steps >= seen.steps[0]).sum())
    error = error_of(spread_of(before), min(len(before), since))
    return rise > errors * error


def _case(
    window: Window,
    context: Context,
    seen: _Seen,
    now: float,
    usual: float,
    severity: Severity | None,
) -> Case:
    onset, median = int(seen.steps[0]), median_of(seen.before)
    worst = int(np.argmax(seen.norms))
    how = "and stay there" if seen.sustained else f"in {count(len(seen.steps), 'step')}"
    because = [
        _burst_of_loss(seen, worst, usual)
        if seen.of_loss
        else Evidence(
            f"gradient norm {number(float(seen.norms[worst]))} at step {int(seen.steps[worst]):,}; "
            f"{number(median)} was usual, over {number(seen.limit)} {how}",
            "train",
            "grad_sq",
            int(seen.steps[worst]),
            float(seen.norms[worst]) ** 2,
            seen.limit**2,
        ),
        Evidence(
            f"loss {number(usual)} before, {number(now)} since",
            "train",
            "loss",
            window.step,
            now,
            usual,
        ),
    ]
    layers, shares = _largest_shares(window)
    what = (
        f"single batches throw the loss to {number(float(seen.norms[worst]))}"
        if seen.of_loss
        else f"up to {number(float(seen.norms[worst]) / median)} times their usual norm"
    )
    if layers:
        text = f"{percent(sum(shares))} of it in {listing(layers)}"
        because.append(Evidence(text, "gradients", f"grad_sq/{layers[0]}", None, shares[0], None))
    return Case(
        title=f"Gradients explode: {what}",
        why="One such step undoes hundreds of good ones; norms that go on growing end in NaN.",
        because=tuple(because),
        recommendation=_advice(window, seen, context, onset),
        may_be_normal="A norm that grows slowly over the whole run; single hard batches, where "
        "the loss comes back by itself.",
        severity=severity,
        layers=tuple(layers),
        onset=onset,
    )


def _burst_of_loss(seen: _Seen, worst: int, usual: float) -> Evidence:
    value, step = float(seen.norms[worst]), int(seen.steps[worst])
    text = (
        f"loss {number(value)} at step {step:,}, {number(usual)} was usual; "
        f"{count(len(seen.steps), 'such step')} in the last hundred"
    )
    return Evidence(text, "train", "loss", step, value, usual)


def _largest_shares(window: Window) -> tuple[list[str], list[float]]:
    squares = window.layers("gradients", "grad_sq", count=10, span=100)
    if not len(squares):
        return [], []
    finite = np.where(np.isfinite(squares.values), squares.values, 0.0)
    row = finite[int(np.argmax(finite.sum(axis=1)))]
    total = float(row.sum())
    if total <= 0:
        return [], []
    order = np.argsort(-row)[:3]
    return [squares.layers[i] for i in order], [float(row[i] / total) for i in order]


def _advice(window: Window, seen: _Seen, context: Context, onset: int) -> Recommendation:
    clip = _clip(seen, context, onset)
    if tighter(context, clip.proposed):
        return clip
    # clipped to less than that already, and the loss went up all the same: the steps are too long
    return lower_rate(window, context, rollback_before=None)


def _clip(seen: _Seen, context: Context, onset: int) -> Recommendation:
    numbers = context.thresholds
    norms = seen.before[-int(numbers["clip_samples"]) :]
    if seen.few or len(norms) < numbers["few_norms"]:
        return clip_by_few(norms, context, onset)
    return clip_by_norms(norms, context, onset)
