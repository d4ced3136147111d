"""Unpredicted: classes that a net never names, since those that are frequent make nearly all of the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..store import Evidence, Recommendation
from ..store.schemas import Severity
from .labels import LETTERS, are_text, classes_of, is_binary, shares_of, weights_of
from .medians import median_of
from .progress import WARMS_UP, course, patience_of, scheduled
from .rule import Case, Context, Verdict, breach, fine, unknown
from .snippets import huggingface, own_loop
from .thresholds import Thresholds
from .windows import Samples, Window
from .words import number, percent

LOSSES, BLOCK, DECAY = 200, 20, 0.5
MANY_CLASSES = 3
"""Of two classes of which one is rare, as with clicks and frauds, no sample need be more likely the rare one."""
OTHERS = (
    "lr_too_high",
    "dead_units",
    "vanishing_gradients",
    "lr_too_low",
    "input_problem",
    "non_finite",
)
"""Rules that tell why a net names one class alone: it does not learn at all."""
HARDLY = 0.85
"""Share of the labels' entropy under which rare classes come far too seldom among what is predicted, where
validation suffers from it: one that is named now and then is lost as well."""
SUFFERS, OVER_LABELS = 3.0, 1.5
"""Times the training loss, and the entropy of the labels, from which a validation loss tells that naming one
class alone does harm."""


@dataclass(frozen=True, slots=True)
class _Looks:
    """What two looks at the head agree on: the last one's step and numbers, and how often classes come."""

    step: int
    share: float
    """Entropy of the predicted classes over that of the labels, the larger one."""
    never: int
    """Classes that are never predicted at the last one; 0 where there were none at the other."""
    rows: float
    """Labels compared with what was predicted."""
    entropy: float
    """Of the labels, in nats."""
    shares: np.ndarray


def left_unpredicted(window: Window, context: Context, validated: Samples | None) -> Verdict:
    """Breach where the frequent classes alone are predicted; `validated`: the last validation losses."""
    numbers = context.thresholds
    settled = context.start + max(numbers["settle"], patience_of(context))
    if window.step <= settled:
        return unknown(f"which classes are predicted counts from step {settled:,.0f} on")
    if scheduled(window, context, LOSSES, 2 * LOSSES, DECAY) == WARMS_UP:
        return unknown(f"classes: {WARMS_UP}")
    if classes_of(window) > LETTERS and are_text(window, context):
        return unknown("classes: most letters of a text are never the likeliest one")
    stuck = _names_one_class(window, context)
    if stuck is not None:
        return stuck
    if is_binary(window, context) and window.last_step("head") >= 0:
        return unknown("classes: they are counted of nets that have one output for each")
    rows = window.samples("head", "rows", count=numbers.window, span=numbers.span)
    found = window.history.once(
        "wrong_head.looks", (rows, context), lambda: _looked(window, context, rows, settled)
    )
    if found is None:
        return unknown("classes: too few labels were compared with what was predicted")
    return _of_looks(window, context, found, validated)


