"""What a step costs more with Otoscope, and what Otoscope says that it costs.

    python -m benchmarks.steps [--steps 4000] [--budget 0.02] [--probes all] [--only mlp] [--repeats 3]

Within one run of a Lightning Trainer the callback is there for ten steps, and gone for twice ten,
in an order drawn anew each time: its hooks, what Lightning spends on calling them, the optimizer's
hook, samples and all. What a machine does in the meantime it does to all three. A ratio is that of
steps with it to those without; A/A that of the two without. What the background thread does meanwhile is in it only as far
as it takes time from the training.

"Whole run": of one that has as many steps as Otoscope was there for, start and end (`benchmarks/ends.py`)
and the first samples, the dearest, included. What is not in a run's own books is taken from what was
measured: of the ends once, of the steps with each.

"Says" is Otoscope's own figure for the steps that it was there. The difference between that and
what a block took more is what is averaged, without the highest and lowest tenth: a sample does not
stand out of it, a time slice that another process took does.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from otoscope.callbacks import Otoscope
from otoscope.callbacks.dispatch import HOOKS_OF_A_STEP
from otoscope.callbacks.sampling import TENDED

from .ends import Ends, ends
from .overhead import NETS, Net, run

BLOCK = TENDED
"""Steps between two switches: so many are entered into its books together."""
WARM = 9
"""Blocks before the first that count: a probe's first samples are its dearest."""
LEAST = 3 * BLOCK * (WARM + 4)
"""Steps of the shortest run."""
TRIM = 0.1
ENDS = 20
"""Runs of one step with it."""
DRAWS = 2000
RESULT = Path(__file__).parent / "results" / "steps.json"


@dataclass(frozen=True)
class Blocks:
    """Seconds of three blocks of steps, [times around], and what Otoscope said of the one with it."""

    with_it: np.ndarray
    without: np.ndarray
    without_again: np.ndarray
    said: np.ndarray
    whole: np.ndarray
    """[runs, 2]: seconds that Otoscope says of a run in all, and the steps that it was there for."""


