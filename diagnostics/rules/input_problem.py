"""The inputs are not what a net can learn from: their scale, a NaN, a shift, or their order.

What: over the first batches, a mean beyond 5 or a standard deviation beyond 5 or under 0.02 (at
five times as much at once, under it where the loss does not fall, or from however high no lower than
that of guessing: what the scale threw up is undone, and nothing learned); numbers that are not finite;
inputs that are all one number, where the loss does not fall; mean or deviation that leave those of the
first batches for three samples in a row, by eight robust deviations and half of the inputs' own; or
labels that come sorted: batches hold less than half of the entropy that shuffling gives (none of it,
where they were all of one class before a second one was known). Token ids have no scale, and a model that
scales its inputs itself (what enters its first layer is of another size than the batch) is left alone.
Why: the first layer's outputs, gradients and curvature grow with the square of the inputs' scale;
batches of one class teach the net that class alone, and it forgets the others.
Source: LeCun et al. 1998 (standardized inputs); measured: digits × 255 begin at 51 times the loss of
guessing; label entropy 0.97 shuffled, 0.09 sorted.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..medians import median_of
from ..out_of_scale import Scale, does_harm, scale_of, stands
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..scaling import by_feature, entered, rate_for_scaled, scaling_snippet
from ..shifts import RECENT, is_apart, shift_of, shifted
from ..snippets import optimizer_snippet
from ..windows import Window
from ..words import number, percent

FAMILY = "train"
FROM_START = True
BEGINNING, ORDERS = 4, 12
SHAPE = ("mean", "std", "min", "max")
READ = (*SHAPE, "non_finite", "label_entropy", "top_class_share", "label_classes", "rows")


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep the first batches' statistics, the last ones', and how mixed the labels were."""
    known = context.memory
    if (
        known
        and window.last_step("inputs") <= known["seen"]
        and (known["entered"] is not None or window.last_step("initialization") < 0)
    ):
        return known  # type: ignore[return-value]  # as it was
    kept: dict[str, Json] = {
        "seen": 0, "first": [], "last": [], "orders": [], "top": 0.0, "bad": None, "entered": None,
        "batches": 0, "classes": 0, "rows": 0.0,
        **known,
    }  # fmt: skip
    if kept["entered"] is None:
        kept["entered"] = entered(window)
        guess = window.samples("initialization", "expected_loss").finite.values
        if len(guess) and guess[0] > 0:
            kept["guess"] = float(guess[0])
    if window.last_step("inputs") <= kept["seen"]:
        return kept
    for step, values in zip(*window.rows("inputs", READ, kept["seen"]), strict=True):
        kept["seen"] = int(step)
        row = dict(zip(READ, values.tolist(), strict=True))
        if row["non_finite"] > 0 and kept["bad"] is None:
            kept["bad"] = [int(step), min(row["non_finite"], 1.0)]
            kept["handled"] = _handled(window, int(step))
        if all(math.isfinite(row[name]) for name in SHAPE):  # of the finite numbers
            numbers = [int(step), *(row[name] for name in SHAPE)]
            if len(kept["first"]) < BEGINNING and not is_apart(numbers, kept["first"]):
                kept["first"] = [*kept["first"], numbers]
            else:
                kept["last"] = [*kept["last"], numbers][-RECENT:]
        if kept["rows"] < row["rows"] < math.inf:  # the last batch of an epoch may be a small one
            kept["rows"] = row["rows"]
        if 0 < row["label_classes"] < math.inf:
            kept["batches"] += 1
            kept["classes"] = int(row["label_classes"])
        if math.isfinite(row["label_entropy"]):
            kept["orders"] = [*kept["orders"], row["label_entropy"]][-ORDERS:]
            if math.isfinite(row["top_class_share"]):
                kept["top"] = row["top_class_share"]
    return kept


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the inputs are not finite, out of scale, shifted or sorted."""
    kept = context.memory
    if not kept.get("seen"):
        return unknown("no input was looked at: no batch was handed over, or none that has numbers")
    if kept["bad"] is None:
        return _judged(window, context)
    if kept.get("handled"):  # missing by design hides nothing of what is there
        verdict = _judged(window, context)
        if verdict.kind == "breach":
            return verdict
    return _not_finite(context)


def _judged(window: Window, context: Context) -> Verdict:
    """Breach where the finite numbers of the inputs are out of scale, shifted or sorted."""
    numbers, kept = context.thresholds, context.memory
    judged: list[float] = []
    scale = scale_of(window, context)
    if scale is not None:
        rows = _rows(window, context) * len(kept["first"])
        one = scale.std <= numbers["constant"] * scale.largest and rows >= numbers["enough"]
        if one and stands(window, context):
            return breach(2.0, _constant(context, scale))
        if scale.excess > 1 and does_harm(window, context, scale):
            return breach(scale.excess, _scaled(window, context, scale))
        judged.append(min(scale.excess, 0.9))
    shift = window.history.once("input_problem.shift", (kept, numbers), lambda: shift_of(context))
    if shift is not None:
        if shift[0] > 1:
            return breach(shift[0], shifted(context, shift))
        judged.append(shift[0])
    order = window.history.once(
        "input_problem.order",
        (kept, numbers, None if kept["rows"] > 0 else window),
        lambda: _order(window, context),
    )
    if order is not None:
        if order < numbers["mixed"]:
            strength = numbers["mixed"] / max(order, numbers["mixed"] / 10)
            return breach(strength, _sorted(window, context, order))
        judged.append(min(numbers["mixed"] / order, 0.9))
    if not judged:
        return unknown("too few batches were looked at, or their numbers have no scale (token ids)")
    return fine(max(judged))


def _rows(window: Window, context: Context) -> float:
    """Return the rows of a batch that was looked at: of an accumulated step that is one of several."""
    if context.memory["rows"] > 0:
        return float(context.memory["rows"])
    meta, rows = context.meta, window.samples("train", "samples").finite
    parts = max(1, meta.accumulate_grad_batches or 1) * max(1, meta.world_size or 1)
    return rows.median / parts if len(rows) else 0.0


def _order(window: Window, context: Context) -> float | None:
    """Return how mixed the labels of a batch are, 1 where they are shuffled; None if unknown."""
    kept, numbers = context.memory, context.thresholds
    orders, batch = kept["orders"], _rows(window, context)
    if batch < numbers["rows"] or kept["batches"] < numbers["batches"]:
        return None
    guess = kept.get("guess")
    classes = math.exp(min(guess, 20.0)) if isinstance(guess, (int, float)) else math.nan
    enough = kept["batches"] * batch >= numbers["a_class"] * classes
    if enough and classes > 3 and kept["classes"] <= classes / 2:
        # the first batches hold few of the classes, and the last ones hardly more than one
        late = orders[-2:]
        if not late or min(late) < numbers["mixed"]:
            return min([*late, kept["classes"] / classes])
    if kept["top"] > numbers["rare"]:
        return None  # nearly all are of one class: whole batches are by chance
    whole = kept["batches"] - len(orders)
    if kept["batches"] <= ORDERS and kept["top"] ** batch < numbers["by_chance"]:
        orders = [0.0] * whole + orders  # of one class each, when no other was known yet
    if len(orders) < numbers["batches"]:
        return None
    return max(median_of(orders), float(np.mean(orders)))


def _scaled(window: Window, context: Context, scale: Scale) -> Case:
    mean, std = float(f"{scale.mean:.3g}"), float(f"{max(scale.std, 1e-8):.3g}")
    apart = by_feature(window, context.start, context.thresholds["uneven"])
    proposed: dict[str, Json] = {"mean": mean, "std": std} if apart is None else apart
    wide = abs(scale.mean) > context.thresholds.fire or scale.std > context.thresholds.fire
    step = int(context.memory["first"][-1][0])
    rate = rate_for_scaled(window, context, math.hypot(mean, std), proposed)
    each = "" if apart is None else "of each feature, "
    formula = f"(input - mean) / deviation, both {each}of the first batches: the result has mean 0 and deviation 1"
    if rate is not None:
        formula += f"; with it lr {number(rate)}, which fits inputs of that scale"
    return Case(
        title=f"The inputs are not scaled: mean {number(scale.mean)}, deviation {number(scale.std)}",
        why="The first layer's outputs, its gradients and the curvature of the loss grow with the "
        "inputs: what learning rate and initialization are made for is a mean near 0 and a deviation "
        "near 1."
        if wide
        else "The first layer hears next to nothing of its inputs: its biases are all that it passes "
        "on.",
        because=(
            Evidence(
                f"inputs of mean {number(scale.mean)} and deviation {number(scale.std)}, largest "
                f"{number(scale.largest)}",
                "inputs",
                "std" if scale.std > abs(scale.mean) or not wide else "mean",
                step,
                scale.std if scale.std > abs(scale.mean) or not wide else scale.mean,
                context.thresholds.fire if wide else context.thresholds["narrow"],
            ),
        ),
        recommendation=Recommendation(
            parameter="input_normalization",
            current={"mean": 0.0, "std": 1.0},
            proposed=proposed,
            basis="derived",
            formula=formula,
            snippet=scaling_snippet(context, proposed)
            + ("" if rate is None else f"\n\n{optimizer_snippet(context, rate)}"),
            effect="steps of the learning rate are of the size that the layers were drawn for",
            verify="inputs of mean 0 and deviation 1 in the first samples, and a first loss near "
            "that of guessing",
            risk="the same numbers are needed wherever the model is used later on",
            also=[] if rate is None else [{"parameter": "lr", "proposed": rate}],
        ),
        may_be_normal="Features whose scale carries meaning, in a net that was made for them.",
        onset=context.start + 1,
    )


def _constant(context: Context, scale: Scale) -> Case:
    steps = [int(row[0]) for row in context.memory["first"]]
    return Case(
        title=f"The inputs are one and the same number, {number(scale.mean)}",
        why="Where all samples look alike the net can learn no more than how often each target comes.",
        because=(
            Evidence(
                f"all numbers of the batches of steps {steps[0]:,} to {steps[-1]:,} are "
                f"{number(scale.mean)}, and the loss does not fall",
                "inputs",
                "std",
                steps[-1],
                scale.std,
                context.thresholds["constant"] * scale.largest,
            ),
        ),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=steps,
            basis="from your run",
            formula="largest = smallest number of these batches",
            snippet="inputs, *_ = next(iter(train_loader))\nprint(inputs.min(), inputs.max())  # then "
            "the transforms before them, one by one",
            effect="the net sees what tells one sample from another",
            verify="a deviation over 0.02 in the first batches, and the loss falls",
            risk="none",
        ),
        may_be_normal="An input that is not used: the model makes its own.",
        onset=context.start + 1,
    )


def _handled(window: Window, step: int) -> bool:
    """Tell whether the loss of a step is finite all the same: the model masks what is missing."""
    losses = window.samples("train", "loss")
    near = losses.values[np.abs(losses.steps - step) <= 1]
    return bool(len(near) and np.isfinite(near).all())


def _not_finite(context: Context) -> Verdict:
    step, share = context.memory["bad"]
    case = Case(
        title=f"The inputs hold numbers that are not finite, at step {step:,}",
        why="One such number in a batch is one in the loss, and from there in every weight.",
        because=(
            Evidence(
                f"{percent(share)} of a batch's numbers are not finite",
                "inputs",
                "non_finite",
                int(step),
                float(share),
                0.0,
            ),
        ),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=[int(step)],
            basis="from your run",
            formula="step whose batch held them",
            snippet="assert torch.isfinite(x).all()  # in the data set, for each sample",
            effect="the loss stays finite",
            verify="no number that is not finite in the next samples of the inputs",
            risk="none",
        ),
        may_be_normal="Missing values that the model itself masks: then the loss stays finite.",
        severity="info" if context.memory.get("handled") else None,
        onset=int(step),
    )
    return breach(2.0, case, certain=True)


def _sorted(window: Window, context: Context, order: float) -> Case:
    size = context.meta.batch_size or int(_rows(window, context))  # an own loop does not tell it
    return Case(
        title="The data are not shuffled: batches hold one class after the other",
        why="Each step pulls the net towards the class at hand, and away from those before it.",
        because=(
            Evidence(
                f"the first batches hold {context.memory['classes']} of the classes; labels of a batch "
                f"have {percent(order)} of what shuffling gives",
                "inputs",
                "label_entropy",
                int(context.memory["seen"]),
                order,
                context.thresholds["mixed"],
            ),
        ),
        recommendation=Recommendation(
            parameter="shuffle",
            current=False,
            proposed=True,
            basis="derived",
            formula="entropy of a batch's labels over that of a random batch: 1 where shuffled",
            snippet=f"DataLoader(dataset, batch_size={size}, shuffle=True)",
            effect="every batch is a small picture of the whole data set",
            verify="label entropy near 1 in the next samples",
            risk="sequences that belong together must be shuffled as wholes",
        ),
        may_be_normal="Groups that belong together: a stream in its own order, episodes.",
        onset=context.start + 1,
    )
