"""Every peer over every run: traces first, then the rules, the packages, and our own verdict."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..faults.case import PLANNED, Case
from ..faults.running import over_cores
from ..faults.runs import digest, folder_of, judged
from . import living
from .alert import FAULTS, OTHER, Alert, packed, unpacked
from .asking import PeerError, asked
from .autotrainer import autotrainer
from .living import KINDS, READERS, STREAMS, VERSIONS
from .sagemaker import sagemaker
from .scoring import figures, per_net, row_of
from .spikes import megatron, olmo, zclip
from .trace import VALIDATE_EVERY, Trace, load
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


@dataclass(frozen=True, eq=False)
class Run:
    """One case and one seed; a run equals itself alone."""

    case: Case
    seed: int

    @property
    def trace(self) -> Path:
        return path_of(self.case.body, self.seed)

    @property
    def is_kept(self) -> bool:
        """Whether it was traced and recorded before."""
        recording = folder_of(self.case, self.seed, "defaults") / "told.json"
        return self.trace.exists() and recording.exists()


@dataclass(frozen=True)
class How:
    """How to go about it: processes, nothing new (`only_kept`), failures anew (`again`).

    Packages are asked for `minutes` in all; `until` is when one's are over, of `time.monotonic()`.
    """

    jobs: int = 1
    only_kept: bool = False
    again: bool = False
    minutes: float = math.inf
    until: float = math.inf

    def share_of(self, peer: str, peers: Sequence[str]) -> How:
        """Return what is left of the time, evenly over a package and those that come after it."""
        left = [one for one in peers[peers.index(peer) :] if one in VERSIONS]
        now = time.monotonic()
        return replace(self, until=now + (self.until - now) / max(1, len(left)))


def known_faults(peer: str) -> frozenset[str]:
    """Return our rules whose faults a peer has a word for."""
    if peer == OURS:
        return PLANNED
    return frozenset(fault for kind in LOOKS_FOR[peer] for fault in FAULTS[kind])


def trace_of(run: Run) -> str:
    """Make a run's trace where there is none, or where a recording shows other losses.

    Returns a hash of its losses, with which a package's answer is kept.
    """
    trace = load(traced(run.case.body, run.seed))
    recording = _kept(folder_of(run.case, run.seed, "defaults") / "told.json")
    if recording is not None and not same(recording["losses"], trace):
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


def ours(run: Run) -> dict[str, Any]:
    """Return our findings on the recording of a run, roots first, as `alerts`, and its `losses`."""
    told = judged(run.case, run.seed, "defaults")
    findings = told["report"]["findings"]
    hidden = {item for finding in findings for item in finding["caused"]}
    order = sorted(findings, key=lambda item: item["id"] in hidden)
    alerts = packed(
        [
            Alert(
                item["rule"], item["rule"], told["fired"].get(item["rule"], item["first_step"]),
                max(item["last_step"], item["first_step"]), item["severity"],
            )
            for item in order
        ]
    )  # fmt: skip
    return {"alerts": alerts, "losses": told["ended"]["losses"]}


def by_rules(run: Run, peer: str) -> list[Alert]:
    """Return what a re-implemented peer says, in the order in which it says it."""
    return sorted(RULES[peer](load(run.trace)), key=lambda alert: alert.step)


def by_package(peer: str, runs: Mapping[Run, str], how: How) -> dict[Run, dict[str, Any]]:
    """Return what a package said of each run: `alerts` and `seconds`, or its own `error`.

    `runs` holds with each run the hash of its losses; one of which there is no answer is left out.
    """
    folder = OUT / peer / living.state(peer)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {run: folder / f"{run.trace.stem}-{losses}.json" for run, losses in runs.items()}
    kept = {run: _kept(path) for run, path in paths.items()}
    missing = [run for run, told in kept.items() if told is None or (how.again and "error" in told)]
    if missing and not how.only_kept:
        tasks = [task(peer, run) for run in missing]

        def keep(number: int, answer: dict[str, Any]) -> None:
            run = missing[number]
            kept[run] = answer
            paths[run].write_text(json.dumps(answer), encoding="utf-8")

        workers = [living.worker(peer) for _ in range(max(1, how.jobs))]
        asked(workers, tasks, keep, peer, how.until)
    return {run: told for run, told in kept.items() if told is not None}


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):  # none yet, or one cut off by a kill
        return None


def task(peer: str, run: Run) -> dict[str, Any]:
    """Return what a package is asked about a run: the run itself, or its log."""
    trace = load(run.trace)
    if peer not in READERS:
        known = trace.get("val_loss")[VALIDATE_EVERY - 1 :: VALIDATE_EVERY].tolist()
        return {"body": dict(run.case.body), "seed": run.seed, "val_losses": known}
    path = OUT / "logs" / f"{run.trace.stem}.csv"
    living.write_log(trace, path)
    return {"csv": str(path)}


def everything(
    runs: Sequence[Run], peers: Sequence[str], how: How, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return, of each peer: its rows, figures, per-net counts, and why it did not run if so."""
    failed: list[str] = []
    hashes = over_cores(trace_of, runs, how.jobs, "tracing", failed)
    for line in failed:
        say(f"left out, as it could not be trained: {line}")
    losses = {run: told for run, told in zip(runs, hashes, strict=True) if told is not None}
    how = replace(how, until=time.monotonic() + 60 * how.minutes)
    asked_about = digest(*(f"{run.trace.stem}-{run.seed}" for run in runs))
    told: dict[str, Any] = {}
    for peer in peers:
        say(peer)
        try:
            told[peer] = _summed(peer, *_alerts(peer, losses, how.share_of(peer, peers), say))
        except PeerError as error:
            told[peer] = {"failed": str(error)}
        told[peer]["runs"] = asked_about
    return told


