"""Gradients vanish on their way to the first layers.

What: among weights of at least two dimensions, in the order of the model, the gradient rms falls
steadily (rank correlation over 0.8; one layer may stand at another place than it is run) until the first
layer's is less than a ten-thousandth of the last one's, and the first layer moves by less than a millionth of its weights; in 3 of 4
samples (one, where it is a hundred times less than that), while the loss has not fallen by a fifth. Norms and biases have small gradients by nature
and do not count. Where activations squash, a hundredth is too little, if the first layer's steps are a twentieth
of the last one's (of their weights; Adam's are not) while the loss has not left its start for 200 steps and a tenth of the run. So
it is, after 300 steps, of fewer layers and whatever each of their weights gets, where plain steps are not long and
sigmoids left a thousandth of the gradient's energy at the first step. Not where a rate under a hundredth of the highest
explains it, at which no layer moves by what runs need to leave their start. Or nothing comes back to any weight: a gradient norm of exactly zero in five measurements and
more over 20 steps, since the first one, or later while the loss is over half of its start.
Why: the first layers stay as they were drawn, and the last ones learn on noise.
Source: Glorot and Bengio 2010; measured: sigmoid × 8 gives a ratio of 2.5e-7, healthy nets 0.22
to 5.9.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate, highest_rate, sound_step
from ..as_drawn import Drawn
from ..guessing import has_learned, remembered
from ..initialization import squashing
from ..no_gradient import nothing_comes_back
from ..ordering import in_order, rank_correlation
from ..passing import passing_on
from ..progress import course, largest_ratio, scheduled
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..windows import Window
from ..words import listing, number, percent

FAMILY = "gradients"
TINY = 1e-30
FEWEST = 4
"""Layers of weights among which a gradient can fade that is not judged by itself."""
LOOKS = 4
"""Samples whose median tells what squashing activations hand back: single ones leap with the batch."""
FADED = 1e-2
"""Share of the last weights' gradient that is too little where a loss stands behind squashing activations,"""
SLOWER = 0.05
"""and of the last weights' step, relative to the weights: Adam's are as long whatever the gradient."""
STANDS, UNMOVED, PATIENCE, LONGEST = 0.05, 0.95, 0.1, 2000
"""A loss stands that improves by so little in 200 steps and is over such a share of its start, or of guessing,
after such a share of the run, which is no more than so many steps."""
LOSSES, BLOCK, DECAY = 200, 20, 0.5
USUAL = 0.01
"""Share of the highest rate of all from which a rate is one that others train with."""
SLOPE, RETURNS = 0.2, 1e-3
"""The activations' part of what a layer hands back, against a ReLU's, that only sigmoids (0.12) and full tails
have, and what is left of the gradient's energy at the first layer. Sound nets of the bench that have both left
their start within 80 steps."""
SLOWLY = (300, 0.02)
"""Steps for which such a net stands, and improvement in 200 of them: two sigmoids on digits were seen to stand for
270 steps, and to learn then."""


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep what the loss of guessing is: of that is told whether anything was learned."""
    return remembered(window, context)


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the first weights get next to no gradient."""
    numbers = context.thresholds
    squares = window.layers("gradients", "grad_sq", count=1, span=numbers.span, group="weight")
    numels = window.layers("gradients", "numel", count=1, span=numbers.span, group="weight")
    if not len(squares) or squares.layers != numels.layers:
        return unknown("no gradients per layer were sampled")
    known = np.isfinite(squares.values[-1]) & (numels.values[-1] > 0)
    if known.any() and not squares.values[-1][known].any():
        nothing = nothing_comes_back(window, context)
        return fine() if nothing is None else breach(100.0, nothing, certain=True)
    if known.sum() < numbers["layers"]:  # so few that nothing can vanish on the way
        return _by_slopes(window, context) or fine()
    rms = np.sqrt(squares.values[-1][known] / numels.values[-1][known])
    # most nets need no more, and without one layer these alone can be the first and the last
    if min(rms[:2]) >= numbers.fire * max(rms[-2:]) and rms[-1] > TINY:
        small = fine(numbers.fire / float(max(rms[0], TINY) / rms[-1]))
        return _squashed(window, context) or _by_slopes(window, context) or small
    layers = [layer for layer, keep in zip(squares.layers, known, strict=True) if keep]
    first = layers[0]
    layers, rms = in_order(layers, rms, int(numbers["layers"]))
    if rms[0] == 0 and layers[0] != first:
        return fine()  # past branches that begin with no part in the net it gets to the first layer
    if rms[-1] <= TINY:
        return fine()  # next to nothing reaches the last layer either: not lost on the way
    ratio = float(max(rms[0], TINY) / rms[-1])
    strength = numbers.fire / ratio
    if strength <= 1:
        return fine(strength)
    moved = _first_update_ratio(window, layers[0])
    monotone = rank_correlation(rms)
    if monotone < numbers["monotone"] or not moved < numbers["update_ratio"]:
        return fine(0.0)
    if has_learned(window, context, context.memory, numbers["learned"]):
        return fine(0.0)
    case = _case(window, context, layers, rms, moved)
    return breach(strength, case, certain=strength > numbers["alone"])


