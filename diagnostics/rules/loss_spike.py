"""The loss leaps up and stays up for many steps: not one hard batch, but a stretch of them.

What: 3 of 8 steps over the median of the 128 before by six spreads (at least six tenths of it), over
1.5 times their 95th percentile, and by a seventh of the first loss. Of 16 steps in a row 8 must be over
that limit, or over the same of the 32 losses just before where it is lower (the loss had been falling), or 13 over
that percentile itself, else it is told as information only; earlier spikes are cut down to that limit before they
count as usual. Of a loss that had not fallen far, which can hardly be 1.5 times as high, 15 of 16 over that
percentile tell the same, where they undo 1.2 times what the run had learned. What a single batch threw up, four
times as high as the next step and twice as high as any, is left alone for 80 steps, ten times as high as any for
160: its echo goes by, by Adam slowly. A loss that is not back within 1.2 times its usual after 200 steps has diverged.
Why: a stretch of bad batches, or steps grown too long, undo what hundreds of steps have learned.
Source: Chowdhery et al. 2022 (PaLM: go back about 100 steps and skip the batches); measured: labels
permuted for 20 batches raise 8 to 16 of 16 losses, in 58 healthy runs at most 7 rose; of 1,460 runs
that are well 15 of 16 over that percentile undid all that was learned in one, in others at most 0.37 of it.
"""

from __future__ import annotations

import math

import numpy as np

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..advice import (
    aimed_step,
    current_rate,
    first_step,
    good_checkpoint,
    lower_rate,
    none_left,
    rate_times,
    shorter_memory,
)
from ..clip_values import LAST
from ..forgetting import left_of
from ..medians import median_of
from ..ratios import update_ratios
from ..rule import Case, Context, Verdict, breach, fine, unknown
from ..snippets import clip_snippet, resume_snippet, tighter
from ..stretches import IN_A_ROW, Stretch, back_at, is_echo, look, losses_of, most_of
from ..windows import Samples, Window
from ..words import count, number, percent, rounded

FAMILY = "train"
FROM_START = True


def remember(window: Window, context: Context) -> dict[str, Json]:
    """Keep where the last stretch began, what was usual before it, and where it was last high."""
    kept = dict(context.memory)
    if window.since > int(kept.get("since", 0)):
        kept = {}
    kept["since"] = window.since
    usual, limit = kept.get("usual"), kept.get("limit")
    losses = losses_of(window, context.thresholds)
    if usual is not None and limit is not None:
        recent = losses.values[-IN_A_ROW:]
        if len(recent) and median_of(recent) <= back_at(context, float(usual), float(limit)):
            kept = {"since": window.since}  # it is over
        return kept
    found = look(losses, context)
    if found is not None and len(found.steps):
        onset = int(found.steps[0])
        kept |= {"onset": onset, "usual": found.usual, "limit": found.limit, "edge": found.edge}
        kept["near"] = found.near
    return kept


def judge(window: Window, context: Context) -> Verdict:
    """Breach where several of a few steps in a row leave the usual together."""
    numbers, kept = context.thresholds, context.memory
    losses = losses_of(window, numbers)
    if len(losses) < numbers.min_samples + int(numbers["stretch"]) + 2:
        return unknown(
            f"fewer than {numbers.min_samples} finite losses before the last "
            f"{count(int(numbers['stretch']), 'step')}"
        )
    if kept.get("usual") is None:
        return fine()
    usual, limit, onset = float(kept["usual"]), float(kept["limit"]), int(kept["onset"])
    since = Samples(losses.steps[losses.steps >= onset], losses.values[losses.steps >= onset])
    if not len(since):
        return fine(1.0)
    if is_echo(losses, onset, usual, limit, numbers):
        return fine(0.9)  # keeps a finding that stands, and makes none
    top = int(np.argmax(since.values))
    # that it left its usual is told by many losses; how many did, by where it stood just before
    over = min(limit, float(kept.get("near") or limit))
    seen = Stretch(
        since.steps[since.values > over],
        float(since.values[top]),
        int(since.steps[top]),
        usual,
        over,
        most_of(since.values > over, int(numbers["stretch"])),
        level=most_of(since.values > float(kept["edge"]), int(numbers["stretch"])),
    )
    diverged = window.step - onset >= numbers["patience"]
    strength = (
        seen.top / limit if limit > 0 else 1.0
    )  # of a loss of zero or less nothing is a multiple
    return breach(strength, _case(window, context, seen, onset, diverged))


def _case(window: Window, context: Context, seen: Stretch, onset: int, diverged: bool) -> Case:
    numbers = context.thresholds
    longer = _longer_steps(window, onset)
    because = [
        Evidence(
            f"loss {number(seen.top)} at step {seen.top_step:,}, {number(seen.usual)} was usual; "
            f"{count(len(seen.steps), 'step')} over {number(seen.limit)} since step {onset:,}",
            "train",
            "loss",
            seen.top_step,
            seen.top,
            seen.limit,
        )
    ]
    if longer is not None:
        step, times = longer
        text = f"steps {number(times)} times longer than usual at step {step:,}, before it"
        because.append(Evidence(text, "gradients", "update_ratio", step, times, 2.0))
    severity = "critical" if diverged else None
    if not diverged and seen.most < numbers["many"] and seen.level < numbers["level"]:
        severity = "info"
    title = f"The loss leapt from {number(seen.usual)} to {number(seen.top)} at step {onset:,}"
    if diverged:
        title += f" and has not come back in {window.step - onset:,} steps"
    return Case(
        title=title,
        why="A stretch of bad batches, or steps grown too long, undo what hundreds of steps have "
        "learned.",
        because=tuple(because),
        recommendation=_advice(window, context, seen, onset, longer is not None),
        may_be_normal="A change of the data on purpose, as in a curriculum; a restart of the "
        "schedule; a lone hard batch, after which the loss is back at once.",
        severity=severity,
        onset=onset,
    )