def laid_over(before: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was told now over what was told before of the same runs, in the order of PEERS."""
    runs = {body["runs"] for body in told.values()}
    every = {peer: body for peer, body in before.items() if body.get("runs") in runs} | dict(told)
    return {peer: every[peer] for peer in PEERS if peer in every}


def _alerts(
    peer: str, runs: Mapping[Run, str], how: How, say: Callable[[str], None]
) -> tuple[dict[Run, list[Alert]], dict[Run, dict[str, Any]]]:
    """Return what a peer said of each run, and of a package its whole answers."""
    if peer == OURS:
        failed: list[str] = []
        found = over_cores(ours, list(runs), how.jobs, "judging", failed)
        for line in failed:
            say(f"not judged by {OURS}: {line}")
        told = [one or {"alerts": [], "error": "its judging failed"} for one in found]
        answers = dict(zip(runs, told, strict=True))
        return {run: unpacked(one["alerts"]) for run, one in answers.items()}, answers
    if peer in RULES:
        return {run: by_rules(run, peer) for run in runs}, {}
    if not how.only_kept:
        living.installed()
    answers = by_package(peer, runs, how)
    if not answers:
        raise PeerError("it has not been asked about these runs (--kept, or its time was up)")
    if len(answers) < len(runs):
        say(f"{peer} was asked about {len(answers)} of {len(runs)} runs; the same again goes on")
    return {run: living.alerts_of(peer, told["alerts"]) for run, told in answers.items()}, answers


def _summed(
    peer: str, alerts: Mapping[Run, Sequence[Alert]], answers: Mapping[Run, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a peer's rows, and what they come to."""
    errors = {run: str(told["error"]) for run, told in answers.items() if "error" in told}
    rows = []
    for run, said in alerts.items():
        steps = int(run.case.body["stop"] or run.case.body["steps"])
        rows.append(row_of(run.case, run.seed, steps, said, errors.get(run, "")))
    told = figures(rows, known_faults(peer))
    if peer in VERSIONS and peer not in STREAMS:
        told["delay_median"] = None  # it names a step, but says so at the end
    other = {one.name for said in alerts.values() for one in said if one.kind == OTHER}
    return {
        "version": VERSIONS.get(peer),
        "figures": told,
        "nets": per_net(rows),
        "errors": {"runs": len(errors), "said": sorted(set(errors.values()))[:3]},
        "other": sorted(other),
        "changed": _changed(answers),
        "rows": rows,
    }


def _changed(answers: Mapping[Run, Mapping[str, Any]]) -> list[int] | None:
    """Return in how many runs the losses were others than without the package, and of how many."""
    seen = {
        run: told["losses"]
        for run, told in answers.items()
        if "seconds" in told and "losses" in told
    }
    if not seen:
        return None
    return [sum(not same(told, load(run.trace)) for run, told in seen.items()), len(seen)]
