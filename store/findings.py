"""A finding: what was seen, why it matters, what to set and how that was computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from .plain import Json, from_mapping, plain

Severity = Literal["info", "warning", "critical"]


@dataclass(slots=True)
class Evidence:
    """One thing that was seen: words, and the series, step and threshold behind them."""

    text: str
    family: str | None = None
    column: str | None = None
    step: int | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(slots=True)
class Recommendation:
    """A setting to change: `proposed` is a JSON value that a script can apply unedited.

    `also` holds further `{"parameter", "proposed"}` pairs that belong together with it,
    `alternatives` other recommendations to choose from. `basis` is "derived",
    "from your run" or "rule of thumb"; `range` is [low, high] or None.
    """

    parameter: str
    current: Json = None
    proposed: Json = None
    range: list[float] | None = None
    basis: str = "rule of thumb"
    formula: str = ""
    snippet: str = ""
    effect: str = ""
    verify: str = ""
    risk: str = ""
    also: list[dict[str, Json]] = field(default_factory=list)
    alternatives: list[dict[str, Json]] = field(default_factory=list)


@dataclass(slots=True)
class Finding:
    """An argument that something is wrong: what was seen, why it matters, what to set."""

    id: str
    run: str
    attempt: int
    rule: str
    severity: Severity
    state: Literal["firing", "resolved"]
    scope: str
    first_step: int
    last_step: int
    title: str
    why: str = ""
    because: list[Evidence] = field(default_factory=list)
    recommendation: Recommendation | None = None
    may_be_normal: str = ""
    not_measured: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    caused: list[str] = field(default_factory=list)
    outcome: str | None = None
    acknowledged: bool = False
    snoozed_until_step: int | None = None
    stale: bool = False
    followed: dict[str, Json] | None = None
    """The change that is followed, or has led to `outcome`: {parameter, from, to, step, attempt}, and
    {run} where it was made in a later run."""
    gone_by_itself: dict[str, Json] | None = None
    """Null rate beside `outcome`: {runs, gone} of untouched runs; None where it is not known."""
    closed: bool = False
    """Whether a person closed it: it is resolved, whatever was measured."""

    def to_json(self) -> dict[str, Json]:
        """Return the finding as a JSON object (DESIGN: "A finding as JSON")."""
        return plain(asdict(self))

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Finding:
        """Read what `to_json` wrote; unknown keys are ignored."""
        finding = from_mapping(cls, body)
        finding.because = [from_mapping(Evidence, item) for item in body.get("because", [])]
        advice = body.get("recommendation")
        finding.recommendation = None if advice is None else from_mapping(Recommendation, advice)
        return finding


def hidden_ids(findings: Sequence[Finding | Mapping[str, Json]]) -> set[str]:
    """Return the ids of the findings that hang under a cause, which asks for attention in their place.

    What still fires when its cause has gone away by itself is not among them: the cause can do nothing
    for it any more. Findings may be given as their JSON, too.
    """
    rows = [_standing(finding) for finding in findings]
    firing = {name for name, fires, _, _ in rows if fires}
    return {
        effect
        for _, fires, closed, caused in rows
        for effect in caused
        if fires or closed or effect not in firing
    }


def _standing(finding: Finding | Mapping[str, Json]) -> tuple[str, bool, bool, Sequence[str]]:
    if isinstance(finding, Finding):
        return finding.id, finding.state == "firing", finding.closed, finding.caused
    fires = finding.get("state") == "firing"
    return str(finding.get("id")), fires, bool(finding.get("closed")), finding.get("caused") or []
