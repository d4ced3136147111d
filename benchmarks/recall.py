"""How many planted faults Otoscope finds, how soon, and whether what it proposes mends them.

    python -m benchmarks.recall [--seeds 2] [--budgets 0.02 0.2] [--only NAME] [--steps 600]

Each fault trains a small net through `attach`, records to disk, and is judged with all rules as
they stand. The first finding's recommendation is then applied, unedited, to a fresh run from the
same seed, and compared with doing nothing, with a third of the learning rate, and with the healthy
twin: 1 closes the whole gap in the loss over all data. The thresholds were tuned on the first set of
nets and data; the held-out set was made before and looked at after.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from otoscope.diagnostics import judge
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.reader import Reader
from otoscope.store import Store, connect
from otoscope.store.schemas import plain
from torch import nn
from torch.nn import functional

from ._cases import (
    Case,
    Training,
    adam,
    applied,
    last_layer_only,
    sequence_loss,
    sgd,
    train,
)
from ._data import (
    Batch,
    cancer,
    diabetes,
    digits,
    friedman,
    text,
    wine,
)
from ._nets import (
    Gated,
    Recurrent,
    Transformer,
    biased,
    convnet,
    drawn,
    mlp,
    residual,
)

RESULT = Path(__file__).parent / "results" / "recall.json"
MENDED = 0.8
"""Share of the gap to the healthy twin that counts as mended."""


@dataclass(frozen=True)
class Fault:
    """A planted fault: the rules that name its cause, and its healthy twin."""

    case: Case
    rules: tuple[str, ...]
    healthy: Case | None = None
    onset: int = 1


def too_high(
    name: str, case: Case, rate: Callable[[nn.Module], torch.optim.Optimizer], *more: str
) -> Fault:
    """Return a healthy case with a learning rate that is too high from the first step on."""
    return Fault(replace(case, name=name, optimizer=rate), ("lr_too_high", *more), case)


def every(scale: float, period: int = 16, start: int = 150) -> Callable[[int, Batch], Batch]:
    """Return what multiplies the inputs of one batch in `period`, from a step on."""

    def spoil(step: int, batch: Batch) -> Batch:
        return (batch[0] * scale, batch[1]) if step >= start and step % period == 0 else batch

    return spoil


def jump(times: float, start: int = 300) -> Callable[[int, int], float]:
    return lambda step, steps: times if step >= start else 1.0


MLP = Case("mlp", lambda: mlp(64, 10), digits, sgd(0.1))
MOMENTUM = replace(MLP, optimizer=sgd(0.05, 0.9))
ADAM = replace(MLP, optimizer=adam(1e-3))
TANH = Case("tanh", lambda: mlp(64, 10, act=nn.Tanh), digits, sgd(0.1))
CONV = Case("conv", convnet, digits, sgd(0.1))
CONV_ADAM = replace(CONV, optimizer=adam(1e-3))
LSTM = Case("lstm", Recurrent, digits, adam(3e-3))
WORDS = Case("words", Transformer, text, adam(1e-3), batch=16, loss=sequence_loss)
DIABETES = Case("diabetes", lambda: mlp(10, 1), diabetes, sgd(0.05), loss=functional.mse_loss)
DEEP = Case("deep", lambda: mlp(64, 10, depth=8, act=nn.ReLU), digits, adam(1e-3))
WIDE = Case("wide", lambda: drawn(mlp(64, 10, width=128, depth=6)), digits, sgd(0.05))

TUNED = (
    too_high("mlp-sgd-1.5", MLP, sgd(1.5)),
    too_high("mlp-sgd-5", MLP, sgd(5.0)),
    too_high("mlp-momentum-0.5", MOMENTUM, sgd(0.5, 0.9)),
    too_high("mlp-adam-0.1", ADAM, adam(0.1), "dead_units"),
    too_high("conv-sgd-2", CONV, sgd(2.0)),
    too_high("tanh-sgd-3", TANH, sgd(3.0)),
    too_high("lstm-adam-0.3", LSTM, adam(0.3)),
    too_high("words-adam-0.3", WORDS, adam(0.3)),
    too_high("diabetes-sgd-1", DIABETES, sgd(1.0)),
    too_high("diabetes-sgd-20", DIABETES, sgd(20.0), "non_finite"),
    Fault(
        replace(MLP, name="mlp-jump-20", schedule=jump(20)),
        ("lr_too_high", "non_finite"),
        onset=300,
    ),
    Fault(
        replace(MLP, name="sigmoid-8", net=lambda: mlp(64, 10, depth=8, act=nn.Sigmoid)),
        ("vanishing_gradients",),
        replace(MLP, net=lambda: drawn(mlp(64, 10, depth=8))),
    ),
    Fault(replace(MLP, name="mlp-sgd-1e-5", optimizer=sgd(1e-5)), ("lr_too_low",), MLP),
    Fault(
        replace(DIABETES, name="diabetes-sgd-1e-6", optimizer=sgd(1e-6)), ("lr_too_low",), DIABETES
    ),
    Fault(
        replace(MLP, name="mlp-left-out", optimizer=last_layer_only(sgd(0.001))),
        ("plateau",),
    ),
    Fault(replace(MLP, name="mlp-bias-2", net=lambda: biased(mlp(64, 10), -2.0)), ("dead_units",), MLP),
    Fault(
        replace(CONV_ADAM, name="conv-bias-2", net=lambda: biased(convnet(), -2.0)),
        ("dead_units",),
        CONV_ADAM,
    ),
    Fault(
        replace(WIDE, name="init-0.5", net=lambda: drawn(mlp(64, 10, width=128, depth=6), 0.5)),
        ("non_finite", "lr_too_high", "exploding_gradients"),
        WIDE,
    ),
    Fault(
        replace(MLP, name="mlp-bursts", spoil=every(100.0)),
        ("exploding_gradients",),
        MLP,
        onset=150,
    ),
)  # fmt: skip

CANCER = Case("cancer", lambda: mlp(30, 2), cancer, sgd(0.1))
CANCER_ADAM = Case("cancer-adam", lambda: mlp(30, 2, width=96, depth=2), cancer, adam(1e-3))
WINE = Case("wine", lambda: mlp(13, 3, width=48, act=nn.Tanh), wine, sgd(0.05, 0.9), batch=32)
FRIEDMAN = Case(
    "friedman", lambda: mlp(10, 1, width=96), friedman, sgd(0.05), loss=functional.mse_loss
)
FRIEDMAN_ADAM = replace(FRIEDMAN, optimizer=adam(1e-3))
GATED = Case("gated", Gated, text, adam(2e-3), batch=16, loss=sequence_loss)
RESIDUAL = Case("residual", residual, digits, sgd(0.02, 0.9))

HELD_OUT = (
    too_high("cancer-sgd-8", CANCER, sgd(8.0), "dead_units"),
    too_high("cancer-adam-0.5", CANCER_ADAM, adam(0.5), "dead_units"),
    too_high("wine-momentum-2", WINE, sgd(2.0, 0.9)),
    too_high("friedman-sgd-0.8", FRIEDMAN, sgd(0.8), "non_finite", "dead_units"),
    too_high("friedman-adam-0.2", FRIEDMAN_ADAM, adam(0.2), "dead_units"),
    too_high("gated-adam-0.2", GATED, adam(0.2)),
    too_high("residual-momentum-1", RESIDUAL, sgd(1.0, 0.9), "non_finite", "dead_units"),
    Fault(
        replace(WINE, name="wine-sigmoid-7", net=lambda: mlp(13, 3, width=48, depth=7, act=nn.Sigmoid)),
        ("vanishing_gradients",),
        replace(WINE, net=lambda: drawn(mlp(13, 3, width=48, depth=7))),
    ),
    Fault(replace(FRIEDMAN, name="friedman-sgd-2e-6", optimizer=sgd(2e-6)), ("lr_too_low",), FRIEDMAN),
    Fault(
        replace(CANCER_ADAM, name="cancer-bias-4", net=lambda: biased(mlp(30, 2, width=96, depth=2), -4.0)),
        ("dead_units",),
        CANCER_ADAM,
    ),
    Fault(
        replace(FRIEDMAN, name="friedman-init-1", net=lambda: drawn(mlp(10, 1, width=96, depth=6), 1.0)),
        ("non_finite", "lr_too_high", "exploding_gradients"),
        replace(FRIEDMAN, net=lambda: drawn(mlp(10, 1, width=96, depth=6)), optimizer=sgd(0.01)),
    ),
    Fault(
        replace(WINE, name="wine-bursts", spoil=every(300.0, 12, 200)),
        ("exploding_gradients",),
        WINE,
        onset=200,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Ends:
    """The losses over all data at the end: of the fault, its healthy twin, and a third of the rate."""

    fault: Training
    healthy: Training | None
    third: Training | None

    def closed(self, mended: float) -> float:
        """Return the share of the gap that a loss closes; none is worse than the twin's first one."""
        if self.healthy is None:
            return math.nan
        untrained = self.healthy.first
        worst = worth(self.fault.last, untrained)
        gap = worst - self.healthy.last
        return (worst - worth(mended, untrained)) / gap if gap > 0 else math.nan


