"""What Otoscope costs: wall time of whole runs with and without the callback, in interleaved pairs.

    python -m benchmarks.overhead [--pairs 20] [--seconds 4] [--budget 0.02] [--probes all] [--only mlp]

Each pair trains the same net from the same seed, once with `Otoscope()` and once without, each in a
process of its own; a third run without it gives the ratio of two equal things (A/A), the noise of
this machine, and a fourth with a callback that does nothing what Lightning takes to call one. The
four work in turns of 0.4 s (`benchmarks/_turns.py`), and change places from pair to pair. Printed:
median ratios with their 90 % bootstrap intervals; all but A/A are to the mean of the two runs
without. The ratio of CPU time counts every thread, the sender's too.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from otoscope.callbacks import Otoscope
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ._trainer import QUIET
from ._turns import TURN, Baton, Work, in_turns, workers

WARM = 30
"""Steps of a run that warms up, and of one that tells the pace."""

RESULT = Path(__file__).parent / "results" / "overhead.json"


@dataclass(frozen=True)
class Net:
    """A net to train: how it is made, its input's shape, and its batch."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch: int = 64
    words: int = 0


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(512, 10),
    )


class Transformer(nn.Module):
    """Twelve pre-norm blocks over 32 characters."""

    def __init__(self, width: int = 64, layers: int = 12) -> None:
        super().__init__()
        self.embed = nn.Embedding(64, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(words)).mean(1))


NETS = (
    Net("mlp", mlp, (784,), batch=128),
    Net("convnet", convnet, (1, 16, 16)),
    Net("transformer", Transformer, (32,), batch=16, words=64),
)


class Module(lightning.LightningModule):
    """The training of a net."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: Any, index: int) -> Tensor:
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-3)


def run(
    net: Net,
    steps: int,
    callback: lightning.Callback | None,
    module: type[Module] = Module,
    before: Sequence[lightning.Callback] = (),
    epoch: int = 8,
) -> tuple[float, float]:
    """Train once and return the wall and the CPU seconds of the whole fit, all threads together.

    `before`: callbacks that are called before the one to be measured; `epoch`: steps of one.
    """
    torch.manual_seed(0)
    rows = epoch * net.batch
    inputs = torch.randint(0, net.words, (rows, *net.shape)) if net.words else None
    inputs = torch.randn(rows, *net.shape) if inputs is None else inputs
    loader = DataLoader(
        TensorDataset(inputs, torch.randint(0, 10, (rows,))), net.batch, shuffle=True
    )
    trainer = lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        callbacks=[*before, *([] if callback is None else [callback])],
        **QUIET,
    )
    trained = module(net.make())
    gc.collect()
    begun = time.perf_counter(), time.process_time()
    trainer.fit(trained, loader)
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


@dataclass(frozen=True)
class Asked:
    """One run: which net, how long, and with what; `role` is a place in ROLES."""

    net: int
    steps: int
    role: int
    settings: dict[str, Any]


ROLES = ("without", "with", "without again", "with a callback that does nothing")


def train(asked: Asked, baton: Baton) -> tuple[float, float, float]:
    """Train in turns; returns wall and CPU seconds, and the share that Otoscope says it took."""
    net = NETS[asked.net]
    callback: lightning.Callback | None = None
    if asked.role == 1:
        callback = Otoscope(run=f"overhead {net.name}", verdict=False, **asked.settings)
    elif asked.role == 3:
        callback = lightning.Callback()
    wall, cpu = run(net, asked.steps, callback, before=[baton])
    share = callback.overhead["share"] if isinstance(callback, Otoscope) else 0.0
    return wall, cpu, float(share)


def interval(ratios: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """Return the 90 % bootstrap interval of the median."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.05 * draws)], medians[int(0.95 * draws)]


