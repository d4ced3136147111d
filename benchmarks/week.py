"""A week of training in Redis: 1,200,000 steps of 1,200 columns, and seven more ranks.

    python -m benchmarks.week [--steps 1200000]

Rank 0 sends 1,200 columns at every step; eight ranks send `train` at every step and `system` at
every tenth. The week goes through the sender's own rollups and retention into a home in memory; what
is left in it at the end is what Redis would hold (tests/store/test_week.py), and is written there.
Then it is read back and held against numpy on the full data, which is drawn again from its seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from otoscope.store import Column, Frame, MemoryHome, Schema, Series, Store
from otoscope.store.buckets import TIERS
from otoscope.store.home import Home
from otoscope.store.redis_home import RedisHome
from otoscope.store.retention import RAW_FRAMES, SOFT_SHARE, Retention
from otoscope.store.rollups import Rollups
from otoscope.store.server import EmbeddedServer

RUN = "week-00000000000000000000000000"
RANKS = 8
BATCH = 512
BLOCK = 4096
LIMIT_MB = 120.0
BEGUN = 1.7e9
SECONDS_A_STEP = 0.5
RESULT = Path(__file__).parent / "results" / "week.json"

LAYERS = 200
WIDE = Schema(
    "gradients",
    tuple(
        Column.of(name, layer=f"layer.{i}")
        for i in range(LAYERS)
        for name in ("grad_sq", "weight_sq", "update_sq", "numel", "adam_ratio", "extra")
    ),
)
TRAIN = Schema(
    "train",
    (
        Column.of("loss", ranks="mean"),
        Column.of("lr", group="0", optimizer=0),
        Column.of("grad_sq"),
        Column.of("clip_factor"),
        Column.of("samples", ranks="sum"),
        *(Column.of(name, ranks="each") for name in ("step_seconds", "data_seconds")),
        Column.of("wait_seconds", ranks="each"),
        Column.of("loss_scale"),
        Column.of("skipped", ranks="max"),
        Column.of("non_finite", ranks="sum"),
        Column.of("overhead_seconds", ranks="each"),
        Column.of("epoch"),
    ),
)
SYSTEM = Schema("system", tuple(Column.of(f"counter_{i}", ranks="each") for i in range(8)))
EVERY = {"gradients": 1, "train": 1, "system": 10}
SCHEMAS = {schema.family: schema for schema in (WIDE, TRAIN, SYSTEM)}


@lru_cache(maxsize=2)
def block(family: str, number: int) -> np.ndarray:
    """Return what was measured at the 4,096 steps from `number` * 4096 on, float32[4096, c]."""
    columns = len(SCHEMAS[family].columns)
    rng = np.random.default_rng([len(family), number])
    rows = rng.random((BLOCK, columns), dtype=np.float32)
    if family == "train":
        rows[np.arange(BLOCK) % 8 != 0, 2] = np.nan  # the gradient norm is sampled
        rows[:, 8] = np.nan  # nothing is scaled
    if family == "gradients":
        rows[:, 3::6] = np.float32(589_824.0)  # a layer's size does not change
    return rows


def rows_of(family: str, first: int, last: int) -> np.ndarray:
    """Return what was measured at the steps from `first` to `last`, float32[n, c]."""
    parts = []
    for number in range(first // BLOCK, last // BLOCK + 1):
        begin = number * BLOCK
        parts.append(block(family, number)[max(first - begin, 0) : last - begin + 1])
    every = EVERY[family]
    return np.concatenate(parts)[(-first) % every :: every]


def batches(family: str, steps: int) -> Iterator[list[Frame]]:
    """Yield rank 0's frames of a family, in the batches of a sender."""
    name, every = SCHEMAS[family].hash, EVERY[family]
    for first in range(1, steps + 1, BATCH):
        last = min(first + BATCH - 1, steps)
        at = range(first + (-first) % every, last + 1, every)
        yield [
            Frame(family, 0, 1, step, BEGUN + SECONDS_A_STEP * step, name, row)
            for step, row in zip(at, rows_of(family, first, last), strict=True)
        ]


def train(home: Home, steps: int, share: float, cap: int = RAW_FRAMES) -> None:
    """Store a run as rank 0's sender does; `share` of the caps is kept."""
    home.write_meta(RUN, {"name": "week", "world_size": RANKS, "heartbeat": {"0": BEGUN}})
    for family, schema in SCHEMAS.items():
        home.add_schema(RUN, schema)
        rollups, retention = Rollups(), Retention(share, cap)
        for frames in batches(family, steps):
            home.append(RUN, frames, buckets=rollups.take(frames))
            retention.note(frames)
            retention.enforce(home, RUN)


