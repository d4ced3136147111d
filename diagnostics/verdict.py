"""The verdict: what a run's state, findings and coverage come to, as JSON and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..store import Finding
from ..store.findings import hidden_ids
from ..store.schemas import Json, plain
from .proposals import deed, value_words
from .words import count

NAMES = {
    "non_finite": "finite numbers",
    "loss_spike": "loss spikes",
    "stale_second_moment": "second moment",
    "lr_too_high": "learning rate",
    "lr_too_low": "learning rate too low",
    "oscillating_loss": "oscillation",
    "missing_warmup": "warm-up",
    "ill_conditioned": "conditioning",
    "nonlinear_step": "step against the landscape",
    "saturated_activations": "saturation",
    "activation_drift": "drift of activations",
    "frozen_layer": "frozen layers",
    "bad_initialization": "initialization",
    "update_imbalance": "balance of updates",
    "batch_too_small": "batch against noise",
    "batch_too_large": "batch larger than needed",
    "clipping_too_tight": "clipping",
    "input_problem": "inputs",
    "wrong_head": "head and loss",
    "rank_desync": "ranks in step",
    "straggler": "slow ranks",
    "input_bound": "waiting for data",
    "stalled": "stalls",
    "throughput_drop": "throughput",
}
"""What each check looks at, as the verdict names it."""


LEAST_SECONDS = 2.0
"""Seconds that a run must have trained before it is said what Otoscope costs it."""


def name_of(rule: Json) -> str:
    """Return what a check looks at, in words; those of its id where it is a reader's own.

    >>> name_of("lr_too_high")
    'learning rate'
    """
    return NAMES.get(str(rule), str(rule).replace("_", " "))


def shown(findings: Sequence[Finding], step: int) -> list[Finding]:
    """Return the findings that ask for attention: firing, not caused, not put aside.

    What a cause that is over has left behind asks for attention itself.
    """
    hidden = hidden_ids(findings)
    return [
        finding
        for finding in findings
        if finding.state == "firing"
        and finding.id not in hidden
        and not finding.acknowledged
        and (finding.snoozed_until_step or 0) <= step
    ]


def put_aside(findings: Sequence[Finding], step: int) -> list[Finding]:
    """Return the findings that still stand, but that a person acknowledged or snoozed."""
    hidden = hidden_ids(findings)
    open_ = {finding.id for finding in shown(findings, step)}
    return [
        finding
        for finding in findings
        if finding.state == "firing"
        and finding.severity != "info"
        and finding.id not in hidden
        and finding.id not in open_
    ]


def action(finding: Finding) -> str:
    """Return the one thing to do, in words: "set 0.034 (0.031–0.037)"."""
    advice = finding.recommendation
    if awaits_outcome(finding):
        return f"{_change(finding.followed or {})}: wait for what becomes of it"
    if finding.outcome == "helped" and (finding.followed or {}).get("run"):
        return f"{_change(finding.followed or {})}, which helped"
    if advice is None:
        return "look at what was seen"
    between, basis = advice.range, "" if advice.range else _basis(advice.basis)
    if advice.parameter == "rollback" and isinstance(advice.proposed, Mapping):
        then = advice.proposed.get("then") or {}
        settings = ", ".join(f"{key} {value_words(key, value)}" for key, value in then.items())
        return f"go back to step {advice.proposed['step']:,}" + (
            f" with {settings}" if settings else ""
        )
    if advice.parameter == "inspect":
        return f"look at {looked_at(finding)}"
    if advice.parameter == "lr" and finding.rule == "lr_too_high":
        return deed("lr", advice.proposed, between).replace("lr = ", "") + basis
    return deed(advice.parameter, advice.proposed, between) + basis


def awaits_outcome(finding: Finding) -> bool:
    """Tell whether a setting was changed for a finding, and it is not known yet whether it helped."""
    return finding.followed is not None and finding.outcome is None


def _change(followed: Mapping[str, Json]) -> str:
    name = str(followed["parameter"])
    before, after = (
        "none" if value is None else value_words(name, value)
        for value in (followed["from"], followed["to"])
    )
    run = followed.get("run")
    where = f"in run {run}" if run else f"at step {followed['step']:,}"
    return f"{name} went from {before} to {after} {where}"


def looked_at(finding: Finding) -> str:
    """Return what `inspect` proposes with what it is: ranks, steps or samples, in words."""
    proposed = finding.recommendation.proposed if finding.recommendation else None
    items = proposed if isinstance(proposed, list) else [proposed]
    words = value_words("inspect", proposed)
    if any(isinstance(item, str) for item in items):
        return words
    steps = {item.step for item in finding.because} | {finding.first_step, finding.last_step}
    kinds = (("rank", set(finding.ranks)), ("step", steps))
    noun = next((name for name, known in kinds if items and set(items) <= known), "sample")
    return f"{noun if len(items) == 1 else noun + 's'} {words}"


def _basis(basis: str) -> str:
    return f" ({basis})" if basis == "rule of thumb" else ""


def run_state(findings: Sequence[Finding], judged: Sequence[str], step: int) -> str:
    """Return `needs_action`, `healthy` or `not_judged`."""
    if any(finding.severity != "info" for finding in shown(findings, step)):
        return "needs_action"
    return "healthy" if judged else "not_judged"


def sentence(
    findings: Sequence[Finding],
    judged: Sequence[str],
    not_judged: Mapping[str, str],
    step: int,
    measured: Sequence[str] = (),
    *,
    ended: bool = False,
) -> str:
    """Return the verdict in one sentence: state, largest cost, one action, what is missing.

    `measured`: what is known of a run that is too short to be judged, a few words each; `ended`:
    whether it is over, so that nothing is yet to come.
    """
    state = run_state(findings, judged, step)
    if state == "needs_action":
        grave = [item for item in shown(findings, step) if item.severity != "info"]
        # what was acted on already has to wait: the one action is another's
        first = next((item for item in grave if not awaits_outcome(item)), grave[0])
        return f"Needs action: {_lowered(first.title)}; {action(first)}."
    told = measured and len(not_judged) >= len(judged)
    known = f" Measured: {', '.join(measured)}." if told else ""
    if state == "not_judged":
        why = next(iter(not_judged.values()), "no samples yet")
        return f"Not judged{'' if ended else ' yet'} (step {step:,}): {why}.{known}"
    aside = put_aside(findings, step)
    loud = {finding.rule for finding in aside}
    quiet = [rule for rule in judged if rule not in loud and rule not in not_judged]
    passed = f"{count(len(quiet), 'check')} passed{_missing(not_judged, ended)}"
    if aside:
        names = "; ".join(_lowered(finding.title) for finding in aside)
        return f"Nothing new (step {step:,}): {passed}. Put aside: {names}."
    return f"Healthy{'' if ended else ' so far'} (step {step:,}): {passed}.{known}"


def run_json(
    run: str,
    findings: Sequence[Finding],
    judged: Sequence[str],
    not_judged: Mapping[str, str],
    obstacles: Mapping[str, Json],
    step: int,
    missed: Sequence[Sequence[int]] = (),
    measured: Sequence[str] = (),
    settings: Mapping[str, Json] | None = None,
    *,
    ended: bool = False,
) -> dict[str, Json]:
    """Return the run as DESIGN.md writes it: state, verdict, obstacles, judged, findings.

    `missed`: [attempt, first, last] of the steps whose samples could not be judged; `measured`:
    what is known of the run besides, a few words each; `settings` those of the fold; `ended`:
    whether it is over.
    """
    told = settings or {}
    return plain(
        {
            "run": run,
            "step": step,
            "state": run_state(findings, judged, step),
            "verdict": sentence(findings, judged, not_judged, step, measured, ended=ended),
            "obstacles": obstacles,
            "judged": list(judged),
            "not_judged": dict(not_judged),
            "missed": [
                {"attempt": attempt, "from": first, "to": last} for attempt, first, last in missed
            ],
            "thresholds": {
                "set": {**(told.get("project") or {}), **(told.get("overrides") or {})},
                "refused": told.get("refused") or {},
            },
            "findings": [finding.to_json() for finding in findings],
        }
    )


def cost_share(overhead: Mapping[str, Json] | None) -> float | None:
    """Return the share of a run's time that Otoscope cost, None while it is not known yet.

    In its first seconds a run has hardly trained, and all that it takes to begin is ours.

    >>> cost_share({"share": 1.82, "seconds": 1.5}), cost_share({"share": 0.02, "seconds": 1.5})
    (None, 0.02)
    """
    share, seconds = (overhead or {}).get("share"), (overhead or {}).get("seconds")
    if not isinstance(share, (int, float)) or not share > 0:
        return None
    told = isinstance(seconds, (int, float))
    return None if told and seconds / share < LEAST_SECONDS else float(share)


def verdict_lines(
    judged_run: Mapping[str, Json], *, where: str, overhead: Mapping[str, Json] | None
) -> list[str]:
    """Return the three lines at the end of a fit.

    Args:
        judged_run: what `judge` or `summary` returned.
        where: where to look further: a command, or the page's address.
        overhead: `{"share", "seconds"}` of the recorder; None where it was not measured.
    """
    done = [name_of(rule) for rule in judged_run["judged"]]
    line = f"Judged: {', '.join(done) or 'nothing'}."
    missing = judged_run["not_judged"]
    if missing:
        reasons = [f"{name_of(rule)} ({why})" for rule, why in missing.items()]
        line += f" Not judged: {', '.join(reasons)}."
    share = cost_share(overhead)
    if share is not None:
        line += f" Otoscope cost {100 * share:.1f} % of the time."
    refused = (judged_run.get("thresholds") or {}).get("refused") or {}
    if refused:
        line += f" Left at its default: {'; '.join(refused.values())}."
    return [str(judged_run["verdict"]), line, f"More: {where}"]


def _missing(not_judged: Mapping[str, str], ended: bool) -> str:
    if not not_judged:
        return ""
    rule, why = next(iter(not_judged.items()))
    named = f"{name_of(rule)}: {why}"
    words = "never measurable" if ended else "not yet measurable"
    return f", {len(not_judged)} {words} ({named})"


def _lowered(title: str) -> str:
    return title[:1].lower() + title[1:] if title[1:2].islower() else title
