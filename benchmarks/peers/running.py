"""Every peer over every run: traces first, then the rules, the packages, and our own verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..faults.case import PLANNED, Case
from ..faults.running import over_cores
from ..faults.runs import digest, judged, recorded
from . import living
from .alert import FAULTS, Alert, packed, unpacked
from .autotrainer import autotrainer
from .living import KINDS, READERS, STREAMS, VERSIONS, PeerError
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
PORTION = 6
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


def trace_of(run: Run) -> str:
    """Make a run's trace where there is none, or where the recording shows other losses.

    Returns a hash of its losses, with which a package's answer is kept.
    """
    folder = recorded(run.case, run.seed, "defaults")
    ended = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    trace = load(traced(run.case.body, run.seed))
    if not same(ended["losses"], trace):
        run.trace.unlink()
        trace = load(traced(run.case.body, run.seed))
    return losses_of(trace)


def losses_of(trace: Trace) -> str:
    return digest(trace.get("loss").tobytes().hex())[:8]


def same(recording: Sequence[float], trace: Trace) -> bool:
    """Tell whether a recorded run, of which every tenth loss is kept, is the traced one."""
    losses = trace.get("loss")[::10].astype(np.float32)
    # what is not finite is written as a word, or not at all
    told = np.array([np.nan if isinstance(one, str | None) else one for one in recording])
    return len(told) == len(losses) and bool(
        np.all((told.astype(np.float32) == losses) | ~np.isfinite(told) | ~np.isfinite(losses))
    )


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


def by_package(
    peer: str, runs: Mapping[Run, str], say: Callable[[str], None], only_kept: bool = False
) -> dict[Run, dict[str, Any]]:
    """Return what a package said of each run: `alerts` and `seconds`, or its own `error`.

    `runs` holds with each run the hash of its losses. With `only_kept`, a run of which no answer
    is kept is left out.
    """
    folder = OUT / peer / living.state(peer)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {run: folder / f"{run.trace.stem}-{losses}.json" for run, losses in runs.items()}
    missing = [run for run in runs if not kept[run].exists()]
    if only_kept:
        kept = {run: path for run, path in kept.items() if run not in missing}
        missing = []
    for first in range(0, len(missing), PORTION):
        part = missing[first : first + PORTION]
        say(f"{peer}: {first + len(part)} of {len(missing)}")
        answers = living.asked(peer, [task(peer, run) for run in part])
        for run, answer in zip(part, answers, strict=True):
            kept[run].write_text(json.dumps(answer), encoding="utf-8")
    return {run: json.loads(path.read_text(encoding="utf-8")) for run, path in kept.items()}


def task(peer: str, run: Run) -> dict[str, Any]:
    """Return what a package is asked about a run: the run itself, or its log."""
    key = run.trace.stem
    if peer not in READERS:
        return {"key": key, "body": dict(run.case.body), "seed": run.seed}
    path = OUT / "logs" / f"{key}.csv"
    living.write_log(load(run.trace), path)
    return {"key": key, "csv": str(path)}


def everything(
    runs: Sequence[Run],
    peers: Sequence[str],
    *,
    jobs: int,
    say: Callable[[str], None],
    only_kept: bool = False,
) -> dict[str, Any]:
    """Return, of each peer: its rows, figures, per-net counts, and why it did not run if so."""
    losses = dict(zip(runs, over_cores(trace_of, runs, jobs, "tracing"), strict=True))
    told: dict[str, Any] = {}
    for peer in peers:
        say(peer)
        try:
            told[peer] = _summed(peer, *_alerts(peer, losses, jobs, say, only_kept))
        except PeerError as error:
            told[peer] = {"failed": str(error)}
    return told


def _alerts(
    peer: str, runs: Mapping[Run, str], jobs: int, say: Callable[[str], None], only_kept: bool
) -> tuple[dict[Run, list[Alert]], list[str]]:
    """Return what a peer said of each run, and what it failed with on some."""
    if peer == OURS:
        found = over_cores(ours, list(runs), jobs, "judging")
        return {run: unpacked(one) for run, one in zip(runs, found, strict=True)}, []
    if peer in RULES:
        return {run: by_rules(run, peer) for run in runs}, []
    if not only_kept:
        living.installed()
    answers = by_package(peer, runs, say, only_kept)
    if not answers:
        raise PeerError("it has not been asked about these runs yet (leave --kept away)")
    heard = {run: living.alerts_of(peer, told["alerts"]) for run, told in answers.items()}
    return heard, [str(told["error"]) for told in answers.values() if "error" in told]


def _summed(
    peer: str, alerts: Mapping[Run, Sequence[Alert]], errors: Sequence[str]
) -> dict[str, Any]:
    """A run in which a peer failed counts by what it had said until then; how many is told."""
    rows = []
    for run, said in alerts.items():
        steps = int(run.case.body["stop"] or run.case.body["steps"])
        rows.append(row_of(run.case, run.seed, steps, said))
    told = figures(rows, known_faults(peer))
    if peer in VERSIONS and peer not in STREAMS:
        told["delay_median"] = None  # it names a step, but says so at the end
    return {
        "version": VERSIONS.get(peer),
        "figures": told,
        "nets": per_net(rows),
        "errors": {"runs": len(errors), "said": sorted(set(errors))[:3]},
        "rows": rows,
    }