def copy(source: Home, target: Home, ranks: int = RANKS) -> None:
    """Write what a home holds of the run into another; other ranks measured what rank 0 did."""
    fields = {"name": "week", "world_size": ranks, "heartbeat": {"0": BEGUN}}
    target.write_meta(RUN, fields)
    for schema in source.schemas(RUN).values():
        target.add_schema(RUN, schema)
    for stream in source.streams(RUN):
        frames = source.frames(RUN, stream)
        buckets = [bucket for tier in TIERS for bucket in source.buckets(RUN, stream, tier)]
        for rank in range(1 if stream.family == "gradients" else ranks):
            for first in range(0, len(buckets), BATCH):
                part = buckets[first : first + BATCH]
                target.append(RUN, [], buckets=[replace(item, rank=rank) for item in part])
            for first in range(0, len(frames), BATCH):
                part = frames[first : first + BATCH]
                target.append(RUN, [replace(item, rank=rank) for item in part])


@dataclass
class Held:
    """Rows of an answer that were held against the full data, and how far off they were."""

    answers: int = 0
    rows: int = 0
    worst: float = 0.0

    def hold(self, series: Series, family: str, last: int, ranks: int) -> None:
        """Compare every row with numpy on the data it stands for; raise where one differs."""
        schema, every = SCHEMAS[family], EVERY[family]
        summed = np.array([ranks if column.ranks == "sum" else 1 for column in schema.columns])
        places = [schema.index[name.partition("@")[0]] for name in series.columns]
        ends = [*(series.steps[1:] - 1), last]
        self.answers += 1
        for i, (first, end) in enumerate(zip(series.steps.tolist(), ends, strict=True)):
            rows = rows_of(family, first, int(end))[:, places] * summed[places].astype(np.float32)
            there = ~np.isnan(rows)
            count = there.sum(axis=0)
            with np.errstate(invalid="ignore"):
                total = np.where(there, rows, 0).sum(axis=0, dtype=np.float64)
                mean = np.where(count > 0, total / count, np.nan)
            np.testing.assert_allclose(series.values[i], mean, rtol=2e-6)
            np.testing.assert_array_equal(series.low[i], np.fmin.reduce(rows))
            np.testing.assert_array_equal(series.high[i], np.fmax.reduce(rows))
            known = np.isfinite(mean)
            off = np.abs(series.values[i][known] / mean[known] - 1)
            self.worst = max(self.worst, float(off.max(initial=0.0)))
            self.rows += 1
            assert first % every == 0 or first == series.steps[0]


def read_back(store: Store, steps: int) -> tuple[Held, dict[str, float]]:
    """Hold answers of every tier against the full data; return them, and the time of each."""
    held, times = Held(), {}
    questions = [("gradients", length) for length in (steps, 400_000, 50_000, 8_000, 900)]
    questions += [("train", steps), ("train", 3_000), ("system", steps), ("system", 70_000)]
    for family, length in questions:
        names = SCHEMAS[family].names
        start = max(steps - length + 1, 1)
        before = time.perf_counter()
        series = store.read(RUN, family, names, start=start, points=128)
        times[f"{family}, last {length:,} steps, {len(series)} rows"] = time.perf_counter() - before
        assert len(series) >= 100, (family, length, len(series))
        held.hold(series, family, steps, RANKS)
    return held, times


def memory_mb(home: RedisHome) -> float:
    return int(str(home.server_info()["used_memory"])) / 1e6


def measure(steps: int) -> dict[str, float]:
    folder = tempfile.TemporaryDirectory(prefix="otoscope-bench-")
    server = EmbeddedServer(Path(folder.name)).start()
    try:
        home = RedisHome(server.url, timeout=30)
        figures: dict[str, float] = {}
        for title, share in (("without a daemon", 1.0), ("with a daemon", SOFT_SHARE)):
            begun = time.perf_counter()
            simulated = MemoryHome()
            train(simulated, steps, share)
            copy(simulated, home)
            print(f"  simulated {title} in {time.perf_counter() - begun:.0f} s", flush=True)
            figures[f"memory_mb {title}"] = memory_mb(home)
            del simulated
            held, times = read_back(Store(home), steps)
            figures[f"rows_held {title}"] = held.rows
            figures[f"worst_relative_error {title}"] = held.worst
            for question, seconds in times.items():
                print(f"    {question:<48} {seconds * 1e3:7.1f} ms")
            home.delete(RUN)
        home.close()
    finally:
        server.stop()
        folder.cleanup()
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=1_200_000)
    steps = parser.parse_args(argv).steps
    print(f"week: {steps:,} steps of {len(WIDE.columns):,} columns on rank 0, {RANKS} ranks")
    figures = measure(steps)
    for name, value in figures.items():
        print(f"  {name:<40} {value:14.7g}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"steps": steps, **figures}, indent=1) + "\n")
    most = max(value for name, value in figures.items() if name.startswith("memory_mb"))
    print(f"  most memory {most:.1f} MB (to reach: {LIMIT_MB:.0f} MB)")
    return 0 if most <= LIMIT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
