"""The validation loss has turned and rises while the training loss goes on falling.

What: the median of the last three validation losses is over the lowest one by more than 5 %, by
more than three standard errors of its own noise, and by more than 3 % of the first loss, while the
training loss fell since then and no metric improved in the later half of that time, or the loss has
doubled all the same, which is information only, or stands over the first one; in three validations in a row. Where single validation losses
differ too much for that, a metric tells as well that has lost 7 % of its best, three validations against three,
by more than its noise, while the training loss halved since. A warning where the metric
falls, or the loss stands over the first one: then the net knows less than nothing. A mere gap
between training and validation is none: healthy runs have one at nine checks in ten.
Why: what is learned from here on holds for the training samples alone; the best weights lie behind.
Source: Prechelt 1998 (early stopping); measured: 200 samples with a fifth of the labels wrong go from
0.56 to 1.38 while the accuracy falls from 0.86 to 0.77.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import current_rate
from ..facts import BLOCK
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import optimizer_with, resume_snippet, stop_snippet
from ..windows import Window
from ..words import number, percent, rounded

FAMILY = "validation"
KEPT = 12
LOSSES = ("loss", "nll", "perplexity", "ppl", "mse", "mae", "rmse", "error", "cer", "wer")
METRICS = (
    "acc",
    "f1",
    "auc",
    "auroc",
    "precision",
    "recall",
    "iou",
    "dice",
    "bleu",
    "r2",
    "score",
    "map",
)


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep the last validations, the best one, and what the training loss was meanwhile."""
    kept: dict[str, Json] = {"seen": 0, "rows": [], "count": 0, "first": None, "best": None}
    kept |= dict(context.memory)
    if window.last_step("validation") <= kept["seen"]:
        return kept
    table = window.history.tables.get("validation")
    names = [column.name for column in table.schema.columns] if table is not None else []
    loss, metric = chosen(names)
    if loss is None:
        return kept
    losses = window.samples("validation", loss)
    scores = None if metric is None else window.samples("validation", metric)
    for i in np.flatnonzero(losses.steps > kept["seen"]):
        step, value = int(losses.steps[i]), float(losses.values[i])
        kept["seen"] = step
        if not math.isfinite(value):
            continue
        train = window.samples("train", "loss").finite
        behind = train.values[train.steps <= step][-BLOCK:]
        score = math.nan if scores is None else float(scores.values[i])
        row = [step, value, float(np.median(behind)) if len(behind) else math.nan, score]
        kept["rows"] = [*kept["rows"], row][-KEPT:]
        kept["count"] += 1
        kept["first"] = value if kept["first"] is None else kept["first"]
        if kept["best"] is None or value < kept["best"][1]:
            kept["best"] = row
        top = kept.get("top")
        if math.isfinite(score) and (top is None or score > top):
            kept["top"], kept["top_step"] = score, step
        last = np.array([[_float(x) for x in row[2:]] for row in kept["rows"][-3:]])
        score, best = float(np.median(last[:, 1])), kept.get("high")
        if len(last) == 3 and math.isfinite(score) and (best is None or score > best[0]):
            kept["high"] = [score, float(np.median(last[:, 0]))]
    kept["loss"], kept["metric"] = loss, metric
    return kept


