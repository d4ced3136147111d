"""Every peer over every run: traces first, then the rules, the packages, and our own verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..faults.case import PLANNED, Case
from ..faults.running import over_cores
from ..faults.runs import judged
from . import living
from .alert import FAULTS, Alert, packed, unpacked
from .autotrainer import autotrainer
from .living import KINDS, READERS, VERSIONS, PeerError
from .sagemaker import sagemaker
from .scoring import figures, per_net, row_of
from .spikes import megatron, olmo, zclip
from .trace import Trace, load
from .tracing import OUT, path_of, traced

RULES: dict[str, Callable[[Trace], list[Alert]]] = {
    "OLMo 6 sigma": olmo,
    "ZClip 2.5": zclip,
    "Megatron 10 x": megatron,
    "SageMaker Debugger": sagemaker,
    "AutoTrainer": autotrainer,
}
OURS = "Otoscope"
PEERS = (OURS, *RULES, *VERSIONS)
LOOKS_FOR: dict[str, tuple[str, ...]] = {
    "OLMo 6 sigma": ("loss spike", "gradient spike"),
    "ZClip 2.5": ("gradient spike",),
    "Megatron 10 x": ("loss spike", "gradient spike", "not finite"),
    "SageMaker Debugger": (
        "vanishing", "not finite", "dead units", "saturated", "initialization", "update too large",
        "not updated", "not learning", "overfitting", "classes",
    ),
    "AutoTrainer": (
        "not finite", "dead units", "exploding", "vanishing", "not learning", "oscillating",
    ),
    **{peer: tuple(dict.fromkeys(kinds.values())) for peer, kinds in KINDS.items()},
}  # fmt: skip
PORTION = 24
"""Runs that a package is given at once: what is kept after each can be gone on from."""


@dataclass(frozen=True, eq=False)
class Run:
    """One case and one seed; a run equals itself alone."""

    case: Case
    seed: int

    @property
    def trace(self) -> Path:
        return path_of(self.case.body, self.seed)


def known_faults(peer: str) -> frozenset[str]:
    """Return our rules whose faults a peer has a word for."""
    if peer == OURS:
        return PLANNED
    return frozenset(fault for kind in LOOKS_FOR[peer] for fault in FAULTS[kind])


def trace_of(run: Run) -> None:
    traced(run.case.body, run.seed)


def ours(run: Run) -> list[dict[str, Any]]:
    """Return our findings on the recording of a run, roots first, as alerts."""
    told = judged(run.case, run.seed, "defaults")
    findings = told["report"]["findings"]
    hidden = {item for finding in findings for item in finding["caused"]}
    order = sorted(findings, key=lambda item: item["id"] in hidden)
    return packed(
        [
            Alert(
                item["rule"], item["rule"], told["fired"].get(item["rule"], item["first_step"]),
                max(item["last_step"], item["first_step"]), item["severity"],
            )
            for item in order
        ]
    )  # fmt: skip


def by_rules(run: Run, peer: str) -> list[Alert]:
    """Return what a re-implemented peer says, in the order in which it says it."""
    return sorted(RULES[peer](load(run.trace)), key=lambda alert: alert.step)


def by_package(peer: str, runs: Sequence[Run], say: Callable[[str], None]) -> dict[Run, Any]:
    """Return what a package said of each run: `alerts` and `seconds`, or its own `error`."""
    folder = OUT / peer / living.state(peer)
    missing = [run for run in runs if not (folder / f"{run.trace.stem}.json").exists()]
    for first in range(0, len(missing), PORTION):
        part = missing[first : first + PORTION]
        say(f"{peer}: {first + len(part)} of {len(missing)}")
        answers = living.asked(peer, [_task(peer, run) for run in part])
        for run, answer in zip(part, answers, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{run.trace.stem}.json").write_text(json.dumps(answer))
    return {run: json.loads((folder / f"{run.trace.stem}.json").read_text()) for run in runs}


def _task(peer: str, run: Run) -> dict[str, Any]:
    key = run.trace.stem
    if peer not in READERS:
        return {"key": key, "body": dict(run.case.body), "seed": run.seed}
    path = OUT / "logs" / f"{key}.csv"
    if not path.exists():
        living.write_log(load(run.trace), path)
    return {"key": key, "csv": str(path)}


def everything(
    runs: Sequence[Run], peers: Sequence[str], *, jobs: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return, of each peer: its rows, figures, per-net counts, and why it did not run if so."""
    over_cores(trace_of, runs, jobs, "tracing")
    told: dict[str, Any] = {}
    for peer in peers:
        say(peer)
        try:
            told[peer] = _summed(peer, runs, _alerts(peer, runs, jobs, say))
        except PeerError as error:
            told[peer] = {"failed": str(error)}
    return told


def _alerts(
    peer: str, runs: Sequence[Run], jobs: int, say: Callable[[str], None]
) -> dict[Run, list[Alert] | str]:
    if peer == OURS:
        found = over_cores(ours, runs, jobs, "judging")
        return {run: unpacked(one) for run, one in zip(runs, found, strict=True)}
    if peer in RULES:
        return {run: by_rules(run, peer) for run in runs}
    living.installed()
    answers = by_package(peer, runs, say)
    return {run: _heard(peer, answer) for run, answer in answers.items()}


def _heard(peer: str, answer: Mapping[str, Any]) -> list[Alert] | str:
    return str(answer["error"]) if "error" in answer else living.alerts_of(peer, answer["alerts"])


def _summed(
    peer: str, runs: Sequence[Run], alerts: Mapping[Run, list[Alert] | str]
) -> dict[str, Any]:
    """A run on which a peer failed counts as one of which it said nothing; how many is told."""
    errors = sorted({one for one in alerts.values() if isinstance(one, str)})
    rows = []
    for run in runs:
        one = alerts[run]
        steps = int(run.case.body["stop"] or run.case.body["steps"])
        rows.append(row_of(run.case, run.seed, steps, [] if isinstance(one, str) else one))
    return {
        "version": VERSIONS.get(peer),
        "figures": figures(rows, known_faults(peer)),
        "nets": per_net(rows),
        "errors": {
            "runs": sum(isinstance(one, str) for one in alerts.values()),
            "said": errors[:3],
        },
        "rows": rows,
    }
