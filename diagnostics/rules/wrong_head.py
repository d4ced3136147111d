"""The end of the net does not fit its loss: softmax twice, a ReLU at the end, BatchNorm beside the mark, a class never named.

What: rows of the output are non-negative, sum to 1 and go into a loss that takes them for logits
(cross-entropy of them, as logits, is the loss of the step), in two samples, or in one to its last digits
where as probabilities they would have another; or the loss in eval mode
is more than half over that in training mode, by a tenth of the first loss, in two samples (one, where
it is three times as much, or validation bears it out) after 250 steps, in which moments of a slow momentum
follow; or their momentum is so small that by the end of the run half of what they began with is left,
and validation does not say that it does no harm; or, after
200 steps, a tenth of the run and its warm-up, the classes that are predicted have less than 0.3 of the entropy of the labels, one is
never predicted, and the most frequent one is three times as frequent as the rarest, while the loss is
not under half of that entropy, or the validation loss is three times the training loss: where classes are
even, a net that names a few of them does not learn at all, and weights do not mend that. Of two classes
it is information, unless validation suffers so. Or half of the classes are never predicted, a third as
frequent as the others, and are at least half of what is left to learn, while validation suffers (else, where
the loss does not improve, it is information); or rare ones are named so seldom that what is predicted has under
0.85 of the entropy of the labels, while validation suffers. A loss that
has stood for 200 steps at the entropy of such labels says the same, without another look at the head.
Or no output is negative in two samples and a twentieth of them is exactly zero, while a twentieth of the
targets is negative; of classes a fifth, where the loss takes them for logits.
Why: a softmax that is taken twice keeps the loss above a floor and shrinks every gradient; running
moments that are far off make validation see another net; a class that is never named is not learned;
an output at zero behind a ReLU gets no gradient, and is never what is under zero.
Source: measured: digits stay above 1.461 = -log(e/(e + 9)), with a third of the gradient; one class in
twenty is never predicted and its recall 0.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ..eval_mode import another_in_eval_mode
from ..labels import how_many, is_binary
from ..rectified import rectified_outputs
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..unpredicted import left_unpredicted
from ..windows import Samples, Window
from ..words import number
from .overfitting import chosen

FAMILY = "train"
TOO_FEW = "whether a softmax is taken twice: too few outputs were compared with their labels"


def judge(window: Window, context: Context) -> Verdict:
    """Breach where outputs are probabilities twice or rectified, modes differ, or a class is left out."""
    why_not = _no_classes(window, context)
    off = context.obstacles.why_off("head") is not None
    validated = _validated(window)
    rectified = rectified_outputs(window, context)
    if rectified is not None and rectified.kind == "breach":
        return rectified
    parts = [
        _twice(window, context) if why_not is None else unknown(why_not) if off else None,
        another_in_eval_mode(window, context, validated),
        left_unpredicted(window, context, validated) if why_not is None else None,
    ]
    verdicts = [verdict for verdict in parts if verdict is not None]
    for verdict in verdicts:
        if verdict.kind == "breach":
            return verdict
    judged = [verdict for verdict in verdicts if verdict.kind == "fine"]
    missing = "; ".join(verdict.why for verdict in verdicts if verdict.kind == "unknown")
    if not judged:
        return unknown(missing or str(why_not))
    return fine(max(verdict.strength for verdict in judged), missing)


def _validated(window: Window) -> Samples | None:
    """Return the validation losses of the attempt, None where there are none."""
    table = window.history.tables.get("validation")
    if table is None:
        return None
    columns = table.schema.columns
    loss = window.history.once(
        "wrong_head.loss", (columns,), lambda: chosen([column.name for column in columns])[0]
    )
    return None if loss is None else window.samples("validation", loss).finite


def _no_classes(window: Window, context: Context) -> str | None:
    """Return why outputs and classes do not go together in this run; None where they may."""
    off = context.obstacles.why_off("head")
    if off is not None:
        return f"the outputs are not compared with their labels: {off}"
    taken = window.samples("head", "as_logits", span=context.thresholds.span)
    if len(taken) >= context.thresholds.min_samples and not len(taken.finite):
        return "the outputs stand beside no labels of classes, as in a regression"
    return None


def _twice(window: Window, context: Context) -> Verdict:
    numbers = context.thresholds
    rows = window.samples("head", "probability_rows", count=numbers.window, span=numbers.span)
    ratio = window.samples("head", "as_logits", count=numbers.window, span=numbers.span)
    other = window.samples("head", "as_probabilities", count=numbers.window, span=numbers.span)
    if not len(other) == len(rows) == len(ratio):  # some of them were not recorded
        return unknown(TOO_FEW)
    binary = is_binary(window, context)
    found = window.history.once(
        f"wrong_head.twice.{binary}",
        (rows, ratio, other, context),
        lambda: _as_if_twice(rows, ratio, other, context, binary),
    )
    if found is None:
        return unknown(TOO_FEW)
    share, step = found
    if share < 1:
        return fine(0.9 * share)
    return breach(2.0, _softmax(window, context, step), certain=True)


def _as_if_twice(
    rows: Samples, ratio: Samples, other: Samples, context: Context, binary: bool
) -> tuple[float, int] | None:
    """Return the share of samples that look as where a softmax is taken twice, and the last one's step.

    None where too few tell anything of it.
    """
    numbers = context.thresholds
    known = np.isfinite(rows.values) & np.isfinite(ratio.values)
    off, off_right = np.abs(ratio.values - 1), np.abs(other.values - 1)
    # before anything is learned both losses are that of guessing
    known &= ~((off < numbers["apart"]) & (off_right < numbers["apart"]))
    if binary:  # a single logit may lie between 0 and 1 until it has learned
        known &= rows.steps > context.start + numbers["settle"] / 4
    # a batch whose loss is that of logits to the last digits, and far from any other, tells alone
    exact = known & (off < numbers["exact"]) & (off_right > numbers["clear_of"])
    if known.sum() < (numbers.min_samples if binary or not exact.any() else 1):
        return None
    like = (rows.values > numbers["rows"]) & (off < numbers["same"]) & (off_right > 3 * off)
    return float(like[known].mean()), int(rows.steps[known][-1])


def _softmax(window: Window, context: Context, step: int) -> Case:
    classes = how_many(window, context)
    floor = math.log(math.e + classes - 1) - 1 if classes > 1 else 1 / math.e
    loss = window.samples("train", "loss", count=context.thresholds.window).finite.values
    binary = is_binary(window, context)
    because = [
        Evidence(
            "every output lies between 0 and 1, and the loss takes it for a logit"
            if binary
            else "every row of the output is non-negative and sums to 1, and the loss takes it for "
            "logits",
            "head",
            "probability_rows",
            step,
            1.0,
            context.thresholds["rows"],
        )
    ]
    if not binary and len(loss):
        because.append(
            Evidence(
                f"so the loss cannot fall under {number(floor)}; it is {number(float(np.median(loss)))}",
                "train",
                "loss",
                window.step,
                float(np.median(loss)),
                floor,
            )
        )
    what = "sigmoid" if binary else "softmax"
    return Case(
        title=f"The {what} is taken twice: the loss takes one of its own",
        why="The loss stays above a floor however sure the net is, and every gradient is a fraction "
        "of what it should be.",
        because=tuple(because),
        recommendation=Recommendation(
            parameter="remove_softmax",
            current=False,
            proposed=True,
            basis="derived",
            formula="cross-entropy of the outputs, taken as logits, equals the loss of the step",
            snippet=f"# take the {what} out of the net; where probabilities are needed, when it is "
            f"used:\nprobabilities = torch.{what}(logits{'' if binary else ', dim=-1'})",
            effect="the loss can fall to zero, and gradients are whole",
            verify=f"rows of the output no longer sum to 1, and the loss falls under {number(floor)}"
            if not binary
            else "outputs beyond 0 and 1, and a falling loss",
            risk="what reads the net's outputs as probabilities needs the softmax there",
        ),
        may_be_normal="Hardly ever: outputs that are bounded on purpose, to limit how sure it can be.",
        onset=context.start + 1,
    )
