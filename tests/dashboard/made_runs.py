"""Runs made up by hand, in a home in memory: every state that the page can be in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from otoscope.store import (
    Column,
    Event,
    Evidence,
    Finding,
    Frame,
    Judgement,
    MemoryHome,
    Recommendation,
    Schema,
)

RUN = "resnet-cifar-01"
HOSTILE = "<img src=x onerror=alert(1)> \"&'"

LAYERS = ("stem", "stage1.conv1", "stage1.conv2", "stage2.conv1", "stage2.conv2", "head")
TRAIN = Schema(
    "train",
    tuple(
        Column.of(name, ranks="mean")
        for name in ("loss", "grad_sq", "lr/0.0", "samples", "step_seconds", "non_finite")
    ),
)
GRADIENTS = Schema(
    "gradients",
    tuple(
        Column.of(quantity, layer=layer, ranks="same")
        for layer in LAYERS
        for quantity in ("grad_sq", "weight_sq", "update_sq", "numel")
    ),
)
ACTIVATIONS = Schema(
    "activations",
    tuple(
        Column.of(quantity, layer=layer, ranks="same")
        for layer in LAYERS
        for quantity in ("saturated", "dead", "units", "numel", "sum_sq")
    ),
)
VALIDATION = Schema("validation", (Column.of("val_loss"),))


@dataclass
class MadeRun:
    """Writes one run step by step; the numbers are drawn from a seed."""

    home: MemoryHome
    run: str
    name: str = "resnet-cifar"
    layers: Sequence[str] = LAYERS
    faulty_from: int | None = None
    max_steps: int = 1200
    now: float | None = None

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.time = (self.now or time.time()) - 60
        self.home.begin_attempt(self.run)
        self.home.write_meta(
            self.run,
            {
                "name": self.name,
                "model": "ResNet",
                "max_steps": self.max_steps,
                "batch_size": 64,
                "started": self.time,
                "overhead": {"share": 0.014, "seconds": 1.2, "probes": {}},
                "heartbeat": {"0": self.time},
            },
        )
        for schema in (TRAIN, GRADIENTS, ACTIVATIONS, VALIDATION):
            self.home.add_schema(self.run, schema)
        self.step = 0

    def frame(self, schema: Schema, values: Sequence[float] | np.ndarray) -> Frame:
        vector = np.asarray(values, dtype=np.float32)
        return Frame(schema.family, 0, 1, self.step, self.time, schema.hash, vector)

    def train(self, steps: int) -> MadeRun:
        """Write so many further steps, and a heartbeat at the end of them."""
        frames, loss = [], float("nan")
        for _ in range(steps):
            self.step += 1
            self.time += 0.05
            bad = self.faulty_from is not None and self.step > self.faulty_from
            grown = 1 + (self.step - self.faulty_from) / 60 if bad and self.faulty_from else 1.0
            loss = (2.3 * np.exp(-self.step / 250) + 0.35) * grown**0.8
            loss *= 1 + 0.07 * grown * self.random.normal()
            norms = grown * np.exp(0.2 * self.random.normal(size=len(LAYERS)))
            frames.append(self.frame(TRAIN, [loss, float((norms**2).sum()), 0.1, 64, 0.05, 0]))
            if self.step % 5 == 0:
                rows = [[n**2 * 1e-3, 100.0, n**2 * 1e-4, 5e3] for n in norms]
                frames.append(self.frame(GRADIENTS, np.ravel(rows)))
                dead = [3 + (90 if bad and i == 3 else 0) for i in range(len(LAYERS))]
                rows = [[50.0, d, 128, 5e3, 5e3] for d in dead]
                frames.append(self.frame(ACTIVATIONS, np.ravel(rows)))
            if self.step % 100 == 0:
                frames.append(self.frame(VALIDATION, [loss * 1.1]))
        self.home.append(
            self.run,
            frames,
            fields={
                "progress": {"step": self.step, "loss": float(loss), "loss_best": 0.36},
                "heartbeat": {"0": self.now or time.time()},
            },
        )
        return self

    def event(self, kind: str, **body: object) -> MadeRun:
        self.home.add_event(self.run, Event(kind, step=self.step, t=self.time, body=body))
        return self

    def silent_for(self, seconds: float) -> MadeRun:
        """Let the last sample be so old."""
        self.home.write_meta(
            self.run, {"heartbeat": {"0": (self.now or time.time()) - seconds}, "started": 1.0}
        )
        return self

    def end(self, how: str, reason: str = "") -> MadeRun:
        ended = {"attempt": 1, "how": how, "t": self.time, "reason": reason}
        self.home.write_meta(self.run, {"ended": ended})
        return self

    def judged(self, *findings: Finding) -> MadeRun:
        """Commit a judgement as the daemon does."""
        judgement = Judgement(
            cursor=str(self.step),
            state={
                "judged": ["exploding_gradients", "non_finite", "plateau"],
                "not_judged": {"lr_too_high": "curvature: first sample near step 2,000"},
                "place": {"step": self.step},
            },
            findings=list(findings),
            obstacles={},
        )
        before = self.home.judgement(self.run).cursor
        assert self.home.acquire(self.run, "made", 1000)
        assert self.home.commit(self.run, "made", 1000, before, judgement)
        self.home.release(self.run, "made")
        return self


def too_high(run: str, step: int = 600, last: int = 900) -> Finding:
    """Return a finding with everything that a card can show."""
    return Finding(
        id=f"lr_too_high:run:1:{step}",
        run=run,
        attempt=1,
        rule="lr_too_high",
        severity="critical",
        state="firing",
        scope="run",
        first_step=step,
        last_step=last,
        title="Learning rate too high: steps overshoot and the loss climbs",
        why="Along the steepest direction each step lands farther out than it began.",
        because=[
            Evidence("Loss 0.36 (best, step 590) → 0.83 (median of 50; 3 of 3 checks)."),
            Evidence("Sharpness 53 (49–58 over 4 batches); plain SGD at 0.10 is stable up to 20."),
        ],
        recommendation=Recommendation(
            "lr",
            current=0.1,
            proposed=0.034,
            range=[0.031, 0.037],
            basis="derived",
            formula="0.9 · lr / edge_ratio",
            snippet="",
            effect="",
            verify="Loss under 0.40 within 200 steps. If not, the learning rate was not the cause.",
            also=[{"parameter": "rollback", "proposed": {"step": 590, "path": "step=590.ckpt"}}],
        ),
        may_be_normal="A short bump with a falling trend; the end of a warm-up.",
        not_measured=["noise scale"],
        caused=[f"dead_units:layer:stage2.conv1:1:{step}"],
    )


def dead(run: str, step: int = 600) -> Finding:
    """Return a finding that the other one caused."""
    return Finding(
        id=f"dead_units:layer:stage2.conv1:1:{step}",
        run=run,
        attempt=1,
        rule="dead_units",
        severity="warning",
        state="firing",
        scope="layer:stage2.conv1",
        first_step=step,
        last_step=900,
        title="Dead units: 93 of 128 in stage2.conv1 never fire",
        layers=["stage2.conv1"],
    )


def live_run(home: MemoryHome, name: str = "resnet-cifar") -> MadeRun:
    run = MadeRun(home, RUN, name=name, faulty_from=600).train(400)
    run.event("lr", optimizer=0, group=0, **{"from": 0.05, "to": 0.1, "phase": "warm restart"})
    return run.train(500).judged(too_high(RUN), dead(RUN))