def worth(last: float, untrained: float) -> float:
    return min(last, untrained) if math.isfinite(last) else untrained


def watched(store: Store, run: str) -> dict[str, int]:
    """Return the step at which each rule first fired, as one who watched would have seen it."""
    fold = Fold(run, store.meta(run), store.home.schemas(run))
    reader = Reader(store.home, fold)
    fired: dict[str, int] = {}
    while reader.pull():
        while fold.judge(most=1):
            for finding in fold.findings():
                fired.setdefault(finding.rule, fold.place.step)
    return fired


def with_rate(case: Case, times: float) -> Case:
    """Return a case with another learning rate."""
    net = case.net()
    rate = case.optimizer(net).param_groups[0]["lr"] if case.lr is None else case.lr
    return replace(case, lr=rate * times)


def tried(
    fault: Fault, seed: int, steps: int, budget: float, ends: dict[Any, Ends]
) -> dict[str, Any]:
    """Return what one planted fault came to: what was found, when, and what the advice mended."""
    with tempfile.TemporaryDirectory() as name:
        broken = train(fault.case, seed, steps, budget=budget, folder=Path(name))
        store = connect(Path(name) / broken.run)
        verdict = judge(store, broken.run)
        fired = watched(store, broken.run)
    key = (fault.case.name, seed)
    if key not in ends:
        third = fault.healthy and train(with_rate(fault.case, 0.3), seed, steps)
        ends[key] = Ends(broken, fault.healthy and train(fault.healthy, seed, steps), third)
    hidden = {item for finding in verdict["findings"] for item in finding["caused"]}
    found = [item for item in verdict["findings"] if item["severity"] != "info"]
    roots = [item for item in found if item["id"] not in hidden]
    row: dict[str, Any] = {
        "fault": fault.case.name,
        "seed": seed,
        "budget": budget,
        "found": any(item["rule"] in fault.rules for item in found),
        "first": bool(roots) and roots[0]["rule"] in fault.rules,
        "rules": [item["rule"] for item in roots],
        "not_judged": verdict["not_judged"],
        "closed": ends[key].closed(broken.last),  # where nothing is proposed, nothing is done
        "third_closed": math.nan,
    }
    named = [item for item in found if item["rule"] in fault.rules]
    if named:
        row["delay"] = max(0, min(fired[item["rule"]] for item in named) - fault.onset)
    if roots and roots[0]["recommendation"]:
        advice = roots[0]["recommendation"]
        row |= {key: advice[key] for key in ("parameter", "proposed", "basis")}
        if fault.healthy is not None:
            mended = train(applied(fault.case, advice), seed, steps)
            row["closed"] = ends[key].closed(mended.last)
    third = ends[key].third
    if third is not None:
        row["third_closed"] = ends[key].closed(third.last)
    return row


