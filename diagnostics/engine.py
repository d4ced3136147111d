"""The engine: unknown → fine → pending → firing → clearing → fine, for each rule of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..store import Evidence, Finding, Recommendation
from ..store.schemas import Json, plain
from .inhibition import HOLD, REACH, caused_ids, gather, hang, parents, release
from .rule import Case, Later, Verdict, told
from .thresholds import Thresholds

RANK = {"critical": 0, "warning": 1, "info": 2}
BASES = ("rule of thumb", "from your run", "derived")
ASIDE = ("frozen_layer",)
"""Rules whose information is of a branch that nothing uses: it explains nothing, and comes last."""
KEPT_FINDINGS = 200
REASONED = 100
"""Steps after which a rule that never had a sample is asked again why it does not judge."""
STRONGEST = 1e9
"""An infinite effect is kept as this: the state is JSON."""


@dataclass
class Entry:
    """Where one rule stands. `recent` holds 1 for a breach and 0 for none, the last n of them.

    `held`: the step since which it would fire but for a root cause that is pending.
    """

    state: str = "unknown"
    why: str = "no sample yet"
    recent: list[int] = field(default_factory=list)
    onset: int = 0
    evaluated: int | None = None
    sample: int = -1
    known: int | None = None
    breached: int | None = None
    calm: int = 0
    held: int | None = None
    quiet_until: int = 0
    finding: str | None = None
    case: Case | dict[str, Json] | None = None
    """Of the last breach, until it fires; as JSON once it was stored."""
    severity: str = ""
    """Of the last breach."""
    strength: float = 0.0
    """Effect over threshold at the last evaluation that could judge."""
    partly: str = ""
    """What of the rule could not be judged then, and why."""
    outdated: bool = False
    """Whether the advice of its finding is of a setting that has another value by now."""

    def lacks_a_reason(self, begins: int, step: int) -> bool:
        """Tell whether a rule whose family never came shall say again why it does not judge."""
        looked = self.evaluated
        return looked is None or looked <= begins < step or step - looked >= REASONED

    def to_json(self) -> dict[str, Json]:
        """Return the entry as a JSON object."""
        body = {name: getattr(self, name) for name in _ENTRY}
        if isinstance(self.case, Case):
            body["case"] = self.case = plain(asdict(self.case))  # dear: once a case
        return body


_ENTRY = tuple(item.name for item in fields(Entry))


class _States(Mapping[str, str]):
    """The states of entries, without a copy: each rule's context has them, at every point."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries

    def __getitem__(self, rule: str) -> str:
        return self._entries[rule].state

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class Engine:
    """The entries and findings of one run; `advance` is called once a rule and grid point."""

    def __init__(
        self,
        run: str,
        entries: Mapping[str, Entry] | None = None,
        findings: list[Finding] | None = None,
    ) -> None:
        self.run = run
        self.entries = dict(entries or {})
        self.findings = list(findings or [])

    @classmethod
    def restore(cls, run: str, body: Mapping[str, Json], findings: list[Finding]) -> Engine:
        """Go on from the JSON of `to_json` and the findings beside it."""
        return cls(run, {rule: Entry(**entry) for rule, entry in body.items()}, findings)

    def to_json(self) -> dict[str, Json]:
        """Return the entries as a JSON object."""
        return {rule: entry.to_json() for rule, entry in self.entries.items()}

    def entry(self, rule: str) -> Entry:
        """Return where a rule stands."""
        entry = self.entries.get(rule)
        if entry is None:
            entry = self.entries[rule] = Entry()
        return entry

    def states(self) -> Mapping[str, str]:
        """Return each rule's state, as it is whenever it is asked for."""
        return _States(self.entries)

    def advance(
        self, rule: str, verdict: Verdict, thresholds: Thresholds, attempt: int, step: int
    ) -> None:
        """Take in what a rule made of the point."""
        entry = self.entry(rule)
        entry.evaluated = step
        if verdict.kind == "unknown":
            self._not_known(entry, verdict.why)
            return
        entry.known, entry.why, entry.partly = step, "", verdict.why
        entry.strength = min(verdict.strength, STRONGEST)
        hit = verdict.kind == "breach"
        if hit:
            self._remember(entry, verdict, thresholds, step)
        entry.recent = [*entry.recent, int(hit)][-thresholds.n :]
        if entry.state in ("firing", "clearing"):
            self._hold_or_clear(entry, verdict, thresholds, step)
        elif (
            sum(entry.recent) >= thresholds.k or (hit and verdict.certain)
        ) and step >= entry.quiet_until:
            self._fire_unless_held(rule, entry, thresholds, attempt, step)
        else:
            entry.state, entry.held = ("pending" if any(entry.recent) else "fine"), None

    def wants(self, rule: str, case: Later) -> bool:
        """Tell whether a case that was put off has to be made: the rule has no finding, or a worse one."""
        entry = self.entry(rule)
        finding = self._finding(entry)
        return finding is None or entry.outdated or _is_better(finding, case.basis)

    def outdate(self, finding_id: str) -> None:
        """Let a finding take the next advice: a setting that the one it has names was changed since."""
        for entry in self.entries.values():
            if entry.finding == finding_id:
                entry.outdated = True

    def restart_windows(self, why: str) -> None:
        """Forget what is pending: the windows begin anew. What is firing stays, as stale."""
        for entry in self.entries.values():
            entry.recent, entry.calm, entry.held = [], 0, None
            self._not_known(entry, why)

    def begin_attempt(self) -> None:
        """Let the rules begin anew; what was firing in the attempt before it is resolved."""
        for finding in self.findings:
            if finding.state == "firing":
                finding.state, finding.stale = "resolved", False
        self.entries = {}

    def close(self, finding_id: str, step: int, quiet_until: int) -> None:
        """Resolve a finding because a person says so; its rule keeps quiet for a while."""
        for rule, entry in self.entries.items():
            if entry.finding == finding_id:
                self.withdraw(rule, "closed by hand", step)
                self.entries[rule].quiet_until = quiet_until
        for finding in self.findings:
            finding.closed = finding.closed or finding.id == finding_id

    def withdraw(self, rule: str, why: str, step: int) -> None:
        """Resolve what a rule found, and let it begin anew."""
        finding = self._finding(self.entry(rule))
        if finding is not None:
            finding.state, finding.stale, finding.last_step = "resolved", False, step
        self.entries[rule] = Entry(why=why)

    def quieten(self, thresholds: Mapping[str, Thresholds], step: int) -> None:
        """Begin every rule's cool-down: a setting was changed at this step."""
        for rule, numbers in thresholds.items():
            entry = self.entry(rule)
            entry.quiet_until = max(entry.quiet_until, step + numbers.cool_down)

    def ordered(self) -> list[Finding]:
        """Return the findings, root causes first, most severe first, then what they caused."""
        hidden = caused_ids(self.findings)

        def place(finding: Finding) -> tuple[Any, ...]:
            return (
                finding.id in hidden,
                finding.state != "firing",
                finding.acknowledged,
                RANK[finding.severity],
                finding.severity == "info" and finding.rule in ASIDE,
                finding.attempt,
                finding.first_step,
                finding.rule,
            )

        return sorted(self.findings, key=place)

    def _not_known(self, entry: Entry, why: str) -> None:
        entry.why = why
        finding = self._finding(entry)
        if finding is not None:
            finding.stale = True
            return
        entry.state, entry.recent, entry.held = "unknown", [], None

    def _remember(self, entry: Entry, verdict: Verdict, thresholds: Thresholds, step: int) -> None:
        case = verdict.case
        if case is None:
            raise ValueError("a breach needs a case that says what was seen")
        entry.breached = step
        if not any(entry.recent):
            entry.onset = step if case.onset is None else case.onset
        entry.case = told(case) if entry.finding is None else None
        entry.severity = case.severity or thresholds.severity

    def _fire_unless_held(
        self, rule: str, entry: Entry, thresholds: Thresholds, attempt: int, step: int
    ) -> None:
        causes = [cause for cause in parents(rule) if cause in self.entries]
        tells = [cause for cause in causes if self.entries[cause].severity != "info"]
        if rule == "non_finite":
            self._promote(causes, attempt, entry.onset, step)
        elif any(self.entries[cause].state == "pending" for cause in tells):
            entry.held = step if entry.held is None else entry.held
            if step - entry.held < HOLD:
                entry.state = "pending"  # a root cause is about to be named or ruled out
                return
        self._fire(rule, entry, thresholds.severity, attempt, step)

    def _promote(self, causes: list[str], attempt: int, onset: int, step: int) -> None:
        """Fire the root cause that numbers breaking off would leave pending for ever."""
        for cause in causes:
            entry = self.entries[cause]
            if entry.state in ("firing", "clearing"):
                return
            recent = entry.breached is not None and entry.breached >= onset - REACH
            if recent and entry.case is not None:
                self._fire(cause, entry, "critical", attempt, step)
                return

    def _fire(self, rule: str, entry: Entry, severity: Any, attempt: int, step: int) -> None:
        case = _case(entry.case)
        finding = Finding(
            id=f"{rule}:{case.scope}:{attempt}:{entry.onset}",
            run=self.run,
            attempt=attempt,
            rule=rule,
            severity=severity,
            state="firing",
            scope=case.scope,
            first_step=entry.onset,
            last_step=step,
            title="",
        )
        _say(finding, case)
        self.findings = [item for item in self.findings if item.id != finding.id]
        self.findings = [*self.findings, finding][-KEPT_FINDINGS:]
        entry.state, entry.calm, entry.held, entry.finding = "firing", 0, None, finding.id
        entry.case, entry.outdated = None, False
        hang(self.findings, finding)
        gather(self.findings, finding)

    def _hold_or_clear(
        self, entry: Entry, verdict: Verdict, thresholds: Thresholds, step: int
    ) -> None:
        finding = self._finding(entry)
        if finding is None:  # let go, as there were too many
            entry.state, entry.recent, entry.finding = "fine", [], None
            return
        finding.stale = False
        case = verdict.case
        elsewhere = isinstance(case, Case) and case.scope != finding.scope
        if verdict.strength >= thresholds.clear and not elsewhere:
            entry.state, entry.calm, finding.last_step = "firing", 0, step
            if isinstance(case, Later) and (entry.outdated or _is_better(finding, case.basis)):
                case = told(case)
            if case is not None:
                _strengthen(finding, case, thresholds.severity)
            if entry.outdated and isinstance(case, Case):
                finding.recommendation, entry.outdated = case.recommendation, False
            return
        entry.state, entry.calm = "clearing", entry.calm + 1
        if entry.calm >= thresholds.n:
            finding.state, finding.last_step = "resolved", step
            entry.state, entry.recent, entry.finding, entry.case = "fine", [], None, None
            release(self.findings, finding)

    def _finding(self, entry: Entry) -> Finding | None:
        if entry.finding is None:
            return None
        return next((item for item in self.findings if item.id == entry.finding), None)


