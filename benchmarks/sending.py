"""What sending costs: the sender's CPU a frame, `emit`, bytes in Redis, and many ranks on one server.

    python -m benchmarks.sending [--quick]

Without --quick it writes docs/scale.md anew.
Starts private Redis servers on loopback. CPU times are those of threads and of the server's own
INFO, so that a machine that is not idle falsifies them little; the wall-clock figures it does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from otoscope.callbacks.backlog import Batch
from otoscope.callbacks.delivery import Delivery
from otoscope.callbacks.pace import linger_of
from otoscope.callbacks.sender import Sender
from otoscope.store import Column, Frame, Schema, keys
from otoscope.store.buckets import TIERS
from otoscope.store.connecting import open_sink
from otoscope.store.identity import new_run_id
from otoscope.store.redis_home import RedisHome
from otoscope.store.server import EmbeddedServer

WIDE, TRAIN, SYSTEM = 1200, 13, 8
"""Columns of `gradients` of 200 layers, and of what every rank sends: `train` and `system`."""
SYSTEM_EVERY = 10
"""Steps between two frames of `system`."""
RANKS = (1, 8, 64, 512)
PROCESSES = 2
STEP_SECONDS = 0.005
HERE = Path(__file__).parent
RESULT = HERE / "results" / "sending.json"
TEMPLATE, PAGE = HERE / "_scale.md", HERE.parent / "docs" / "scale.md"


def schema(family: str, width: int) -> Schema:
    return Schema(family, tuple(Column.of("x", layer=str(i)) for i in range(width)))


SCHEMAS = {
    "gradients": schema("gradients", WIDE),
    "train": schema("train", TRAIN),
    "system": schema("system", SYSTEM),
}


def frame(family: str, step: int, rank: int, values: np.ndarray) -> Frame:
    return Frame(family, rank, 1, step, time.time(), SCHEMAS[family].hash, values)


@contextmanager
def server() -> Iterator[EmbeddedServer]:
    with tempfile.TemporaryDirectory(prefix="otoscope-bench-") as folder:
        one = EmbeddedServer(Path(folder)).start()
        try:
            yield one
        finally:
            one.stop()


# -- one rank, wide frames ------------------------------------------------------------------------


def one_sender(seconds: float) -> dict[str, float]:
    """A real sender beside a loop that emits one frame of 1,200 columns a step."""
    with server() as redis, tempfile.TemporaryDirectory() as folder:
        home = RedisHome(redis.url)
        run, spool = new_run_id("bench"), Path(folder) / "spool"
        sender = Sender(run, lambda: open_sink(redis.url, run, spool), spool)
        for kind in SCHEMAS.values():
            sender.emit(kind)
        sender.start()
        sender.emit({"name": "bench"})
        assert sender.flush()
        rows = np.random.default_rng(0).random((64, WIDE)).astype(np.float32)
        before, costs = sender.cpu_seconds, list[float]()
        end, step = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            step += 1
            item = frame("gradients", step, 0, rows[step % 64].copy())
            begun = time.perf_counter()
            sender.emit(item)
            costs.append(time.perf_counter() - begun)
            busy(STEP_SECONDS)
        assert sender.flush(10)
        cpu = sender.cpu_seconds - before
        assert sender.sent_frames == step and sender.close()
        raw, tiers = stream_bytes(home, run)
        home.close()
    return {
        "frames": step,
        "sender_cpu_us_a_frame": cpu / step * 1e6,
        "emit_p50_us": float(np.percentile(costs, 50) * 1e6),
        "emit_p99_us": float(np.percentile(costs, 99) * 1e6),
        "bytes_a_number": raw / (step * WIDE),
        "bytes_a_number_with_rollups": (raw + tiers) / (step * WIDE),
    }


def busy(seconds: float) -> None:
    """Compute as a training step does: most of it without the GIL."""
    matrix = np.ones((64, 64), np.float32)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        matrix = matrix @ matrix * 1e-9


def memory(home: RedisHome) -> int:
    return int(str(home.server_info()["used_memory"]))


def stream_bytes(home: RedisHome, run: str) -> tuple[int, int]:
    """Return what a run's raw streams and what its tiers take: what their deletion frees."""
    streams = home.streams(run)
    raw = [keys.raw(run, stream) for stream in streams]
    tiers = [keys.tier(run, stream, tier) for stream in streams for tier in TIERS]
    return freed(home, raw), freed(home, tiers)


def freed(home: RedisHome, names: Sequence[str]) -> int:
    before = memory(home)
    home._client.delete(*names)
    return before - memory(home)


def one_rank_for_long(steps: int) -> dict[str, float]:
    """Let one rank send `train` and `system` until its streams are full: the bytes that it keeps."""
    with server() as redis:
        home, run = RedisHome(redis.url, faithful=True), new_run_id("bench")
        line, step = Delivery(run), 0
        home.ping()
        for kind in SCHEMAS.values():
            home.add_schema(run, kind)
        before = memory(home)
        while step < steps:
            line.send(home, narrow_batch(step, 50, 0), 1)
            line.tend(home)
            step += 50
        kept = memory(home) - before
        home.close()
    return {"steps": step, "kept_bytes": kept}