def figures(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the figures over some rows."""
    delays = [row["delay"] for row in rows if "delay" in row]
    closed = np.array([row["closed"] for row in rows], dtype=float)
    third = np.array([row["third_closed"] for row in rows], dtype=float)
    measured = np.isfinite(closed)
    return {
        "runs": len(rows),
        "recall": float(np.mean([row["found"] for row in rows])),
        "right_cause_first": float(np.mean([row["first"] for row in rows])),
        "median_delay_steps": float(np.median(delays)) if delays else math.nan,
        "gap_closed_median": float(np.median(closed[measured])) if measured.any() else math.nan,
        "mended": float(np.mean(closed[measured] >= MENDED)) if measured.any() else math.nan,
        "third_gap_closed_median": float(np.median(third[measured]))
        if measured.any()
        else math.nan,
        "third_mended": float(np.mean(third[measured] >= MENDED)) if measured.any() else math.nan,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.02, 0.2])
    parser.add_argument("--only", default="")
    parser.add_argument("--set", choices=("tuned", "held-out", "both"), default="both")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.getLogger("otoscope").setLevel(logging.ERROR)
    begun = time.time()
    told: dict[str, Any] = {}
    for name, faults in (("tuned", TUNED), ("held-out", HELD_OUT)):
        if options.set not in (name, "both"):
            continue
        ends: dict[Any, Ends] = {}
        for budget in options.budgets:
            rows = []
            for fault in (fault for fault in faults if options.only in fault.case.name):
                for seed in range(options.seeds):
                    rows.append(tried(fault, seed, options.steps, budget, ends))
                    print(line(rows[-1]), flush=True)
            if not rows:
                continue
            shared = {"steps": options.steps, "seeds": options.seeds, **figures(rows)}
            told[f"{name}, budget {budget:g}"] = {**shared, "each": rows}
    print("recall: planted faults, and what their recommendations mend")
    for name, body in told.items():
        print(f"  {name}")
        for key, value in body.items():
            if key != "each":
                print(f"    {key:<26} {value:10.3f}")
    RESULT.parent.mkdir(exist_ok=True)
    before = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(plain({**before, **told}), indent=1) + "\n")
    print(f"  ({time.time() - begun:.0f} s)")
    return 0


def line(row: dict[str, Any]) -> str:
    """Return a row as it is printed."""
    mark = "    " if row["first"] else "MISS"
    said = f"{row.get('parameter', '-')} = {row.get('proposed')} ({row.get('basis')})"
    return (
        f"  {mark} {row['fault']:<20} seed {row['seed']} budget {row['budget']:<5} "
        f"{', '.join(row['rules']) or 'nothing'}; {said}; after {row.get('delay', '-')} steps; "
        f"closed {row['closed']:.2f}, x0.3 {row['third_closed']:.2f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
