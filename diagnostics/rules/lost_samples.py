"""Samples of the run were lost on their way, or are not taken for want of budget.

What: frames that had to be dropped because too many waited, steps of which a gap is told, frames that
have waited on this machine's disk for three samples in a row because the server does not take them,
or a budget so small against what following each step costs that the layers were looked at less than
twice in the last 1,000 steps.
Why: what was not recorded cannot be judged; windows begin anew behind a gap. The training itself is not
touched by it.
Source: our own counters (`dropped_frames`, `spooled_frames`), `gap` events, and the price of a step that
the recorder measures.
"""

from __future__ import annotations

from ...store import Evidence, Recommendation
from ..rule import Case, Context, Verdict, breach, fine
from ..windows import Samples, Window
from ..words import count

FAMILY = "train"


def judge(window: Window, context: Context) -> Verdict:
    """Breach where something that should have been recorded was not."""
    case = (
        _dropped(window, context)
        or _gaps(window, context)
        or _waiting(window, context)
        or _crowded(window, context)
    )
    return fine() if case is None else breach(1.0, case)


def _of_ranks(window: Window, column: str, span: int) -> dict[int, Samples]:
    found = window.ranks("system", column, span=span)
    return found or {0: window.samples("system", column, span=span)}


def _dropped(window: Window, context: Context) -> Case | None:
    lost: dict[int, float] = {}
    first = window.step
    for rank, samples in _of_ranks(window, "dropped_frames", context.thresholds.span).items():
        known = samples.finite
        if len(known) and known.values[-1] > (known.values[0] if len(known) > 1 else 0):
            lost[rank] = float(known.values[-1])
            rises = known.steps[known.values > known.values[0]]
            first = min(first, int(rises[0]) if len(rises) else int(known.steps[0]))
    if not lost:
        return None
    rank, total = max(lost.items(), key=lambda item: item[1])
    text = f"{total:,.0f} frames of rank {rank} were dropped by step {window.step:,}"
    return _case(
        f"{sum(lost.values()):,.0f} samples were lost: they came faster than they could be stored",
        Evidence(text, "system", "dropped_frames", window.step, total, 0.0),
        first,
        "Is the server reachable, has it memory left, has this disk room?",
        ranks=tuple(sorted(lost)) if context.meta.world_size > 1 else (),
    )


def _gaps(window: Window, context: Context) -> Case | None:
    gaps = [
        gap
        for gap in context.memory.get("gaps", [])
        if gap[1] > window.step - context.thresholds.span
    ]
    if not gaps:
        return None
    first, last = min(gap[0] for gap in gaps), max(gap[1] for gap in gaps)
    steps = sum(gap[1] - gap[0] + 1 for gap in gaps)
    return _case(
        f"Samples of {count(steps, 'step')} are missing between step {first:,} and {last:,}",
        Evidence(
            f"{count(len(gaps), 'gap')}, the last one up to step {last:,}", "train", "loss", last
        ),
        first,
        "Was the server full or away, or did no daemon judge for long? `otoscope doctor` tells.",
    )


def _waiting(window: Window, context: Context) -> Case | None:
    for rank, samples in _of_ranks(window, "spooled_frames", context.thresholds.span).items():
        sent = _of_ranks(window, "sent_frames", context.thresholds.span).get(rank)
        last = samples.finite.values[-3:]
        # a run that is recorded to disk on purpose sends nothing
        if (
            len(last) < 3
            or not (last > 0).all()
            or sent is None
            or not sent.finite.values[-1:].sum()
        ):
            continue
        text = f"{last[-1]:,.0f} frames of rank {rank} wait on the disk of its machine"
        return _case(
            "The server does not take the samples; they wait on this disk",
            Evidence(
                text, "system", "spooled_frames", int(samples.steps[-1]), float(last[-1]), 0.0
            ),
            int(samples.finite.steps[-3:][0]),
            "Is the server reachable, and has it memory left? They are sent once it answers.",
        )
    return None


def _crowded(window: Window, context: Context) -> Case | None:
    budget, numbers = context.memory.get("budget"), context.thresholds
    if not isinstance(budget, (int, float)) or window.step - context.start < numbers["looked_back"]:
        return None
    looks = len(window.samples("gradients", "numel", span=int(numbers["looked_back"])))
    if looks >= numbers["looks"]:
        return None
    text = (
        f"{count(looks, 'look')} at the layers in the last {numbers['looked_back']:,.0f} steps; "
        f"following each step alone takes the {100 * context.meta.budget:g} % that are allowed"
    )
    case = _case(
        "The budget leaves no room to look at the layers",
        Evidence(text, step=window.step, value=float(looks), threshold=numbers["looks"]),
        context.start + 1,
        "",
    )
    advice = case.recommendation
    advice.parameter, advice.current, advice.proposed = "budget", context.meta.budget, float(budget)
    advice.basis, advice.formula = "derived", "twice what following each step takes of its time"
    advice.snippet = f"Otoscope(budget={budget:g})  # or attach(…, budget={budget:g})"
    advice.effect = "layers are looked at often enough to be judged"
    advice.verify = "more than two looks at the layers in 1,000 steps"
    advice.risk = f"training may take {100 * budget:g} % longer"
    return case


def _case(title: str, seen: Evidence, onset: int, look: str, ranks: tuple[int, ...] = ()) -> Case:
    return Case(
        title=title,
        why="What was not recorded cannot be judged. The training is not touched by it.",
        because=(seen,),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=[onset],
            basis="from your run",
            formula="first step that is concerned",
            snippet=f"# in a shell: otoscope doctor\n# {look}",
            effect="every sample is stored",
            verify="the counters of lost and waiting samples stand still",
            risk="none",
        ),
        may_be_normal="The server was restarted or moved on purpose.",
        ranks=ranks,
        onset=onset,
    )