# -- many ranks, narrow frames --------------------------------------------------------------------


VALUES = {name: np.random.default_rng(0).random(len(s.columns), np.float32) for name, s in SCHEMAS.items()}  # fmt: skip


def narrow_batch(after: int, steps: int, rank: int) -> Batch:
    """Return what a rank sends of the steps behind `after`: `train`, and `system` now and then."""
    batch = Batch(fields={"heartbeat": {str(rank): time.time()}})
    for step in range(after + 1, after + steps + 1):
        if step % SYSTEM_EVERY == 0:
            batch.frames.append(frame("system", step, rank, VALUES["system"]))
        batch.frames.append(frame("train", step, rank, VALUES["train"]))
    return batch


@dataclass
class Load:
    """One setting: so many ranks, each sending `steps` steps in a batch."""

    ranks: int
    steps: int
    frames_a_second: float
    batches_a_second: float
    redis_cpu_us_a_frame: float
    redis_cpu_us_a_batch: float
    client_cpu_us_a_frame: float
    redis_bytes_a_frame: float
    wire_bytes_a_frame: float


def drive(url: str, run: str, ranks: Sequence[int], steps: int, until: float) -> dict[str, float]:
    """Send for a number of ranks in turn until a time; each has a connection of its own."""
    homes = [RedisHome(url, timeout=30, faithful=True) for _ in ranks]
    lines = [Delivery(run) for _ in ranks]
    for home in homes:
        home.ping()
    step = frames = batches = 0
    begun, cpu = time.time(), time.process_time()
    while time.time() < until:
        for rank, home, line in zip(ranks, homes, lines, strict=True):
            batch = narrow_batch(step, steps, rank)
            refused = line.send(home, batch, 1)
            assert not refused
            frames += len(batch.frames)
            batches += 1
        step += steps
    cpu = time.process_time() - cpu
    for home in homes:
        home.close()
    return {"frames": frames, "batches": batches, "cpu": cpu, "seconds": time.time() - begun}


def many(pool: ProcessPoolExecutor, ranks: int, steps: int, seconds: float) -> Load:
    """Send from `ranks` ranks in a few processes, as fast as they and one server can."""
    with server() as redis:
        home, run = RedisHome(redis.url), new_run_id("bench")
        home.write_meta(run, {"name": "bench"})
        for kind in SCHEMAS.values():
            home.add_schema(run, kind)
        before = home.server_info()
        shares = [list(range(ranks))[i::PROCESSES] for i in range(min(PROCESSES, ranks))]
        end = time.time() + seconds + 1
        jobs = [pool.submit(drive, redis.url, run, share, steps, end) for share in shares]
        done = [job.result() for job in jobs]
        after = home.server_info()
        home.close()

    def grew(*names: str) -> float:
        return sum(float(str(after[n])) - float(str(before[n])) for n in names)

    frames, batches = sum(d["frames"] for d in done), sum(d["batches"] for d in done)
    redis_cpu = grew("used_cpu_sys", "used_cpu_user")
    return Load(
        ranks=ranks,
        steps=steps,
        frames_a_second=sum(d["frames"] / d["seconds"] for d in done),
        batches_a_second=sum(d["batches"] / d["seconds"] for d in done),
        redis_cpu_us_a_frame=redis_cpu / frames * 1e6,
        redis_cpu_us_a_batch=redis_cpu / batches * 1e6,
        client_cpu_us_a_frame=sum(d["cpu"] for d in done) / frames * 1e6,
        redis_bytes_a_frame=grew("used_memory_dataset") / frames,
        wire_bytes_a_frame=grew("total_net_input_bytes", "total_net_output_bytes") / frames,
    )


# -- what follows ---------------------------------------------------------------------------------


@dataclass
class Cost:
    """A write costs `base` + `slope` · frames: microseconds of the server's CPU."""

    base: float
    slope: float

    @classmethod
    def of(cls, loads: Sequence[dict[str, Any]]) -> Cost:
        """Fit two loads, one with few frames a write and one with many."""
        (x, low), (y, high) = sorted(
            (row["redis_cpu_us_a_batch"] / row["redis_cpu_us_a_frame"], row["redis_cpu_us_a_batch"])
            for row in loads
        )
        slope = (high - low) / (y - x)
        return cls(low - slope * x, slope)

    def cores(self, writes: float, frames: float) -> float:
        """Return the cores that so many writes and frames a second take."""
        return (writes * self.base + frames * self.slope) / 1e6