def _stands_behind(
    window: Window, context: Context, steps: int = LOSSES, least: float = STANDS
) -> bool:
    """Tell whether a loss stands at its start behind squashing activations, for so many steps and a tenth of the run.

    `least`: the share of itself by which it would improve in 200 steps if it did not stand.
    """
    total = context.meta.max_steps
    patience = min(PATIENCE * total, LONGEST) if isinstance(total, int) else 0.0
    if window.step - context.start < max(steps, patience) or not squashing(window, context):
        return False
    losses = window.samples("train", "loss", count=LOSSES, span=2 * LOSSES).finite
    if len(losses) < 0.9 * LOSSES or scheduled(window, context, LOSSES, 2 * LOSSES, DECAY):
        return False
    if course(losses.steps, losses.values, BLOCK).improvement > least:
        return False
    if _hardly_steps(window, context):
        return False
    return not has_learned(window, context, context.memory, UNMOVED)


def _hardly_steps(window: Window, context: Context) -> bool:
    """Tell whether the rate is what holds the loss: nobody trains with it, and no layer, the last one either, moves.

    Behind sigmoids the last layers do: in twelve nets by 0.04 to 16 % of their weights a step; in one, which saw
    next to no signal, by as little as where the rate is too low, at a rate that others train with.
    """
    usual = current_rate(window, context) > USUAL * highest_rate(context)
    return not usual and largest_ratio(window) < context.rates["timid"] * sound_step(context)


def _by_slopes(window: Window, context: Context) -> Verdict | None:
    """Breach where a loss stands behind plain steps that are not long, and flat slopes let no gradient back.

    None where it does not. Of a few sigmoids: none of their layers' weights has less of it than the others.
    """
    if context.adaptive or context.facts.update_peak > context.rates["update_ratio"]:
        return None
    start = Drawn.of(window, context) if _stands_behind(window, context, *SLOWLY) else None
    if start is None or not (start.slope < SLOPE and start.returns < RETURNS):
        return None
    measured = window.layers("gradients", "weight_sq", count=1, group="weight").layers
    layers = [layer for layer in start.layers if layer in measured]
    decay = start.returns ** (1 / (2 * max(len(start.layers) - 1, 1)))
    kinds = squashing(window, context)
    now = window.samples("train", "loss", count=BLOCK).finite.median
    text = f"of the gradient's energy {number(start.returns)} came back over {len(start.layers)} layers"
    case = Case(
        title=f"Next to no gradient passes {listing(kinds, 2)}: the loss stands at its start",
        why="A sigmoid's slope is a quarter at most: a few of them leave a hundredth of the gradient, and "
        "what all samples have in common of the signal.",
        because=(
            Evidence(
                text, "initialization", f"backward_gain/{start.layers[-1]}", context.start + 1
            ),
            Evidence(
                f"the loss has stood since, at {number(now)}", "train", "loss", window.step, now
            ),
        ),
        recommendation=passing_on(window, context, layers, decay, gone=False),
        may_be_normal="A net that stands for long and learns then; another activation gets there sooner.",
        layers=tuple(kinds),
        onset=context.start + 1,
    )
    return breach(RETURNS / start.returns, case, certain=True)