def _case(told: Case | Mapping[str, Json] | None) -> Case:
    if isinstance(told, Case):
        return told
    body = told or {}
    kept = dict(body)
    kept["because"] = tuple(Evidence(**item) for item in body["because"])
    kept["recommendation"] = Recommendation(**body["recommendation"])
    for name in ("layers", "ranks", "not_measured"):
        kept[name] = tuple(body[name])
    return Case(**kept)


def _say(finding: Finding, case: Case) -> None:
    finding.title, finding.why, finding.may_be_normal = case.title, case.why, case.may_be_normal
    finding.because, finding.recommendation = list(case.because), case.recommendation
    finding.layers, finding.ranks = list(case.layers), list(case.ranks)
    finding.not_measured = list(case.not_measured)
    finding.severity = case.severity or finding.severity


def _strengthen(finding: Finding, case: Case | Later, usual: Any) -> None:
    """Let a finding that stands speak anew only where it knows better or it has got worse.

    Numbers measured after the damage are worth less than those of its onset (curvature of a
    collapsed net), so a recommendation is replaced only by one of a better basis. `usual`: the severity
    of a case that names none; one that began as information may come to that.
    """
    severity = case.severity or usual
    worse = RANK[severity] < RANK[finding.severity]
    if isinstance(case, Case) and _is_better(finding, case.recommendation.basis):
        _say(finding, case)
    if worse:
        finding.severity = severity


def _is_better(finding: Finding, basis: str) -> bool:
    old = finding.recommendation
    return old is None or BASES.index(basis) > BASES.index(old.basis)