def needs(result: dict[str, Any], ranks: int, step_seconds: float) -> dict[str, float]:
    """Return what one run of `ranks` ranks asks of a server at a step time, from measured loads.

    A rank writes every `linger_of(ranks)` seconds, or every step where that is longer.
    """
    few, most = loads = widest(result)
    frames = ranks / step_seconds * (1 + 1 / SYSTEM_EVERY)
    writes = ranks / max(step_seconds, linger_of(ranks))
    share = min(frames / writes / 25, 1.0)
    wire = few["wire_bytes_a_frame"] * (1 - share) + most["wire_bytes_a_frame"] * share
    return {
        "frames_a_second": frames,
        "writes_a_second": writes,
        "cores": Cost.of(loads).cores(writes, frames),
        "network_mb_a_second": frames * wire / 1e6,
        "memory_gb": ranks * result["full_rank"]["kept_bytes"] / 1e9,
    }


def widest(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the loads of the most ranks: that with few frames a write, that with many."""
    rows = [row for row in result["many_ranks"] if row["ranks"] == max(RANKS)]
    return sorted(rows, key=lambda row: row["steps"])


def page_figures(result: dict[str, Any]) -> dict[str, str]:
    """Return the figures of docs/scale.md as they are written there."""
    few, most = widest(result)
    cost, one = Cost.of((few, most)), result["one_rank"]
    lines = []
    for seconds in (0.1, 1.0, 10.0):
        row = needs(result, 10_000, seconds)
        lines.append(
            f"| {seconds:g} s | {row['frames_a_second']:,.0f} | {row['writes_a_second']:,.0f} "
            f"| {row['cores']:.2f} | {row['network_mb_a_second']:.1f} MB/s "
            f"| {row['memory_gb']:.0f} GB |"
        )
    job = cost.cores(8 / linger_of(8), 8 / 0.1 * (1 + 1 / SYSTEM_EVERY))
    return {
        "batch_few": f"{few['redis_cpu_us_a_batch']:.0f}",
        "batch_most": f"{most['redis_cpu_us_a_batch']:.0f}",
        "frame_few": f"{few['redis_cpu_us_a_frame']:.0f}",
        "frame_most": f"{most['redis_cpu_us_a_frame']:.1f}",
        "wire_few": f"{few['wire_bytes_a_frame']:.0f}",
        "wire_most": f"{most['wire_bytes_a_frame']:.0f}",
        "base": f"{cost.base:.0f}",
        "slope": f"{cost.slope:.1f}",
        "kept": f"{result['full_rank']['kept_bytes'] / 1e6:.2f}",
        "rows": "\n".join(lines),
        "memory_limit": f"{2 * 10_000 * result['full_rank']['kept_bytes'] / 1e9:.0f}",
        "wide": f"{one['bytes_a_number']:.2f}",
        "wide_all": f"{one['bytes_a_number_with_rollups']:.2f}",
        "cpu": f"{one['sender_cpu_us_a_frame']:.0f}",
        "cpu_least": f"{one['sender_cpu_us_a_frame_at_least']:.0f}",
        "jobs": f"{0.5 / job:.0f}",
    }


def page(result: dict[str, Any]) -> str:
    """Return docs/scale.md with the figures of a result."""
    return TEMPLATE.read_text(encoding="utf-8").format(**page_figures(result))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a second or two of each")
    quick = parser.parse_args(argv).quick
    seconds = 1.0 if quick else 4.0
    repeats = [one_sender(2 if quick else 8) for _ in range(1 if quick else 5)]
    one = {name: statistics.median(row[name] for row in repeats) for name in repeats[0]}
    # the least disturbed one: beside other work, caches are cold whenever the thread wakes
    one["sender_cpu_us_a_frame_at_least"] = min(row["sender_cpu_us_a_frame"] for row in repeats)
    print(f"sending: one rank, frames of {WIDE:,} columns with rollups")
    for name, value in one.items():
        print(f"  {name:<30} {value:10.2f}")
    context = get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        list(pool.map(abs, range(PROCESSES)))  # both have imported what they need
        loads = [many(pool, ranks, steps, seconds) for steps in (1, 25) for ranks in RANKS]
    print(f"sending: many ranks, `train` and `system`, {PROCESSES} processes beside one server")
    for load in loads:
        print("  " + "  ".join(f"{name} {value:,.1f}" for name, value in asdict(load).items()))
    full = one_rank_for_long(2_000 if quick else 40_000)
    print(
        f"sending: one rank keeps {full['kept_bytes'] / 1e6:.2f} MB after {full['steps']:,} steps"
    )
    result: dict[str, Any] = {"one_rank": one, "full_rank": full}
    result["many_ranks"] = [asdict(load) for load in loads]
    table = {f"{t} s": needs(result, 10_000, t) for t in (0.1, 1.0, 10.0)}
    for name, row in table.items():
        print(
            f"  10,000 ranks, {name} a step: " + "  ".join(f"{k} {v:,.1f}" for k, v in row.items())
        )
    RESULT.parent.mkdir(exist_ok=True)
    if not quick:
        RESULT.write_text(json.dumps({**result, "10,000 ranks": table}, indent=1) + "\n")
        PAGE.write_text(page(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