def _longer_steps(window: Window, onset: int) -> tuple[int, float] | None:
    """Return step and factor where steps had doubled before the loss did: then it was the step."""
    steps, ratios = update_ratios(window.history, window.since, onset - 1)
    if len(ratios) < 6:
        return None
    usual, near = median_of(ratios[:-3]), ratios[-3:]
    if not 0 < usual < math.inf:  # nothing moved before, or all of it left the numbers
        return None
    times = near / usual
    top = int(np.argmax(times))
    close = steps[-3:][top] >= onset - 50
    return (int(steps[-3:][top]), float(times[top])) if times[top] > 2 and close else None


def _advice(
    window: Window, context: Context, seen: Stretch, onset: int, longer: bool
) -> Recommendation:
    numbers = context.thresholds
    rate = current_rate(window, context)
    lower = rounded(rate * numbers["thumb"])
    checkpoint = good_checkpoint(context, onset - int(numbers["rollback"]) + 1)
    checkpoint = checkpoint or good_checkpoint(context, onset)
    skipped = 2 * len(seen.steps)
    # with Adam gradients grow with the loss, and the divisor of its steps lags behind
    memory = shorter_memory(window, context, numbers["second_beta"]) if context.adaptive else None
    if checkpoint is not None:
        then: dict[str, Json] = {"lr": lower} if longer else {}
        if memory is not None:
            then = {"betas": memory.proposed}
        return Recommendation(
            parameter="rollback",
            proposed={"step": checkpoint["step"], "path": checkpoint["path"], "then": then},
            basis="from your run",
            formula=f"the last checkpoint {number(numbers['rollback'])} steps before the onset, or "
            f"the last before it; leave out {skipped:,} batches, twice the spike's",
            snippet=resume_snippet(context, checkpoint["path"], then),
            effect=f"goes on from step {checkpoint['step']:,} with weights from before the spike",
            verify=f"the loss stays under {number(seen.limit)} in the 200 steps behind the old onset",
            risk=f"{window.step - checkpoint['step']:,} steps are trained again; where the same "
            "batches come again, so does the spike: skip them",
        )
    verify = (
        f"the loss is back under {number(back_at(context, seen.usual, seen.limit))} within "
        f"{number(numbers['patience'])} steps"
    )
    long_ago = first_step(context) > context.rates["bold"] * aimed_step(context)
    # by such steps it had learned most there is: it was not they that threw it up
    trained = seen.usual < left_of(context.facts, context.rates["trained"])
    if long_ago and not trained and not context.adaptive:
        return lower_rate(window, context, rollback_before=onset)
    clip = None if context.adaptive or longer else _clip(window, context, onset, seen.usual, verify)
    if clip or memory:
        return clip or memory  # type: ignore[return-value]  # one of them is there
    if not longer:
        return _look_at_batches(seen, onset, verify)
    return rate_times(
        window,
        context,
        numbers["thumb"],
        reason=f"; no checkpoint from before the spike is known to go back to{none_left(context)}",
        effect="a bad stretch moves the weights by less",
        verify=verify,
        risk="slower between spikes; batches that are bad stay bad: look at those of steps "
        f"{int(onset):,} to {int(seen.top_step):,}",
    )


def _look_at_batches(seen: Stretch, onset: int, verify: str) -> Recommendation:
    """Return the advice to look at the batches: steps were no longer than usual, no rate mends them."""
    steps = [int(step) for step in seen.steps[:IN_A_ROW]] or [onset]
    return Recommendation(
        parameter="inspect",
        current=None,
        proposed=steps,
        basis="from your run",
        formula="the first steps whose loss stands over what is usual",
        snippet="per_sample = torch.nn.functional.cross_entropy(logits, y, reduction='none')\n"
        "print(per_sample.topk(8))  # of the batches of these steps: wrong labels lead",
        effect="without these batches the loss does not leap",
        verify=verify,
        risk="a lower rate would slow down all other steps as well: the leap was not of its making",
    )


def _clip(
    window: Window, context: Context, onset: int, usual: float, verify: str
) -> Recommendation | None:
    """Return the advice to clip, None where too few norms are known to say at what."""
    numbers = context.thresholds
    squares = window.samples("train", "grad_sq").finite
    # norms of the start tell nothing of what is usual now
    near = (squares.steps < onset) & (squares.steps >= onset - 2 * numbers.window)
    norms = np.sqrt(squares.values[near])[-100:]
    formula = (
        f"the norm that {percent(numbers['clip_quantile'])} of the {len(norms)} steps "
        "measured before the onset stayed under"
    )
    if len(norms) >= numbers["few_norms"]:
        value = rounded(float(np.quantile(norms, numbers["clip_quantile"])))
    elif usual < numbers["learned"] * context.facts.loss_start and len(context.facts.first_norms):
        # as the loss falls so does the norm: a clip at an early one cuts few of the usual steps
        early = np.sqrt(squares.values[squares.steps < onset])[-LAST:]
        value = rounded(float(early.max()) if len(early) else context.facts.first_norms[-1])
        formula = f"the largest of the last {LAST} norms measured before the onset, when the loss was higher"
    else:
        return None
    if not tighter(context, value):
        return None
    return Recommendation(
        parameter="gradient_clip_val",
        current=context.meta.gradient_clip_val,
        proposed=value,
        basis="from your run",
        formula=formula,
        snippet=clip_snippet(context, value),
        effect="steps of a usual size stay as they are, those of bad batches are cut to that size",
        verify=verify,
        risk="batches that are bad stay bad: look at them; where the norm grows because the model "
        "learns, training slows down",
    )
