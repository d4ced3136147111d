"""What storing costs: bytes a number in Redis, client CPU a frame, and how fast it is read back.

    python -m benchmarks.store [--frames 4000]

Starts a private Redis server on loopback. Figures are medians; CPU is this process's own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from otoscope.store import Column, Frame, Schema, Store
from otoscope.store.identity import new_run_id
from otoscope.store.redis_home import RedisHome
from otoscope.store.server import EmbeddedServer

COLUMNS = 1200
LAYERS = 200
BATCH = 50
RESULT = Path(__file__).parent / "results" / "store.json"


def schema() -> Schema:
    """200 layers of 6 quantities."""
    names = ("grad_sq", "weight_sq", "update_sq", "numel", "adam_ratio", "extra")
    columns = [Column.of(name, layer=f"layer.{i}") for i in range(LAYERS) for name in names]
    return Schema("gradients", tuple(columns))


def frames(count: int, kind: Schema) -> list[Frame]:
    values = np.random.default_rng(0).random((count, COLUMNS)).astype(np.float32)
    return [
        Frame("gradients", 0, 1, step, 1e9 + step, kind.hash, values[step - 1])
        for step in range(1, count + 1)
    ]


def write(home: RedisHome, run: str, rows: Sequence[Frame]) -> float:
    """Append in the sender's batches; return CPU microseconds a frame, median over batches."""
    costs: list[float] = []
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        before = time.process_time()
        home.append(run, part, [], {"heartbeat": {"0": time.time()}})
        costs.append((time.process_time() - before) / len(part) * 1e6)
    return statistics.median(costs)


def milliseconds(question: Callable[[], object], repeats: int = 7) -> float:
    times: list[float] = []
    for _ in range(repeats):
        before = time.perf_counter()
        question()
        times.append((time.perf_counter() - before) * 1e3)
    return statistics.median(times)


def measure(count: int) -> dict[str, float]:
    folder = tempfile.TemporaryDirectory(prefix="otoscope-bench-")
    server = EmbeddedServer(Path(folder.name)).start()
    try:
        home = RedisHome(server.url)
        store, run, kind = Store(home), new_run_id("bench"), schema()
        home.write_meta(run, {"name": "bench", "heartbeat": {"0": time.time()}})
        home.add_schema(run, kind)
        rows = frames(count, kind)
        before = int(str(home.server_info()["used_memory"]))
        cpu = write(home, run, rows)
        used = int(str(home.server_info()["used_memory"])) - before
        layers = [f"grad_norm/layer.{i}" for i in range(0, LAYERS, 10)]
        figures = {
            "bytes_a_number": used / (count * COLUMNS),
            "client_cpu_us_a_frame": cpu,
            "read_last_500_steps_ms": milliseconds(
                lambda: store.read(run, "gradients", layers, start=count - 499)
            ),
            f"read_all_{count}_steps_ms": milliseconds(
                lambda: store.read(run, "gradients", layers)
            ),
        }
        for i in range(2000):
            home.write_meta(f"row-{i}", {"name": f"row {i}", "heartbeat": {"0": time.time()}})
        figures["list_2000_runs_ms"] = milliseconds(store.runs)
        home.close()
    finally:
        server.stop()
        folder.cleanup()
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=4000, help="frames of 1,200 columns")
    count = parser.parse_args(argv).frames
    figures = measure(count)
    print(f"store: {count:,} frames of {COLUMNS:,} columns into a private Redis server")
    for name, value in figures.items():
        print(f"  {name:<28} {value:10.2f}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"frames": count, **figures}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