def chosen(names: list[str]) -> tuple[str | None, str | None]:
    """Return the column that is the validation loss, and one that is a metric to be raised.

    >>> chosen(["epoch", "train_loss", "val_acc", "val_loss"])
    ('val_loss', 'val_acc')
    """
    of_training = [name for name in names if "train" in name.lower() or name == "epoch"]
    left = [name for name in names if name not in of_training]

    def best(words: tuple[str, ...]) -> str | None:
        for word in words:
            found = [name for name in left if word in name.lower()]
            if found:
                return min(found, key=lambda name: ("val" not in name.lower(), len(name)))
        return None

    return best(LOSSES), best(METRICS)


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the validation loss rises from its best while training goes on."""
    numbers, kept = context.thresholds, context.memory
    if not kept.get("count"):
        return unknown("no validation loss was recorded")
    if kept["count"] < numbers.min_samples:
        return unknown(f"fewer than {numbers.min_samples} validations so far")
    rows = np.array([[_float(x) for x in row] for row in kept["rows"]])
    best_step, best, best_train = (_float(x) for x in kept["best"][:3])
    last = rows[-numbers.window :]
    now, noise = float(np.median(last[:, 1])), _noise(rows[:, 1])
    # a run that is looked at late begins where little is left of the loss
    first = float(np.fmax(abs(kept["first"]), abs(context.facts.loss_start)))
    rise = now - best
    least = max(
        numbers.fire * abs(best),
        numbers["errors"] * noise,
        numbers["of_first"] * first,
    )
    strength = rise / least if least > 0 else 0.0
    if rise > numbers.fire * abs(best):
        strength = max(strength, _lost(context, rows))
    if strength <= 1 or best_step >= last[0, 0]:
        return fine(strength if strength < 1 else 0.5)
    if not float(np.nanmedian(last[:, 2])) < best_train:
        return fine(0.5)  # training does not fall either: that is something else
    late = best_step + numbers["grace"] * (window.step - best_step)
    goes_on = "top" in kept and kept["top_step"] > late and rise < numbers["beyond"] * abs(best)
    if goes_on and not _is_worse_than_at_first(context, now, best):
        return fine(0.5)  # less sure of itself, and still getting better
    return breach(strength, _case(window, context, now, last))


def _lost(context: Context, rows: np.ndarray) -> float:
    """Return how much of the metric's best is lost while the training loss halved, over what counts.

    `rows`: the last validations, [step, loss, training loss, metric] each.
    """
    numbers, high = context.thresholds, context.memory.get("high")
    last = rows[-numbers.window :]
    if high is None or not np.isfinite(last[:, 2:]).all():
        return 0.0
    best, train = (_float(x) for x in high)
    if not float(np.median(last[:, 2])) < numbers["halved"] * train:
        return 0.0
    least = max(numbers["fell"] * abs(best), numbers["errors"] * _noise(rows[:, 3]))
    return (best - float(np.median(last[:, 3]))) / least if least > 0 else 0.0


def _noise(values: np.ndarray) -> float:
    """Return the standard error of a median of three, from how values leave their neighbours'."""
    if len(values) < 4:
        return 0.0
    bends = values[2:] - 2 * values[1:-1] + values[:-2]
    return 1.4826 * float(np.median(np.abs(bends))) / math.sqrt(6) * 0.67


