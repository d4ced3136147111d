"""How much a judgement costs: CPU of a grid point with all rules, and what one daemon keeps up with.

    python -m benchmarks.judging [--layers 200] [--steps 600] [--runs 200] [--seconds 60] [--part point|load]

A point: a residual net of 200 linear layers trains through `attach` with every probe and a budget
wide enough that all families come often; its recording is judged with all rules. Beside it the same
net broken (a learning rate far too high), where rules have cases to tell. The load: 200 live runs
send frames of a real recording into a real Redis, ten a second each; one daemon process, pinned to
one core, judges them. Its lag is what was sent and is not judged yet, in seconds.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from otoscope.callbacks import attach
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.judging import fold_run
from otoscope.diagnostics.rules import RULES
from otoscope.store import Event, Frame, Store, connect
from otoscope.store.redis_home import RedisHome
from otoscope.store.schemas import dumps
from otoscope.store.server import EmbeddedServer
from torch import nn
from torch.nn import functional

RESULT = Path(__file__).parent / "results" / "judging.json"
TARGET_MS = 2.0
FRAMES_A_SECOND = 10
TURN = 0.5
"""Seconds between two batches of a sender."""
RATES = {"healthy": 1e-3, "broken": 0.5}
"""Learning rates of the two nets whose judgement is measured."""
ROUNDS = 10
"""Times that both are judged anew, one behind the other."""


class Block(nn.Module):
    """A residual block of one linear layer: a stack of 200 of them still trains."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)
        self.scale = depth**-0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.scale * functional.relu(self.linear(self.norm(x)))


def record(folder: Path, layers: int, steps: int, rate: float, width: int = 16) -> Store:
    """Train a net of so many linear layers on made data, and return what was recorded."""
    torch.manual_seed(0)
    blocks = [Block(width, layers) for _ in range(layers - 2)]
    model = nn.Sequential(nn.Linear(32, width), *blocks, nn.Linear(width, 5))
    optimizer = torch.optim.Adam(model.parameters(), rate)
    x = torch.randn(4000, 32)
    y = (x @ torch.randn(32, 5)).argmax(1)
    recorder = attach(
        model,
        optimizer,
        loss_fn=lambda model, batch: functional.cross_entropy(model(batch[0]), batch[1]),
        spool=folder,
        probes="all",
        budget=0.5,
        verdict=False,
    )
    for _ in range(steps):
        rows = torch.randint(len(x), (64,))
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.step(loss, 64, (x[rows], y[rows]))
    recorder.finish()
    return connect(recorder.directory)


def judged(store: Store, times: int = 5) -> tuple[Fold, float]:
    """Judge a recording anew `times` times; returns the fold and the least CPU seconds of one."""
    run = store.runs()[0].id
    fold = fold_run(store.home, run)  # imports, caches
    spent = math.inf
    for _ in range(times):  # others on the machine only ever add
        begun = time.process_time()
        fold = fold_run(store.home, run)
        spent = min(spent, time.process_time() - begun)
    return fold, spent


def of_a_point(store: Store) -> dict[str, Any]:
    """Return the CPU of judging a recording with all rules, in ms a grid point, and whose it is."""
    run = store.runs()[0].id
    fold, spent = judged(store)
    begun = time.process_time()
    states = [dumps(fold.state()) for _ in range(10)]
    stated = (time.process_time() - begun) / 10
    return {
        "points": fold.place.points,
        "ms_a_point": round(1000 * spent / fold.place.points, 2),
        "ms_of_a_state": round(1000 * stated, 2),
        "state_bytes": len(states[0]),
        "findings": sorted({finding.rule for finding in fold.findings()}),
        "columns": {s.family: len(s.columns) for s in store.home.schemas(run).values()},
        "rules_ms": _by_rule(store, run),
    }


