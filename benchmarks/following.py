"""What following a step costs that samples nothing: hooks, row, budget and the sender's share.

    python -m benchmarks.following [--steps 3000] [--only mlp] [--repeats 3]

The recorder has no probes, and is switched on and off every ten steps of one training; the difference
between the blocks is what a step costs more, free of what the machine does in the meantime (the `cold`
column: between matrix products the caches hold the training's data, not ours). `warm` is CPU time of the
same calls in a loop around a net of two numbers, the best of some turns: it moves least from run to run.
The second row of a net is Lightning (`benchmarks.steps`), whose calling of hooks is in it, and printed beside
as it is thought to be.
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
from otoscope.callbacks import Otoscope, attach
from torch.nn import functional

from .overhead import NETS, Net, run
from .steps import BLOCK, LEAST, summed_up
from .steps import measure as blocks_of

RESULT = Path(__file__).parent / "results" / "following.json"
TURNS, STEPS_A_TURN = 30, 256
WARM = 10 * BLOCK
"""Steps of a plain loop before the first block that counts."""


def attached(model: torch.nn.Module, optimizer: Any, spool: str) -> Any:
    """Return a recorder without probes."""
    return attach(model, optimizer, probes=[], spool=spool, verdict=False, strict=True)


def warm_us(spool: str) -> float:
    """Return the CPU microseconds of a step's calls in a loop, all of them together."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    loss, best = torch.tensor(1.0), float("inf")
    recorder = attached(model, optimizer, spool)
    for _ in range(TURNS):
        begun = time.thread_time()
        for _ in range(STEPS_A_TURN):
            recorder._on_stepped(optimizer, (), {})
            recorder.step(loss, 1)
        best = min(best, (time.thread_time() - begun) / STEPS_A_TURN)
    recorder.finish()
    return 1e6 * best


def plain_loop(net: Net, steps: int, spool: str) -> dict[str, float]:
    """Return a plain step's microseconds, and what following it costs more."""
    torch.manual_seed(0)
    model = net.make()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    recorder = attached(model, optimizer, spool)
    hook = recorder._handles.pop()
    hook.remove()
    on, was_on, seconds, spent = False, False, {True: [], False: []}, []
    shape = (net.batch, *net.shape)
    x = torch.randint(0, net.words, shape) if net.words else torch.randn(shape)
    y = torch.randint(0, 10, (net.batch,))
    begun = time.perf_counter()
    for step in range(steps):
        if step % BLOCK == 0:
            now = time.perf_counter()
            if step > WARM:
                seconds[on].append(now - begun)
                spent.append(recorder._budget.spent)
            was_on, on = on, not on
            if on:
                hook = optimizer.register_step_post_hook(recorder._on_stepped)
                recorder.restart_clock()
            elif was_on:
                hook.remove()
            begun = time.perf_counter()
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if on:
            recorder.step(loss, net.batch)
    recorder.finish()
    return compared(seconds[True], seconds[False], spent[-1] - spent[0])


def compared(on: list[float], off: list[float], spent: float) -> dict[str, float]:
    """Return the figures of a training whose blocks took so long with us and without."""
    more = sorted((a - b) / BLOCK for a, b in zip(on, off, strict=False))
    trim = len(more) // 10
    return {
        "step_us": 1e6 * statistics.median(off) / BLOCK,
        "cold_us": 1e6 * statistics.mean(more[trim : len(more) - trim]),
        "says_us": 1e6 * spent / (len(on) * BLOCK),
    }


class Asked(Otoscope):
    """Tells what it thinks that Lightning takes to call it."""

    dispatch = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        assert self.recorder is not None
        self.dispatch = self.recorder.dispatch


def lightning(net: Net, steps: int, spool: str) -> dict[str, float]:
    """Return the same figures of a Lightning Trainer, and what it is thought that calling hooks takes it."""
    row = summed_up(blocks_of(net, steps, probes=[]))
    asked = Asked(probes=[], spool=spool, verdict=False)
    run(net, BLOCK, asked)
    figures = {"step_us": row["step_us"], "cold_us": row["costs_us"], "says_us": row["says_us"]}
    return {**figures, "dispatch_us": 1e6 * asked.dispatch}


def measure(net: Net, steps: int) -> dict[str, dict[str, float]]:
    """Return both kinds of training of a net."""
    found: dict[str, dict[str, float]] = {}
    for name, kind in (("plain loop", plain_loop), ("Lightning", lightning)):
        with tempfile.TemporaryDirectory() as spool:
            gc.disable()
            try:
                found[name] = kind(net, steps, spool)
            finally:
                gc.enable()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--only", choices=[net.name for net in NETS])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(argv)
    if options.steps < LEAST or options.repeats < 1:
        parser.error(f"--steps must be at least {LEAST}, and --repeats at least 1")
    for name in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("OTOSCOPE_HOME", home)
        report["warm_us"] = warm_us(home)
        print(f"following: {report['warm_us']:.1f} µs a step, warm, of a plain loop")
        for net in NETS:
            if options.only not in (None, net.name):
                continue
            steps = max(options.steps // (8 if net.name == "transformer" else 1), LEAST)
            turns = [measure(net, steps) for _ in range(options.repeats)]
            report[net.name] = {}
            for kind, first in turns[0].items():
                row = {key: statistics.median(t[kind][key] for t in turns) for key in first}
                report[net.name][kind] = row
                print(
                    f"  {net.name:<12}{kind:<11} step {row['step_us']:8.0f} µs   cold "
                    f"{row['cold_us']:6.1f} µs   says {row['says_us']:6.1f} µs   calling hooks "
                    f"{row.get('dispatch_us', 0.0):5.1f} µs",
                    flush=True,
                )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
