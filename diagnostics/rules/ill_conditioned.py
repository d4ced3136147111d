"""The loss is ill-conditioned: plain gradient steps crawl along the flat directions.

What: one damped Newton step is worth more than 30 stable gradient steps in each of the last three
samples of curvature, and the loss falls slowly (by less than a tenth in 200 steps), or consecutive
gradients point against each other (median cosine under −0.3); where curvature was sampled too
rarely, the loss falls slowly while gradients do. Not judged with Adam and its kin,
which scale each weight already. An opportunity, not a fault.
Why: the steepest direction limits the step for all others; along those a hundred steps do what one
could.
How far to trust it: the gain holds where it is measured (rank correlation 0.97 with the steps saved
there); it does not rank nets by what a whole training saves (docs/trust.md).
Source: Nocedal and Wright 2006, chapter 3; Martens 2010; measured: 2 to 20 in healthy nets.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ..advice import current_rate
from ..progress import course, scheduled
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import optimizer_with
from ..windows import Window
from ..words import count, number, rounded

FAMILY = "train"


def judge(window: Window, context: Context) -> Verdict:
    """Breach where several Newton gains in a row are large and the loss is slow."""
    numbers = context.thresholds
    if context.adaptive:
        return unknown(f"{context.optimizer_name} scales each weight's step already")
    readings = [r for r in context.obstacles.readings.get("newton_gain", []) if r[0] > window.since]
    recent = np.array(readings[-int(numbers.min_samples) :], dtype=float).reshape(-1, 2)
    cosines = window.samples("gradients", "grad_cosine", count=10).finite
    zigzag = float(np.median(cosines.values)) if len(cosines) >= 3 else math.nan
    known = len(recent) >= numbers.min_samples
    # with Newton gains at hand three cosines are a second witness; alone more are asked for
    turns = len(cosines) >= numbers["pairs"] and zigzag < numbers["zigzag"]
    turns = turns and not _parts_of_one_set(context)
    if not (known or turns):
        return unknown(
            f"curvature was sampled {count(len(recent), 'time')}, {numbers.min_samples} are needed"
        )
    gain = float(recent[:, 1].min()) if known else math.nan
    if known and gain <= numbers.fire:
        return fine(gain / numbers.fire)
    schedule = scheduled(window, context, numbers.window, numbers.span, numbers["decay"])
    if schedule is not None:
        return unknown(schedule)
    losses = window.samples("train", "loss", count=numbers.window, span=numbers.span).finite
    if len(losses) < numbers.window // 2:
        return unknown("too few losses since the windows began")
    trend = course(losses.steps, losses.values, int(numbers["block"]))
    floor = trend.now < numbers["floor"] * abs(context.facts.loss_start)
    slow = trend.improvement < numbers["slow"] and not floor
    if not (slow or (known and zigzag < numbers["zigzag"])):
        return fine(0.5)
    case = _case(window, context, recent, trend.improvement, zigzag)
    return breach(gain / numbers.fire if known else zigzag / numbers["zigzag"], case)


def _parts_of_one_set(context: Context) -> bool:
    """Tell whether a few batches make the data set: what one has too much of, the next one lacks."""
    rows, batch = context.meta.training_samples, context.obstacles.noise.batch
    return bool(rows and batch and rows / 4 < batch < rows)


def _case(
    window: Window, context: Context, recent: np.ndarray, improvement: float, zigzag: float
) -> Case:
    numbers = context.thresholds
    known, title = len(recent) >= numbers.min_samples, "Ill-conditioned: plain steps go to and fro"
    because = []
    if known:
        gain, step = float(np.median(recent[:, 1])), int(recent[-1, 0])
        title = f"Ill-conditioned: plain steps do in {number(gain)} what one could do"
        text = (
            f"one curvature-aware step is worth {number(gain)} plain gradient steps "
            f"({number(float(recent[:, 1].min()))} to {number(float(recent[:, 1].max()))} in the "
            f"last {len(recent)} samples)"
        )
        because.append(Evidence(text, "curvature", "newton_gain", step, gain, numbers.fire))
    text = f"the loss improved by {100 * improvement:.1f} % in {numbers.window} steps"
    slow = numbers["slow"]
    because.append(Evidence(text, "train", "loss", window.step, improvement, slow))
    if zigzag < numbers["zigzag"]:
        text = f"consecutive gradients point against each other (median cosine {zigzag:.2f})"
        limit = numbers["zigzag"]
        because.append(Evidence(text, "gradients", "grad_cosine", window.step, zigzag, limit))
    return Case(
        title=title,
        why="The steepest direction limits the step for all others; along those the loss crawls.",
        because=tuple(because),
        recommendation=_advice(window, context),
        may_be_normal="The gain rises late in every training, as the steep directions are learned "
        "first; a loss near its floor.",
    )


def _advice(window: Window, context: Context) -> Recommendation:
    rate, size = current_rate(window, context), _weight_size(window)
    aim = context.rates["adaptive_update"]
    if math.isfinite(size) and size > 0:
        value = rounded(aim * size)
        basis = "from your run"
        formula = (
            f"{number(100 * aim)} % of the weights' root mean square of {number(size)}: Adam's first "
            "step moves every weight by the whole rate"
        )
    else:
        value, basis, formula = 0.001, "rule of thumb", "what most runs with Adam begin with"
    decay = context.optimizer.get("weight_decay")
    return Recommendation(
        parameter="optimizer",
        current={"name": context.optimizer_name, "lr": rate},
        proposed={"name": "AdamW" if decay else "Adam", "lr": value},
        basis=basis,
        formula=formula,
        snippet=optimizer_with(context, value, name="AdamW" if decay else "Adam"),
        effect="each weight's step is scaled by its own gradients, so that flat directions move, "
        "too; normalization layers and standardized inputs do the same from the other side",
        verify="the loss falls by more than a tenth in 200 steps",
        risk="starts again with another optimizer; what it saves over a whole training is not told "
        "by the gain",
    )


def _weight_size(window: Window) -> float:
    """Return the median over layers of the weights' root mean square, NaN where not measured."""
    squares = window.layers("gradients", "weight_sq", group="weight")
    numels = window.layers("gradients", "numel", group="weight")
    if not len(squares) or squares.layers != numels.layers:
        return math.nan
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes = np.sqrt(squares.values / numels.values)
    known = sizes[np.isfinite(sizes).any(axis=1)]
    return float(np.nanmedian(known[-1])) if len(known) else math.nan
