"""On a GPU: does any step of ours wait for the device, and what does a run cost with Otoscope?

    python -m benchmarks.gpu [--device cuda] [--steps 300] [--pairs 5]

A step that waits for the device loses what CUDA had queued. torch tells of every such wait
(`torch.cuda.set_sync_debug_mode`); those whose call came through one of our files are counted by
line, apart for steps in which a probe ran the model: those may wait, their whole time is charged.
Then whole runs with and without the callback are compared in interleaved pairs. Without a CUDA
device it says so and ends; `--device cpu` runs the second part on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import attach
from otoscope.callbacks.probes import Activations, Gradients, Probe, System
from torch import Tensor, nn
from torch.nn import functional

from .overhead import interval

RESULT = Path(__file__).parent / "results" / "gpu.json"
BATCH, WIDTH, LENGTH, WORDS = 64, 256, 128, 512


class Model(nn.Module):
    """Six pre-norm transformer blocks over 128 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        block = nn.TransformerEncoderLayer(
            WIDTH, 8, 4 * WIDTH, dropout=0.1, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, 6, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(words)))


def loss_of(model: nn.Module, words: Tensor) -> Tensor:
    return functional.cross_entropy(model(words).flatten(0, 1), words.roll(-1, 1).flatten())


def train(
    device: str, steps: int, probes: str | list[Probe] | None, waits: Waits | None, spool: Path
) -> float:
    """Train once; return the seconds of the steps behind the tenth. `probes` None: no recorder."""
    torch.manual_seed(0)
    model = Model().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    batches = torch.randint(0, WORDS, (8, BATCH, LENGTH), device=device)
    recorder = None
    if probes is not None:
        recorder = attach(model, optimizer, loss_fn=loss_of, probes=probes, spool=spool,
                          run="gpu", verdict=False, strict=True, budget=0.02)  # fmt: skip
    begun = time.perf_counter()
    with waits.counted() if waits is not None else _nothing():
        for step in range(steps):
            if step == 10:
                _through(device)
                begun = time.perf_counter()
            words = batches[step % len(batches)]
            optimizer.zero_grad()
            loss = loss_of(model, words)
            loss.backward()
            optimizer.step()
            if recorder is not None:
                recorder.step(loss, BATCH, words)
    _through(device)
    seconds = time.perf_counter() - begun
    if recorder is not None:
        recorder.finish()
    return seconds


class Waits:
    """Counts the waits for the device that came through our files, by file and line."""

    def __init__(self) -> None:
        self.places: Counter[str] = Counter()

    @contextmanager
    def counted(self) -> Iterator[None]:
        before = warnings.showwarning
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._saw
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode("default")
                warnings.showwarning = before

    def _saw(self, message: Warning | str, *rest: Any) -> None:
        if "synchronizing" not in str(message):
            return
        ours = [f for f in traceback.extract_stack() if f"{os.sep}callbacks{os.sep}" in f.filename]
        if ours:
            self.places[f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"] += 1


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _through(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args(argv)
    if options.steps < 20 or options.pairs < 1:
        parser.error("--steps must be at least 20, and --pairs at least 1")
    if options.device != "cpu" and not torch.cuda.is_available():
        print("gpu: there is no CUDA device here; --device cpu compares runs on the CPU")
        return 0
    report: dict[str, Any] = {"device": options.device, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("OTOSCOPE_HOME", str(Path(folder) / "home"))
        spool = Path(folder)
        train(options.device, 20, None, None, spool)
        if options.device != "cpu":
            report["gpu"] = torch.cuda.get_device_name()
            waits = Waits()
            cheap: list[Probe] = [Gradients(every=5), Activations(every=5), System()]
            train(options.device, 100, cheap, waits, spool)
            report["waits"] = dict(waits.places)
            print(f"gpu: {sum(waits.places.values())} waits for the device in 100 steps, every "
                  f"fifth measured; {dict(waits.places) or 'none'}")  # fmt: skip
        ratios: list[float] = []
        for pair in range(options.pairs):
            order: list[str | None] = [None, "default"]
            seconds = {
                probes: train(options.device, options.steps, probes, None, spool)
                for probes in (order if pair % 2 == 0 else reversed(order))
            }
            ratios.append(seconds["default"] / seconds[None])
        low, high = interval(ratios)
    report |= {"ratio": statistics.median(ratios), "ratio_90": [low, high], "ratios": ratios}
    print(f"gpu: runs on {options.device} take {report['ratio']:.3f} ({low:.3f}-{high:.3f}) "
          f"of the same without, {options.pairs} pairs of {options.steps} steps")  # fmt: skip
    if options.device != "cpu":
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(report, indent=1) + "\n")
    return int(bool(report.get("waits")))


if __name__ == "__main__":
    raise SystemExit(main())