class Switch(lightning.Callback):
    """Takes a callback away for some steps, and puts it back; called before it."""

    def __init__(self, callback: Otoscope) -> None:
        self._callback = callback
        self._kept: dict[str, Any] = {}
        self._there = True
        self._seen, self._begun, self._said = 0, 0.0, 0.0
        self._order, self._chance = [0, 1, 2], random.Random(0)
        self._rows: list[list[float]] = []
        self._ended = 0.0

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._seen % BLOCK == 0:
            now = time.perf_counter()
            _, place = divmod(self._seen // BLOCK, len(self._order))
            self._enter(now, place)
            if place == 0:
                self._chance.shuffle(self._order)
            self._put(self._order[place] == 0, trainer)
            self._said = self._spent()
            self._begun = time.perf_counter()
        self._seen += 1

    def _enter(self, now: float, place: int) -> None:
        """Keep what the block that ends took; `place`: that of the one that begins."""
        if not self._seen:
            return
        if place == 1 or not self._rows:
            self._rows.append([0.0] * 4)
        role = self._order[place - 1]
        self._rows[-1][role] = now - self._begun
        if role == 0:
            self._rows[-1][3] = self._spent() - self._said

    def _spent(self) -> float:
        recorder = self._callback.recorder
        assert recorder is not None
        return recorder._budget.spent

    def _put(self, there: bool, trainer: Any) -> None:
        """Put the callback there, or take it away."""
        if there == self._there:
            return
        own, recorder = self._callback.__dict__, self._callback.recorder
        assert recorder is not None
        self._there = there
        if there:
            for name in HOOKS_OF_A_STEP:
                own.pop(name, None)
            own |= self._kept
            recorder._handles += [
                optimizer.register_step_post_hook(recorder._on_stepped)
                for optimizer in trainer.optimizers
            ]
            recorder.restart_clock()
            self._callback._ended = time.perf_counter()
            return
        self._kept = {name: own[name] for name in HOOKS_OF_A_STEP if name in own}
        own |= dict.fromkeys(HOOKS_OF_A_STEP)
        for handle in recorder._handles:
            handle.remove()
        recorder._handles.clear()

    def blocks(self) -> Blocks:
        """Return what was measured, without the first times around and the last."""
        rows = np.array(self._rows)
        whole = [self._ended, BLOCK * int(np.count_nonzero(rows[:, 0]))]
        return Blocks(*rows[WARM:-1].T, whole=np.array([whole]))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._ended = self._spent()


def trimmed(values: np.ndarray) -> float:
    """Return the mean of values without the highest and the lowest tenth."""
    cut = int(TRIM * len(values))
    return float(np.sort(values)[cut : len(values) - cut].mean())


def summed_up(found: Blocks) -> dict[str, Any]:
    """Return what a step takes and costs, in µs, with 90 % bootstrap intervals of the ratios."""
    plain = (found.without + found.without_again) / 2
    beyond = found.with_it - plain - found.said
    apart = found.without - found.without_again
    step = float(np.median(plain))
    chance = np.random.default_rng(0)

    def costs(rows: np.ndarray) -> float:
        return float(found.said[rows].mean()) + trimmed(beyond[rows])

    whole = np.arange(len(plain))
    drawn = [chance.choice(whole, len(whole)) for _ in range(DRAWS)]
    more = np.quantile([costs(rows) for rows in drawn], [0.05, 0.95])
    same = np.quantile([trimmed(apart[rows]) for rows in drawn], [0.05, 0.95])
    said = float(found.said.mean())
    return {
        "step_us": 1e6 * step / BLOCK,
        "costs_us": 1e6 * costs(whole) / BLOCK,
        "says_us": 1e6 * said / BLOCK,
        "ratio": 1 + costs(whole) / step,
        "ratio_90": (1 + more / step).tolist(),
        "a_a": 1 + trimmed(apart) / step,
        "a_a_90": (1 + same / step).tolist(),
        "says_to_costs": said / costs(whole),
        "blocks": len(whole),
    }


def of_a_run(found: Blocks, both: Ends) -> dict[str, Any]:
    """Return the ratio of a whole run with its 90 % bootstrap interval, and what start and end cost, in ms."""
    plain = (found.without + found.without_again) / 2
    beyond = found.with_it - plain - found.said
    spent, steps = (float(value) for value in found.whole.mean(0))
    blocks = steps / BLOCK
    chance = np.random.default_rng(0)

    def ratio(rows: np.ndarray, runs: np.ndarray) -> float:
        unsaid = float(np.median(both.more[runs])) - both.says + blocks * trimmed(beyond[rows])
        return 1 + (spent + unsaid) / (blocks * float(np.median(plain)))

    rows, runs = np.arange(len(plain)), np.arange(len(both.more))
    drawn = [
        ratio(chance.choice(rows, len(rows)), chance.choice(runs, len(runs))) for _ in range(DRAWS)
    ]
    return {
        "run_steps": steps,
        "run_ratio": ratio(rows, runs),
        "run_ratio_90": np.quantile(drawn, [0.05, 0.95]).tolist(),
        "ends_ms": 1e3 * both.costs,
        "ends_say_ms": 1e3 * both.says,
    }


def measure(net: Net, steps: int, **settings: Any) -> Blocks:
    """Train once with a callback of these settings, and return what the blocks took."""
    with tempfile.TemporaryDirectory() as folder:
        callback = Otoscope(**settings, spool=folder, verdict=False)
        switch = Switch(callback)
        run(net, steps, callback, before=[switch], epoch=steps)
        return switch.blocks()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--steps", type=int, default=4000, help="of a run; an eighth of the transformer's"
    )
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--probes", choices=["default", "all"], default="default")
    parser.add_argument("--only", choices=[net.name for net in NETS])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="fewer steps, once")
    options = parser.parse_args(argv)
    steps, repeats = (800, 1) if options.quick else (options.steps, options.repeats)
    if steps < LEAST or repeats < 1:
        parser.error(f"--steps must be at least {LEAST}, and --repeats at least 1")
    for name in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    settings = {"budget": options.budget, "probes": options.probes}
    print(
        f"steps: with and without Otoscope in turns of {BLOCK}, budget {options.budget:g}, "
        f"{options.probes} probes"
    )
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("OTOSCOPE_HOME", home)
        for net in NETS:
            if options.only not in (None, net.name):
                continue
            count = max(steps // 8 if net.name == "transformer" else steps, LEAST)
            parts = [measure(net, count, **settings) for _ in range(repeats)]
            whole = Blocks(
                *(np.concatenate(column) for column in zip(*map(_columns, parts), strict=True))
            )
            both = ends(net, ENDS, **settings)
            found[net.name] = row = summed_up(whole) | of_a_run(whole, both)
            print(_line(net.name, row), flush=True)
    result = RESULT.with_stem("steps" if options.probes == "default" else "steps_all")
    result.parent.mkdir(exist_ok=True)
    nets = (_others(result, options.budget) if options.only else {}) | found
    result.write_text(json.dumps({"budget": options.budget, "nets": nets}, indent=1) + "\n")
    return 0


def _others(result: Path, budget: float) -> dict[str, Any]:
    """Return the nets that were measured before at this budget, where one alone is measured again."""
    try:
        kept = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return kept["nets"] if kept["budget"] == budget else {}


def _columns(blocks: Blocks) -> tuple[np.ndarray, ...]:
    return blocks.with_it, blocks.without, blocks.without_again, blocks.said, blocks.whole


def _line(name: str, row: dict[str, Any]) -> str:
    low, high = row["ratio_90"]
    first, last = row["a_a_90"]
    least, most = row["run_ratio_90"]
    return (
        f"  {name:<12} step {row['step_us'] / 1000:6.2f} ms   with/without {row['ratio']:.4f} ({low:.4f}-{high:.4f})"
        f"   A/A {row['a_a']:.4f} ({first:.4f}-{last:.4f})   costs {row['costs_us']:6.1f} µs,"
        f" says {row['says_us']:6.1f} µs\n{'':<14}whole run of {row['run_steps']:,.0f} steps {row['run_ratio']:.4f}"
        f" ({least:.4f}-{most:.4f})   start, one step and end {row['ends_ms']:.1f} ms"
    )


if __name__ == "__main__":
    raise SystemExit(main())