def _by_rule(store: Store, run: str) -> dict[str, float]:
    """Return the CPU of the dearest rules, in ms a grid point; the clock itself costs 1 µs."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Any) -> Any:
        def measured(*told: Any) -> Any:
            begun = time.perf_counter()
            answer = function(*told)
            spent[name] += time.perf_counter() - begun
            return answer

        return measured

    rules = [
        replace(
            rule,
            judge=timed(rule.id, rule.judge),
            remember=rule.remember and timed(rule.id, rule.remember),
        )
        for rule in RULES
    ]
    fold: Fold = fold_run(store.home, run, rules=rules)
    dearest = sorted(spent.items(), key=lambda item: -item[1])[:10]
    return {name: round(1000 * t / fold.place.points, 3) for name, t in dearest}


# ---- the load --------------------------------------------------------------------------------

DAEMON = """
import sys, threading, time, resource
from pathlib import Path
from otoscope.diagnostics import Daemon
from otoscope.store.redis_home import RedisHome
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
begun, cpu = time.perf_counter(), time.process_time()
Daemon(RedisHome(sys.argv[1]), heartbeat=Path(sys.argv[2])).run(stop)
print(time.process_time() - cpu)
"""


def load(store: Store, runs: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Send the recording as so many live runs, and return the daemon's lag and share of a core."""
    recorded = store.runs()[0].id
    log = _log(store, recorded)
    meta = {**store.home.meta(recorded).to_json(), "ended": None, "progress": {}}
    schemas = list(store.home.schemas(recorded).values())
    server = EmbeddedServer(folder / "redis").start()
    try:
        home = RedisHome(server.url)
        names = [f"load-{i:03d}" for i in range(runs)]
        for name in names:
            home.begin_attempt(name)
            home.write_meta(name, meta)
            for schema in schemas:
                home.add_schema(name, schema)
            home.append(name, [], [Event("started", body={"world_size": 1}, id="started")])
        command = [sys.executable, "-c", DAEMON, server.url, str(folder / "beat")]
        daemon = subprocess.Popen(
            [*_pinned(), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            lags, late = _send(home, names, log, seconds)
            caught_up = _wait(home, names, log, seconds)
        finally:
            told, _ = daemon.communicate(b"", timeout=60)
        home.close()
    finally:
        server.stop()
    return {
        "runs": runs,
        "frames_a_second_and_run": FRAMES_A_SECOND,
        "seconds": seconds,
        "lag_seconds_median": round(statistics.median(lags), 2),
        "lag_seconds_p95": round(sorted(lags)[int(0.95 * len(lags))], 2),
        "lag_seconds_last": round(lags[-1], 2),
        "caught_up_after_seconds": round(caught_up, 2),
        "sender_late_seconds": round(late, 2),
        "daemon_cpu_seconds": round(float(told.decode().split()[-1]), 2),
        "share_of_a_core_needed": round(float(told.decode().split()[-1]) / seconds, 3),
    }


def _log(store: Store, run: str) -> list[Frame]:
    frames = [f for s in store.home.streams(run) for f in store.home.frames(run, s)]
    # `train` of a step comes last
    return sorted(frames, key=lambda frame: (frame.step, frame.family == "train", frame.family))


def _pinned() -> list[str]:
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return [] if core is None else ["taskset", "-c", str(core)]


def _send(
    home: RedisHome, names: Sequence[str], log: Sequence[Frame], seconds: float
) -> tuple[list[float], float]:
    """Send in turns; returns each look's lag in seconds, and how late the sender itself was."""
    lags: list[float] = []
    begun, turn, late = time.perf_counter(), 0, 0.0
    each = int(FRAMES_A_SECOND * TURN)
    while (turn + 1) * TURN <= seconds and (turn + 1) * each <= len(log):
        portion = log[turn * each : (turn + 1) * each]
        for name in names:
            home.append(name, [replace(frame, time=time.time()) for frame in portion])
        turn += 1
        wait = begun + turn * TURN - time.perf_counter()
        late = max(late, -wait)
        time.sleep(max(wait, 0.0))
        if turn % 4 == 0:
            lags += [
                _lag(home, name, log[: turn * each]) for name in names[:: max(len(names) // 10, 1)]
            ]
    return lags, late


def _lag(home: RedisHome, name: str, sent: Sequence[Frame]) -> float:
    """Return how long ago the last judged grid point was sent, less the points not complete yet."""
    step = int((home.judgement(name).state.get("place") or {}).get("step") or 0)
    due = [i for i, f in enumerate(sent) if f.family == "train" and f.step % 10 == 0]
    waiting = [i for i in due if sent[i].step > step]
    return 0.0 if not waiting else (len(sent) - waiting[0]) / FRAMES_A_SECOND


def _wait(home: RedisHome, names: Sequence[str], log: Sequence[Frame], seconds: float) -> float:
    """Return how long the daemon needs for what is left, once nobody sends any more."""
    sent = log[: int(FRAMES_A_SECOND * seconds)]
    begun = time.perf_counter()
    while time.perf_counter() - begun < 60:
        if all(_lag(home, name, sent) == 0.0 for name in names):
            break
        time.sleep(0.1)
    return time.perf_counter() - begun


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns 1 where a point costs more than it may."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=200)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--part", choices=("point", "load"))
    options = parser.parse_args(argv)
    logging.getLogger("otoscope").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    os.environ.pop("OTOSCOPE_URL", None)
    told: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ.setdefault("OTOSCOPE_HOME", str(folder / "home"))
        if options.part != "load":
            stores = {
                name: record(folder / name, options.layers, options.steps, rate)
                for name, rate in RATES.items()
            }
            told |= {name: of_a_point(store) for name, store in stores.items()}
            for _ in range(ROUNDS):  # by turns: a slow stretch of the machine meets both
                for name, store in stores.items():
                    fold, spent = judged(store, times=2)
                    least = round(1000 * spent / fold.place.points, 2)
                    told[name]["ms_a_point"] = min(told[name]["ms_a_point"], least)
                time.sleep(TURN)
            for name in stores:
                print(f"{name}, {options.layers} layers, {len(RULES)} rules:")
                print(json.dumps(told[name], indent=2))
        if options.part != "point":
            small = record(folder / "small", 10, max(int(10 * options.seconds), 200), 1e-3)
            told["load"] = load(small, options.runs, options.seconds, folder)
            print(json.dumps(told["load"], indent=2))
    told["rules"] = len(RULES)
    told["load_average"] = round(os.getloadavg()[0], 1)
    RESULT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(any(told.get(name, {}).get("ms_a_point", 0.0) > TARGET_MS for name in RATES))


if __name__ == "__main__":
    raise SystemExit(main())