def measure(
    net: Net,
    pairs: int,
    seconds_a_run: float,
    settings: dict[str, Any],
    links: Sequence[Connection],
) -> dict[str, Any]:
    """Return the ratios of a net's runs with Otoscope, and of two runs without, to those without.

    A run has as many steps as fill `seconds_a_run`: what starting and ending cost is part of it.
    """
    place, count = NETS.index(net), len(ROLES)

    def turns(numbers: range, steps: int) -> Iterator[list[tuple[float, float, float]]]:
        for pair in numbers:
            roles = [(worker + pair) % count for worker in range(count)]
            works = [Work(train, Asked(place, steps, role, settings)) for role in roles]
            found = in_turns(links, works, seed=pair)
            yield [found[roles.index(role)] for role in range(count)]

    warm = list(turns(range(count), WARM))  # every process has had every role then
    steps = max(WARM, round(seconds_a_run * WARM / min(row[0][0] for row in warm)))
    trained = list(turns(range(pairs), steps))

    def ratios(role: int, what: int) -> list[float]:
        return [2 * row[role][what] / (row[0][what] + row[2][what]) for row in trained]

    wall, cpu, empty = ratios(1, 0), ratios(1, 1), ratios(3, 0)
    same = [row[0][0] / row[2][0] for row in trained]
    return {
        "steps": steps,
        "step_ms": statistics.median(500 * (row[0][0] + row[2][0]) / steps for row in trained),
        "wall": statistics.median(wall),
        "wall_90": interval(wall),
        "a_a": statistics.median(same),
        "a_a_90": interval(same),
        "empty_callback": statistics.median(empty),
        "empty_callback_90": interval(empty),
        "cpu": statistics.median(cpu),
        "cpu_90": interval(cpu),
        "own_share": statistics.median(row[1][2] for row in trained),
        "wall_ratios": wall,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run")
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--probes", choices=["default", "all"], default="default")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in one operation")
    parser.add_argument("--only", choices=[net.name for net in NETS])
    parser.add_argument("--url", help="a Redis server to record into; else to disk")
    options = parser.parse_args(argv)
    if options.pairs < 1 or options.seconds <= 0:
        parser.error("--pairs must be at least 1, and --seconds over 0")
    for name in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {}
    print(f"overhead: {options.pairs} pairs of runs of about {options.seconds:g} s in turns, "
          f"budget {options.budget:g}, {options.probes} probes")  # fmt: skip
    print(
        f"  {'net':<12}{'step':>9}{'wall (90 %)':>22}{'A/A (90 %)':>22}"
        f"{'empty callback':>22}{'CPU (90 %)':>22}{'own':>10}"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("OTOSCOPE_HOME", str(Path(folder) / "home"))
        settings = {
            "url": options.url,
            "budget": options.budget,
            "probes": options.probes,
            "spool": folder,
        }
        with workers(len(ROLES), options.threads) as links:
            for net in NETS:
                if options.only in (None, net.name):
                    row = measure(net, options.pairs, options.seconds, settings, links)
                    found[net.name] = row
                    print(_line(net.name, row), flush=True)
    report = {
        "pairs": options.pairs,
        "seconds": options.seconds,
        "turn": TURN,
        "budget": options.budget,
        "probes": options.probes,
        "into": "redis" if options.url else "disk",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    result = RESULT.with_stem("overhead" if options.probes == "default" else "overhead_all")
    result.parent.mkdir(exist_ok=True)
    report["nets"] = (_others(result, report) if options.only else {}) | found
    result.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _others(result: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Return the nets that were measured before in the same way, where one alone is measured again."""
    try:
        kept = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    nets = kept.pop("nets", {})
    return nets if kept == report else {}


def _line(name: str, row: dict[str, Any]) -> str:
    cells = [f"  {name:<12}{row['step_ms']:>6.2f} ms"]
    for key in ("wall", "a_a", "empty_callback", "cpu"):
        low, high = row[f"{key}_90"]
        cells.append(f"{row[key]:>8.3f} ({low:.3f}-{high:.3f})")
    return "".join(cells) + f"{100 * row['own_share']:>8.1f} %"


if __name__ == "__main__":
    raise SystemExit(main())