def _squashed(window: Window, context: Context) -> Verdict | None:
    """Breach where a loss stands, and squashing activations hand back a hundredth of the gradient or less.

    None where it does not. Of plain steps, which are as short as the gradient is small: with those of Adam
    the first layers learn all the same, if late.
    """
    if not _stands_behind(window, context):
        return None
    names = ("grad_sq", "numel", "update_sq", "weight_sq")
    read = [window.layers("gradients", name, count=LOOKS, group="weight") for name in names]
    if not len(read[0]) or len({found.layers for found in read}) > 1:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        gradients = np.median(np.sqrt(read[0].values / read[1].values), axis=0)
        moves = np.median(np.sqrt(read[2].values / read[3].values), axis=0)
    known = (gradients > 0) & np.isfinite(moves)
    names_of = [layer for layer, keep in zip(read[0].layers, known, strict=True) if keep]
    if len(names_of) < FEWEST:
        return None
    moved = dict(zip(read[0].layers, moves.tolist(), strict=True))
    layers, rms = in_order(names_of, gradients[known], FEWEST)
    first, last = moved[layers[0]], moved[layers[-1]]
    ordered = rank_correlation(rms) >= context.thresholds["monotone"]
    if rms[0] > FADED * rms[-1] or not ordered or not first < SLOWER * last:
        return None
    case = _case(window, context, layers, rms, first)
    return breach(2.0, replace(case, onset=context.start + 1), certain=True)


def advice_where_it_fades(
    window: Window, context: Context, share: float, monotone: float
) -> Recommendation | None:
    """Return the advice for squashing activations that hand back too little of the gradient.

    None where there are none, where the first weights get over `share` of what the last ones get (by
    root mean square), or where it does not fall from layer to layer, by a rank correlation of `monotone`.
    """
    squares = window.layers("gradients", "grad_sq", count=1, group="weight")
    numels = window.layers("gradients", "numel", count=1, group="weight")
    if not squashing(window, context) or not len(squares) or squares.layers != numels.layers:
        return None
    known = (squares.values[-1] > 0) & (numels.values[-1] > 0)
    rms = np.sqrt(squares.values[-1][known] / numels.values[-1][known])
    layers = [layer for layer, keep in zip(squares.layers, known, strict=True) if keep]
    if len(layers) < FEWEST:
        return None
    layers, rms = in_order(layers, rms, FEWEST)
    if rms[0] > share * rms[-1] or rank_correlation(rms) < monotone:
        return None
    decay = float(rms[0] / rms[-1]) ** (1 / (len(layers) - 1))
    return passing_on(window, context, layers, decay, gone=False)


def _first_update_ratio(window: Window, layer: str) -> float:
    updates = window.layers("gradients", "update_sq", count=1, group="weight")
    weights = window.layers("gradients", "weight_sq", count=1, group="weight")
    place = updates.layers.index(layer)
    weight = weights.values[-1][place]
    return float(np.sqrt(updates.values[-1][place] / weight)) if weight > 0 else np.nan


def _case(
    window: Window, context: Context, layers: list[str], rms: np.ndarray, moved: float
) -> Case:
    starved = [layer for layer, value in zip(layers, rms, strict=True) if value < 1e-2 * rms[-1]]
    ratio = float(max(rms[0], TINY) / rms[-1])
    decay = ratio ** (1 / (len(layers) - 1))
    because = (
        Evidence(
            f"gradient of `{layers[0]}` is {number(ratio)} of that of `{layers[-1]}`",
            "gradients",
            f"grad_rms/{layers[0]}",
            window.step,
            float(rms[0]),
            context.thresholds.fire * float(rms[-1]),
        ),
        Evidence(
            f"`{layers[0]}` moves by {number(100 * moved)} % of its weights a step",
            "gradients",
            f"update_ratio/{layers[0]}",
            window.step,
            moved,
            context.thresholds["update_ratio"],
        ),
        Evidence(
            f"each layer passes on {percent(decay)} of the gradient, over {len(layers)} layers"
        ),
    )
    return Case(
        title=f"Gradients vanish before {listing(starved[::-1], 2)}",
        why="The first layers stay as they were drawn, and the last ones learn on noise.",
        because=because,
        recommendation=passing_on(window, context, layers, decay, gone=bool(rms[0] == 0)),
        may_be_normal="A converged run, where all gradients are small; layers that were frozen on "
        "purpose.",
        layers=tuple(starved),
    )
