"""Scripted runs: a loss that says what a rule finds, for tests of the fold and not of the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from otoscope.diagnostics import Case, Context, Rule, Verdict, Window, breach, fine
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.own_rules import DEFAULTS
from otoscope.diagnostics.thresholds import SHARED
from otoscope.store import Column, Event, Evidence, Finding, Frame, Meta, Recommendation, Schema
from otoscope.store.schemas import dumps

RUN = "scripted-01"
TRAIN = Schema(
    "train",
    (Column.of("loss"), Column("lr/0.0", "lr"), Column.of("samples", ranks="sum")),
)
NUMBERS: dict[str, Any] = {**DEFAULTS, "window": 10, "k": 2, "n": 2, "cool_down": 50}
ADVICE = Recommendation("lr", current=0.1, proposed=0.03, snippet="lr=0.03")


def frames(
    steps: Iterable[int],
    loss: Callable[[int], float] = lambda step: 1.0,
    *,
    attempt: int = 1,
    lr: Callable[[int], float] = lambda step: 0.1,
    samples: Callable[[int], float] = lambda step: 64,
) -> list[Frame]:
    """Return frames of `train`; a loss over 1 is what the scripted rules call a breach."""
    return [
        Frame(
            "train",
            0,
            attempt,
            step,
            1e9 + step,
            TRAIN.hash,
            np.array([loss(step), lr(step), samples(step)], dtype=np.float32),
        )
        for step in steps
    ]


def rule(
    name: str = "plateau",
    at: float = 1.0,
    *,
    advice: Recommendation = ADVICE,
    severity: str = "warning",
    **numbers: float,
) -> Rule:
    """Return a rule that is breached where the last loss is over `at`, by the loss over it."""

    def judge(window: Window, context: Context) -> Verdict:
        loss = float(window.samples("train", "loss", count=1).values[-1])
        if loss <= at * context.thresholds.fire:
            return fine(0.1)
        case = Case(
            title=f"{name} at {loss:g}",
            why="it is so",
            because=(Evidence("a loss", "train", "loss", window.step, loss, at),),
            recommendation=advice,
            may_be_normal="never",
        )
        return breach(loss / at, case)

    section = {**NUMBERS, "severity": severity, **numbers}
    return Rule(name, "train", judge, numbers={key: section[key] for key in (*SHARED,)})


def a_fold(*rules: Rule, **meta: Any) -> Fold:
    """Return a fold that judges by scripted rules."""
    return Fold(RUN, Meta(**meta), {TRAIN.hash: TRAIN}, rules=rules)


def judged(
    rules: Iterable[Rule], log: Iterable[Frame], events: Iterable[Event] = (), **meta: Any
) -> Fold:
    """Return a fold that has judged a whole log."""
    fold = a_fold(*rules, **meta)
    fold.push(log, [Event("started", body={"world_size": 1}, id="started"), *events])
    fold.judge()
    return fold


def said(findings: Iterable[Finding]) -> str:
    """Return findings as text, to compare them byte for byte."""
    return dumps([finding.to_json() for finding in findings])