def _float(value: Json) -> float:
    special = {None: math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    return special[value] if value is None or isinstance(value, str) else float(value)


def _case(window: Window, context: Context, now: float, last: np.ndarray) -> Case:
    kept = context.memory
    step, best, train = (_float(x) for x in kept["best"][:3])
    path = _checkpoint(context, int(step), window.step)
    because = [
        Evidence(
            f"validation loss {number(now)}, {number(best)} at step {int(step):,}",
            "validation",
            kept["loss"],
            int(last[-1, 0]),
            now,
            best + context.thresholds.fire * abs(best),
        ),
        Evidence(
            f"training loss {number(float(np.nanmedian(last[:, 2])))}, {number(train)} then",
            "train",
            "loss",
            window.step,
            float(np.nanmedian(last[:, 2])),
            train,
        ),
    ]
    if kept["metric"] is not None and "top" in kept:
        score = float(np.nanmedian(last[:, 3]))
        text = (
            f"{kept['metric']} {number(score)}, {number(kept['top'])} at step {kept['top_step']:,}"
        )
        because.append(
            Evidence(text, "validation", kept["metric"], int(last[-1, 0]), score, kept["top"])
        )
    return Case(
        title=f"The model learns its training samples by heart since step {int(step):,}",
        why="What is learned from here on holds for the training samples alone; the best weights "
        "lie behind.",
        because=tuple(because),
        recommendation=Recommendation(
            parameter="stop",
            current=None,
            proposed={"best_step": int(step), "path": path},
            basis="from your run",
            formula="the step of the lowest validation loss",
            snippet=_stopping(context, kept["loss"], path),
            effect=f"validation loss {number(best)} in place of {number(now)}",
            verify="the checkpoint's own validation loss",
            risk="a loss that would fall once more, much later, is not seen",
            alternatives=_alternatives(window, context),
        ),
        may_be_normal="Where a metric counts and not the loss, it may improve while the loss rises.",
        severity=None if _costs(context, now, best, last) else "info",
        onset=int(step) + 1,
    )


def _costs(context: Context, now: float, best: float, last: np.ndarray) -> bool:
    """Tell whether more than the loss's own certainty is lost: the metric, or much of the loss."""
    kept, numbers = context.memory, context.thresholds
    scores = last[:, 3][np.isfinite(last[:, 3])]
    known = bool(len(scores)) and "top" in kept
    if known and kept["top_step"] >= last[0, 0]:
        return False  # its best is among them: a median of what rises lags behind
    if _is_worse_than_at_first(context, now, best):
        return True
    if known:
        return bool(np.median(scores) < kept["top"] - numbers["worse"] * abs(kept["top"]))
    return now - best > numbers["only_loss"] * abs(best)


def _is_worse_than_at_first(context: Context, now: float, best: float) -> bool:
    """Tell whether a net that had learned has a loss by far worse than that of one that knows nothing."""
    first, score = _float(context.memory["first"]), _float(context.memory["best"][3])
    improved = "top" in context.memory and context.memory["top"] > score
    if not (improved or best < context.thresholds["knew"] * first):
        return False
    if math.isfinite(context.facts.loss_start):
        first = max(first, context.facts.loss_start)
    scale = max(abs(first), first - best)  # one that may lie under zero may begin near it
    return now > first + context.thresholds["over_first"] * scale


def _checkpoint(context: Context, step: int, now: int) -> Json:
    """Return the path of the sound checkpoint nearest to a step, and far nearer to it than to now."""
    sound = [
        entry
        for entry in context.facts.checkpoints
        if entry["finite"] is not False
        and entry["path"]
        and abs(entry["step"] - step) <= (now - step) / 3
    ]
    nearest = min(sound, key=lambda entry: abs(entry["step"] - step), default=None)
    return None if nearest is None else nearest["path"]


def _stopping(context: Context, loss: str, path: Json) -> str:
    stop = stop_snippet(context, loss)
    return stop if path is None else f"{stop}\n{resume_snippet(context, str(path))}"


def _alternatives(window: Window, context: Context) -> list[dict[str, Json]]:
    numbers = context.thresholds
    told = context.optimizer.get("weight_decay")
    decay = float(told) if isinstance(told, (int, float)) else 0.0
    value = rounded(decay * numbers["decay_times"]) if decay > 0 else numbers["decay_first"]
    return [
        {
            "parameter": "weight_decay",
            "current": decay,
            "proposed": value,
            "basis": "rule of thumb",
            "formula": f"{number(decay)} × {number(numbers['decay_times'])}"
            if decay > 0
            else "a usual first value",
            "snippet": optimizer_with(context, current_rate(window, context), weight_decay=value),
            "effect": "the lowest validation loss comes later and lies lower",
            "verify": "a lowest validation loss under that of this run",
            "risk": "too much of it keeps the net from fitting: then the training loss stays higher, too",
        },
        {
            "parameter": "dropout",
            "current": None,
            "proposed": numbers["dropout"],
            "basis": "rule of thumb",
            "formula": f"{number(numbers['dropout'])} more than now",
            "snippet": f"torch.nn.Dropout({numbers['dropout']:g})  # behind the hidden activations; "
            "where there is one, raise it by as much",
            "effect": f"each step trains {percent(1 - numbers['dropout'])} of the units",
            "verify": "a lowest validation loss under that of this run",
            "risk": "the training loss falls more slowly, and is no measure of the whole net any more",
        },
    ]
