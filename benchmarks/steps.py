"""What a step costs more with Otoscope, and what Otoscope says that it costs.

    python -m benchmarks.steps [--steps 3000] [--budget 0.02] [--only mlp] [--repeats 3]

Within one run the callback is switched on and off every eight steps; the difference between the
blocks is what a step costs more, free of what a machine does in the meantime. It leaves out what
Lightning spends on calling hooks, which is the same in both, and which is printed as estimated.
"Says" is our own figure for the steps that were on, without that estimate: a ratio of 1 is honest,
below 1 is too modest a figure.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import Otoscope
from otoscope.callbacks.probes.probe import AFTERMATH

from .overhead import NETS, Net, run

BLOCK = 8
"""Steps between two switches."""
WARM = 96
"""Steps before the first block that counts: a probe's first samples are its dearest."""

HOOKS = (
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
RESULT = Path(__file__).parent / "results" / "steps.json"


class Switched(Otoscope):
    """Otoscope in every second block of steps."""

    def begin_measuring(self) -> None:
        self.blocks: list[tuple[bool, float]] = []
        self.on = True
        self.seen = 0
        self.begun = 0.0
        self.spent: list[tuple[bool, float]] = []
        self.dispatch = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        assert self.recorder is not None
        self.dispatch = self.recorder.dispatch
        stepped = self.recorder._on_stepped
        for handle in self.recorder._handles:
            handle.remove()
        for optimizer in trainer.optimizers:
            optimizer.register_step_post_hook(lambda *told: self.on and stepped(*told))

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.seen += 1
        recorder = self.recorder
        assert recorder is not None
        if self.seen % BLOCK == 1:
            now = time.perf_counter()
            if self.seen > WARM:
                self.blocks.append((self.on, now - self.begun))
                self.spent.append((self.on, recorder._budget.spent))
            self.on = not self.on
            if self.on:
                recorder.restart_clock()
            self.begun = time.perf_counter()
        if self.on:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


def _switched(name: str) -> Any:
    def hook(self: Switched, *told: Any) -> Any:
        return getattr(super(Switched, self), name)(*told) if self.on else None

    return hook


for _name in HOOKS:
    setattr(Switched, _name, _switched(_name))


def measure(net: Net, steps: int, budget: float) -> dict[str, float]:
    """Return a step's seconds without us, what it costs more with us, and what we say of it."""
    with tempfile.TemporaryDirectory() as folder:
        callback = Switched(budget=budget, spool=folder, verdict=False)
        callback.begin_measuring()
        gc.disable()
        try:
            run(net, steps, callback)
        finally:
            gc.enable()
    on = [seconds for is_on, seconds in callback.blocks if is_on]
    off = [seconds for is_on, seconds in callback.blocks if not is_on]
    more = sorted((a - b) / BLOCK for a, b in zip(on, off, strict=False))
    trim = len(more) // 10
    said = (callback.spent[-1][1] - callback.spent[0][1]) / (len(on) * BLOCK)
    return {
        "step_us": 1e6 * statistics.median(off) / BLOCK,
        "more_us": 1e6 * statistics.mean(more[trim:-trim]),
        "says_us": 1e6 * (said - AFTERMATH * callback.dispatch),
        "dispatch_us": 1e6 * callback.dispatch,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--only", choices=[net.name for net in NETS])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer steps, once")
    options = parser.parse_args(argv)
    steps, repeats = (800, 1) if options.quick else (options.steps, options.repeats)
    if steps < 4 * WARM or repeats < 1:
        parser.error(f"--steps must be at least {4 * WARM}, and --repeats at least 1")
    for name in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    print(f"steps: with and without Otoscope in turns of {BLOCK}, budget {options.budget:g}")
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("OTOSCOPE_HOME", home)
        for net in NETS:
            if options.only in (None, net.name):
                count = steps // 8 if net.name == "transformer" else steps
                rows = [measure(net, max(count, 4 * WARM), options.budget) for _ in range(repeats)]
                row = {key: statistics.median(item[key] for item in rows) for key in rows[0]}
                row["says_to_costs"] = row["says_us"] / row["more_us"]
                found[net.name] = row
                print(
                    f"  {net.name:<12} step {row['step_us']:8.0f} µs   costs {row['more_us']:6.1f} µs"
                    f"   says {row['says_us']:6.1f} µs   ratio {row['says_to_costs']:.2f}"
                    f"   calling hooks {row['dispatch_us']:.1f} µs",
                    flush=True,
                )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"budget": options.budget, "nets": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
