"""The verdict: what a run's state, findings and coverage come to, as JSON and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..store import Finding
from ..store.schemas import Json, plain
from .inhibition import caused_ids
from .words import count, interval, number

NAMES = {
    "non_finite": "finite numbers",
    "lr_too_high": "learning rate",
    "exploding_gradients": "exploding gradients",
    "dead_units": "dead units",
    "vanishing_gradients": "vanishing gradients",
    "plateau": "plateau",
}
"""What each check looks at, as the verdict names it."""


def name_of(rule: Json) -> str:
    """Return what a check looks at, in words; those of its id where it is a reader's own.

    >>> name_of("lr_too_high")
    'learning rate'
    """
    return NAMES.get(str(rule), str(rule).replace("_", " "))


def shown(findings: Sequence[Finding], step: int) -> list[Finding]:
    """Return the findings that ask for attention: firing, not caused, not put aside."""
    hidden = caused_ids(findings)
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
    hidden = caused_ids(findings)
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
    if advice is None:
        return "look at what was seen"
    proposed = advice.proposed
    if advice.parameter == "rollback" and isinstance(proposed, Mapping):
        then = proposed.get("then") or {}
        settings = ", ".join(f"{key} {_value(value)}" for key, value in then.items())
        return f"go back to step {proposed['step']:,}" + (f" with {settings}" if settings else "")
    if isinstance(proposed, Mapping):
        return f"set {advice.parameter} of {count(len(proposed), 'layer')}"
    if isinstance(proposed, list):
        return f"set {advice.parameter} ({count(len(proposed), 'value')})"
    low_high = f" ({interval(*advice.range)})" if advice.range else ""
    if advice.parameter == "lr" and finding.rule == "lr_too_high":
        return f"set {_value(proposed)}{low_high or _basis(advice.basis)}"
    return f"set {advice.parameter} = {_value(proposed)}{low_high or _basis(advice.basis)}"


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
) -> str:
    """Return the verdict in one sentence: state, largest cost, one action, what is missing.

    `measured`: what is known of a run that is too short to be judged, a few words each.
    """
    state = run_state(findings, judged, step)
    if state == "needs_action":
        first = next(item for item in shown(findings, step) if item.severity != "info")
        return f"Needs action: {_lowered(first.title)}; {action(first)}."
    told = measured and len(not_judged) >= len(judged)
    known = f" Measured: {', '.join(measured)}." if told else ""
    if state == "not_judged":
        why = next(iter(not_judged.values()), "no samples yet")
        return f"Not judged yet (step {step:,}): {why}.{known}"
    aside = put_aside(findings, step)
    quiet = [rule for rule in judged if rule not in {finding.rule for finding in aside}]
    passed = f"{count(len(quiet), 'check')} passed{_missing(not_judged)}"
    if aside:
        names = "; ".join(_lowered(finding.title) for finding in aside)
        return f"Nothing new (step {step:,}): {passed}. Put aside: {names}."
    return f"Healthy so far (step {step:,}): {passed}.{known}"


def run_json(
    run: str,
    findings: Sequence[Finding],
    judged: Sequence[str],
    not_judged: Mapping[str, str],
    obstacles: Mapping[str, Json],
    step: int,
    missed: Sequence[Sequence[int]] = (),
    measured: Sequence[str] = (),
) -> dict[str, Json]:
    """Return the run as DESIGN.md writes it: state, verdict, obstacles, judged, findings.

    `missed`: [attempt, first, last] of the steps whose samples could not be judged; `measured`:
    what is known of the run besides, a few words each.
    """
    return plain(
        {
            "run": run,
            "state": run_state(findings, judged, step),
            "verdict": sentence(findings, judged, not_judged, step, measured),
            "obstacles": obstacles,
            "judged": list(judged),
            "not_judged": dict(not_judged),
            "missed": [
                {"attempt": attempt, "from": first, "to": last} for attempt, first, last in missed
            ],
            "findings": [finding.to_json() for finding in findings],
        }
    )


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
    share = (overhead or {}).get("share")
    if share is not None:
        line += f" Otoscope cost {100 * float(share):.1f} % of the time."
    return [str(judged_run["verdict"]), line, f"More: {where}"]


def _missing(not_judged: Mapping[str, str]) -> str:
    if not not_judged:
        return ""
    rule, why = next(iter(not_judged.items()))
    named = f"{name_of(rule)}: {why}"
    return f", {len(not_judged)} not yet measurable ({named})"


def _value(value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return number(float(value))


def _lowered(title: str) -> str:
    return title[:1].lower() + title[1:] if title[1:2].islower() else title