def _of_looks(
    window: Window, context: Context, found: _Looks, validated: Samples | None
) -> Verdict:
    """Judge what two looks agree on: where it names the frequent classes alone, and that is what is wrong."""
    numbers = context.thresholds
    losses = window.samples("train", "loss", count=LOSSES, span=2 * LOSSES).finite
    now = median_of(losses.values[-LOSSES // 4 :]) if len(losses) else math.nan
    suffers = _validation_suffers(validated, now, found.entropy)
    seldom = suffers and found.share < HARDLY
    if found.entropy <= 0 or not (found.never or seldom):
        return fine()
    strength = numbers.fire / max(found.share, 1e-3)
    half = found.never >= numbers["most"] * (found.shares > 0).sum()
    if strength <= 1 and not (half or seldom):
        return fine(strength)
    weights = weights_of(found.shares)
    if not weights:  # a model of language names the frequent words alone until it has learned
        return unknown("classes: how often each comes is recorded of at most 64")
    if max(weights) < numbers["uneven"] * min(weights):
        return fine(0.9)  # of even classes none is missed but by a net that does not learn at all
    if context.standing(*OTHERS):
        return fine(0.9)
    ratio = window.samples("head", "as_logits", count=1).finite.values
    plain = len(ratio) > 0 and abs(float(ratio[-1]) - 1) < numbers["plain"]
    if strength <= 1:
        rare = found.never if half else _how_many_rare(found, numbers)
        if not plain or not _are_what_is_left(found, rare, now, numbers):
            return fine(0.9)
        if not suffers and not _stands(losses, numbers):
            return fine(0.9)
        return breach(1.0, _unnamed(found, context, weights, None if suffers else "info"))
    if not found.never or (plain and now < numbers["far_under"] * found.entropy):
        return fine(0.9)  # it tells samples apart already, and the rare classes come last
    mild = len(weights) < MANY_CLASSES and not suffers
    return breach(strength, _unnamed(found, context, weights, "info" if mild else None))


def _looked(window: Window, context: Context, rows: Samples, settled: float) -> _Looks | None:
    """Return what the last looks behind a step saw; None where they are too few, or saw too few labels."""
    numbers = context.thresholds
    names = ("predicted_entropy", "label_entropy", "never_predicted")
    read = [window.samples("head", name, count=numbers.window, span=numbers.span) for name in names]
    read.append(rows)
    if len({len(samples) for samples in read}) > 1:
        return None  # some of them were not recorded
    late = rows.steps > settled
    table = np.stack([samples.values for samples in read])[:, late]
    whole = np.isfinite(table).all(axis=0)
    table = table[:, whole][:, -int(numbers["looks"]) :]
    if table.shape[1] < numbers["looks"] or table[3].min() < numbers["seen"]:
        return None
    guessed, labels, never, seen = table
    least = float(labels.min())
    return _Looks(
        step=int(rows.steps[late][whole][-1]),
        share=float(np.max(guessed / labels)) if least > 0 else math.inf,
        never=int(never[-1]) if never.min() >= 1 else 0,
        rows=float(seen[-1]),
        entropy=float(labels[-1]) if least > 0 else 0.0,
        shares=shares_of(window),
    )


def _how_many_rare(found: _Looks, numbers: Thresholds) -> int:
    """Return how many classes are by far rarer than the most frequent one."""
    present = found.shares[found.shares > 0]
    return int((present * numbers["uneven"] < present.max()).sum()) if len(present) else 0


def _are_what_is_left(found: _Looks, many: int, now: float, numbers: Thresholds) -> bool:
    """Tell whether most of what is left to learn is the rare classes, so many of them.

    Told from the loss `now`: a net that knows all of the others, and of these how often each comes, has
    the entropy of that.
    """
    present = np.sort(found.shares[found.shares > 0])
    rare, others = present[:many], present[many:]
    if not len(rare) or not len(others) or np.median(others) < numbers["uneven"] * np.median(rare):
        return False
    share = float(rare.sum())
    if share * found.rows < numbers["met"] or not 0 < share < 1:
        return False
    within = -float((rare / share * np.log(rare / share)).sum())
    left = -share * math.log(share) - (1 - share) * math.log(1 - share) + share * within
    return numbers["far_under"] * left <= now


def _stands(losses: Samples, numbers: Thresholds) -> bool:
    """Tell whether the loss hardly improves any more."""
    if len(losses) < 0.9 * LOSSES:
        return False
    return course(losses.steps, losses.values, BLOCK).improvement <= numbers["stands"]


def _validation_suffers(validated: Samples | None, now: float, entropy: float) -> bool:
    """Tell whether what is validated on is lost for it: there the rare class is not that rare.

    Of labels as they are in training a net that names the frequent ones alone has their entropy, however
    well it knows its samples by heart.
    """
    if validated is None or len(validated) < 2:
        return False
    return float(validated.values[-2:].min()) > max(SUFFERS * abs(now), OVER_LABELS * entropy)


def _names_one_class(window: Window, context: Context) -> Verdict | None:
    """Breach where the loss has stood at the entropy of uneven labels since the first looks.

    That is the least that a net can have that gives every sample the same answer: with one class far
    more frequent than another it names that one alone, whatever was or was not looked at since.
    """
    numbers = context.thresholds
    rows = window.samples("head", "rows", count=numbers.window, span=window.step)

    def read() -> np.ndarray | None:
        names = ("predicted_entropy", "label_entropy", "never_predicted", "as_logits")
        others = [
            window.samples("head", name, count=numbers.window, span=window.step) for name in names
        ]
        return _last_whole([rows, *others])

    last = window.history.once("wrong_head.last", (rows,), read)
    if last is None:
        return None
    seen, guessed, labels, never, ratio = last
    of_them = float(guessed / labels) if labels > 0 else 1.0
    plain = abs(float(ratio) - 1) < numbers["plain"]
    if not (plain and never >= 1 and seen >= numbers["seen"] and of_them < numbers.fire):
        return None
    shares = shares_of(window)
    weights = weights_of(shares)
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
    found = _Looks(int(rows.steps[-1]), of_them, int(never), float(seen), float(labels), shares)
    return breach(numbers.fire / max(of_them, 1e-3), _unnamed(found, context, weights))


def _last_whole(read: Sequence[Samples]) -> np.ndarray | None:
    """Return the values of the last sample that has all of them, None where there is none."""
    if len({len(samples) for samples in read}) > 1:
        return None  # some of them were not recorded
    table = np.stack([samples.values for samples in read])
    table = table[:, np.isfinite(table).all(axis=0)]
    return table[:, -1] if table.size else None


def _unnamed(
    found: _Looks, context: Context, weights: list[float], severity: Severity | None = None
) -> Case:
    shares, share, never, step = found.shares, found.share, float(found.never), found.step
    numbers = context.thresholds
    rare = int(np.argmin(np.where(shares > 0, shares, np.inf))) if len(shares) else None
    classes = int((shares > 0).sum())
    limit = numbers.fire if share < numbers.fire else HARDLY
    entropy = Evidence(
        f"predicted classes have {percent(share)} of the entropy of the labels",
        "head", "predicted_entropy", step, share, limit,
    )  # fmt: skip
    many = share >= numbers.fire and never >= numbers["most"] * classes
    missing = Evidence(
        f"{number(never)} of the {classes} classes are never predicted",
        "head", "never_predicted", step, never, numbers["most"] * classes if many else 0.0,
    )  # fmt: skip
    because = [missing] if many else [entropy, missing] if never else [entropy]
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
    own = own_loop(context) or huggingface(context)
    return Case(
        title=f"{'Some' if never else 'Rare'} classes are {'never' if never else 'hardly ever'} predicted: "
        "the net names the most frequent ones alone",
        why="Naming the frequent classes lowers the loss at once; the rare ones hardly count in it.",
        because=tuple(because),
        recommendation=Recommendation(
            parameter="class_weights",
            current=None,
            proposed=weights,
            basis="from your run",
            formula="samples / (classes × samples of the class), of all labels seen so far",
            snippet=f"loss = torch.nn.functional.cross_entropy(logits, labels, {argument}.to(logits))"
            if own
            else f"self.loss = torch.nn.CrossEntropyLoss({argument})",
            effect="every class counts alike in the loss",
            verify="no class that is never predicted after 300 steps",
            risk="rare classes are named too often; their few samples are learned by heart",
        ),
        may_be_normal="Early in a hard task; classes that cannot be told apart.",
        severity=severity,
    )
