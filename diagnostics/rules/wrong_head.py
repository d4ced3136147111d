"""The end of the net does not fit its loss: softmax twice, BatchNorm beside the mark, a class never named.

What: rows of the output are non-negative, sum to 1 and go into a loss that takes them for logits
(cross-entropy of them, as logits, is the loss of the step), in two samples, or in one to its last digits
where as probabilities they would have another; or the loss in eval mode
is more than half over that in training mode, by a tenth of the first loss, in two samples (one, where
it is three times as much, or validation bears it out) after 250 steps, in which moments of a slow momentum
follow; or their momentum is so small that by the end of the run half of what they began with is left,
and validation does not say that it does no harm; or, after
200 steps, a tenth of the run and its warm-up, the classes that are predicted have less than 0.3 of the entropy of the labels, one is
never predicted, and the most frequent one is three times as frequent as the rarest, while the loss is
not under half of that entropy: where classes are
even, a net that names a few of them does not learn at all, and weights do not mend that. Of two classes
it is information, unless the validation loss is three times the training loss. A loss that
has stood for 200 steps at the entropy of such labels says the same, without another look at the head.
Why: a softmax that is taken twice keeps the loss above a floor and shrinks every gradient; running
moments that are far off make validation see another net; a class that is never named is not learned.
Source: measured: digits stay above 1.461 = -log(e/(e + 9)), with a third of the gradient; one class in
twenty is never predicted and its recall 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...store import Evidence, Recommendation
from ..eval_mode import another_in_eval_mode
from ..progress import WARMS_UP, course, patience_of, scheduled
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import own_loop
from ..windows import Samples, Window
from ..words import number, percent
from .overfitting import chosen

FAMILY = "train"
LOSSES, BLOCK, DECAY = 200, 20, 0.5
MANY_CLASSES = 3
"""Of two classes of which one is rare, as with clicks and frauds, no sample need be more likely the rare one."""
OTHERS = ("lr_too_high", "dead_units", "lr_too_low", "input_problem", "non_finite")
"""Rules that tell why a net names one class alone: it does not learn at all."""
LETTERS = 24
"""Classes of tokens, beyond which they are the letters of a text, and no tags of its words."""
SUFFERS = 3.0
"""Times the training loss from which a validation loss tells that naming one class alone does harm."""
TOO_FEW = "whether a softmax is taken twice: too few outputs were compared with their labels"


def judge(window: Window, context: Context) -> Verdict:
    """Breach where outputs are probabilities twice, modes differ, or a class is never predicted."""
    why_not = _no_classes(window, context)
    off = context.obstacles.why_off("head") is not None
    parts = [
        _twice(window, context) if why_not is None else unknown(why_not) if off else None,
        another_in_eval_mode(window, context, _validated(window)),
        _one_class(window, context) if why_not is None else None,
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
    if len(other) != len(rows):
        return unknown(TOO_FEW)
    binary = _is_binary(window, context)
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


def _one_class(window: Window, context: Context) -> Verdict:
    numbers = context.thresholds
    settled = context.start + max(numbers["settle"], patience_of(context))
    if window.step <= settled:
        return unknown(f"which classes are predicted counts from step {settled:,.0f} on")
    if scheduled(window, context, LOSSES, 2 * LOSSES, DECAY) == WARMS_UP:
        return unknown(f"classes: {WARMS_UP}")
    if _classes(window) > LETTERS and _is_text(window, context):
        return unknown("classes: most letters of a text are never the likeliest one")
    stuck = _names_one_class(window, context)
    if stuck is not None:
        return stuck
    read = {
        name: window.samples("head", name, count=numbers.window, span=numbers.span)
        for name in ("predicted_entropy", "label_entropy", "never_predicted", "rows")
    }
    late = read["rows"].steps > settled
    table = np.stack([samples.values for samples in read.values()])[:, late]
    table = table[:, np.isfinite(table).all(axis=0)][:, -int(numbers["looks"]) :]
    if _is_binary(window, context) and window.last_step("head") >= 0:
        return unknown("classes: they are counted of nets that have one output for each")
    if table.shape[1] < numbers["looks"] or table[3].min() < numbers["seen"]:
        return unknown("classes: too few labels were compared with what was predicted")
    guessed, labels, never, _ = table
    if labels.min() <= 0 or never.min() < 1:
        return fine()
    share = float(np.max(guessed / labels))
    strength = numbers.fire / max(share, 1e-3)
    if strength <= 1:
        return fine(strength)
    weights, _ = _weights(window)
    if not weights:  # a model of language names the frequent words alone until it has learned
        return unknown("classes: how often each comes is recorded of at most 64")
    if max(weights) < numbers["uneven"] * min(weights):
        return fine(0.9)  # of even classes none is missed but by a net that does not learn at all
    if context.standing(*OTHERS):
        return fine(0.9)
    losses = window.samples("train", "loss", count=LOSSES // 4).finite.values
    ratio = window.samples("head", "as_logits", count=1).finite.values
    now = float(np.median(losses)) if len(losses) else math.nan
    plain = len(ratio) and abs(float(ratio[-1]) - 1) < numbers["plain"]
    if plain and now < numbers["far_under"] * labels[-1]:
        return fine(0.9)  # it tells samples apart already, and the rare classes come last
    step = int(read["rows"].steps[late][-1])
    case = _unnamed(window, context, share, float(never[-1]), step)
    if len(weights) < MANY_CLASSES and not _validation_suffers(window, now):
        case = replace(case, severity="info")
    return breach(strength, case)


def _is_text(window: Window, context: Context) -> bool:
    """Tell whether the net is one of language: its inputs are tokens, with a label for each of them."""
    read = [
        window.history.column("inputs", name, context.start, window.step).values
        for name in ("is_integer", "label_entropy")
    ]
    return bool(len(read[0]) and (read[0] == 1).all() and np.isnan(read[1]).all())


def _validation_suffers(window: Window, now: float) -> bool:
    """Tell whether what is validated on is lost for it: there the rare class is not that rare."""
    validated = _validated(window)
    if validated is None or len(validated) < 2:
        return False
    return float(validated.values[-2:].min()) > SUFFERS * abs(now)


def _names_one_class(window: Window, context: Context) -> Verdict | None:
    """Breach where the loss has stood at the entropy of uneven labels since the first looks.

    That is the least that a net can have that gives every sample the same answer: with one class far
    more frequent than another it names that one alone, whatever was or was not looked at since.
    """
    numbers = context.thresholds
    read = [
        window.samples("head", name, count=numbers.window, span=window.step)
        for name in ("rows", "predicted_entropy", "label_entropy", "never_predicted", "as_logits")
    ]
    last = window.history.once("wrong_head.last", read, lambda: _last_whole(read))
    if last is None:
        return None
    rows, guessed, labels, never, ratio = last
    of_them = float(guessed / labels) if labels > 0 else 1.0
    plain = abs(float(ratio) - 1) < numbers["plain"]
    if not (plain and never >= 1 and rows >= numbers["seen"] and of_them < numbers.fire):
        return None
    weights, _ = _weights(window)
    if len(weights) < MANY_CLASSES or context.standing(*OTHERS):
        return None
    uneven = max(weights) >= numbers["uneven"] * min(weights)
    if not (uneven and float(labels) < numbers["uneven_entropy"] * math.log(len(weights))):
        return None
    losses = window.samples("train", "loss", count=LOSSES, span=2 * LOSSES).finite
    if len(losses) < 0.9 * LOSSES or scheduled(window, context, LOSSES, 2 * LOSSES, DECAY):
        return None
    trend = course(losses.steps, losses.values, BLOCK)
    stands = context.standing("wrong_head") or trend.improvement <= numbers["stands"]
    least = numbers["at_entropy"] * (numbers.clear if context.standing("wrong_head") else 1.0)
    if not stands or trend.now < least * labels:
        return None
    step = int(read[0].steps[-1])
    share = max(of_them, 1e-3)
    return breach(numbers.fire / share, _unnamed(window, context, of_them, float(never), step))


def _last_whole(read: Sequence[Samples]) -> np.ndarray | None:
    """Return the values of the last sample that has all of them, None where there is none."""
    if len({len(samples) for samples in read}) > 1:
        return None  # some of them were not recorded
    table = np.stack([samples.values for samples in read])
    table = table[:, np.isfinite(table).all(axis=0)]
    return table[:, -1] if table.size else None


def _softmax(window: Window, context: Context, step: int) -> Case:
    classes = _how_many(window, context)
    floor = math.log(math.e + classes - 1) - 1 if classes > 1 else 1 / math.e
    loss = window.samples("train", "loss", count=context.thresholds.window).finite.values
    binary = _is_binary(window, context)
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


def _how_many(window: Window, context: Context) -> int:
    return int(context.meta.classes or _classes(window))


def _is_binary(window: Window, context: Context) -> bool:
    """Tell whether the net gives one number a sample, of which a sigmoid would make a probability."""
    if _how_many(window, context) >= 2:
        return False
    return not len(window.samples("head", "label_entropy").finite)  # else of more than are recorded


def _classes(window: Window) -> int:
    table = window.history.tables.get("head")
    if table is None:
        return 0
    columns = table.schema.columns
    return window.history.once(
        "wrong_head.classes", (columns,), lambda: sum("class_share" in c.name for c in columns)
    )


def _unnamed(window: Window, context: Context, share: float, never: float, step: int) -> Case:
    weights, shares = _weights(window)
    rare = int(np.argmin(np.where(shares > 0, shares, np.inf))) if len(shares) else None
    text = f"predicted classes have {percent(share)} of the entropy of the labels"
    because = [
        Evidence(text, "head", "predicted_entropy", step, share, context.thresholds.fire),
        Evidence(
            f"{number(never)} of the classes are never predicted", "head", "never_predicted", step,
            never, 0.0,
        ),
    ]  # fmt: skip
    if rare is not None:
        because.append(
            Evidence(
                f"class {rare} has {percent(float(shares[rare]))} of the labels",
                "head",
                f"class_share_{rare}",
                step,
                float(shares[rare]),
            )
        )
    argument = f"weight=torch.tensor({weights!r})"
    return Case(
        title="Some classes are never predicted: the net names the most frequent ones alone",
        why="Naming the frequent classes lowers the loss at once; the rare ones hardly count in it.",
        because=tuple(because),
        recommendation=Recommendation(
            parameter="class_weights",
            current=None,
            proposed=weights,
            basis="from your run",
            formula="samples / (classes × samples of the class), of all labels seen so far",
            snippet=f"loss = torch.nn.functional.cross_entropy(logits, labels, {argument})"
            if own_loop(context)
            else f"self.loss = torch.nn.CrossEntropyLoss({argument})",
            effect="every class counts alike in the loss",
            verify="no class that is never predicted after 300 steps",
            risk="rare classes are named too often; their few samples are learned by heart",
        ),
        may_be_normal="Early in a hard task; classes that cannot be told apart.",
    )


def _weights(window: Window) -> tuple[list[float], np.ndarray]:
    found = [
        window.samples("head", f"class_share_{place}", count=1) for place in range(_classes(window))
    ]
    if not found or not all(len(samples) for samples in found):
        return [], np.empty(0)
    shares = np.array([samples.values[-1] for samples in found])
    known = np.where(shares > 0, shares, np.nan)
    weights = 1 / (np.isfinite(known).sum() * known)
    return [float(f"{w:.3g}") if math.isfinite(w) else 1.0 for w in weights], shares
