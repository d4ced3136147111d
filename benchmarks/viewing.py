"""What the page of a run with many findings sends: its first view, a tick, and the charts of a finding.

    python -m benchmarks.viewing [--findings 200]

A run of 2,000 steps in memory, whose last finding grows by ten steps between two ticks. Sizes are those of
the answers as they are sent, compressed; times are CPU milliseconds of the server's thread, medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flask.testing import FlaskClient
from otoscope.dashboard import create_app
from otoscope.store import (
    Column,
    Evidence,
    Finding,
    Frame,
    Judgement,
    MemoryHome,
    Recommendation,
    Schema,
    Store,
)

RUN = "viewing-01"
STEPS = 2000
ROUNDS = 9
RESULT = Path(__file__).parent / "results" / "viewing.json"
SCHEMA = Schema("train", tuple(Column.of(name) for name in ("loss", "grad_sq", "samples")))


def finding(i: int, last: int) -> Finding:
    """Return a finding with everything that a card can show; the first one stands."""
    layer = f"encoder.layers.{i % 24}.mlp"
    return Finding(
        id=f"exploding_gradients:run:1:{i}",
        run=RUN,
        attempt=1,
        rule="exploding_gradients",
        severity="warning",
        state="resolved" if i else "firing",
        scope="run",
        first_step=5 * i + 1,
        last_step=last if not i else 5 * i + 40,
        title=f"Gradients explode: bursts of up to {i + 3} times the usual norm",
        why="One such step undoes hundreds of good ones; norms that go on growing end in NaN.",
        because=[
            Evidence(f"norm {i + 9} at step {5 * i}", "train", "grad_sq", 5 * i + 5, 9.0, 4.0),
            Evidence("loss 0.36 before, 0.83 since", "train", "loss", 5 * i + 9, 0.83, 0.47),
        ],
        recommendation=Recommendation(
            "gradient_clip_val",
            None,
            1.4,
            [1.2, 1.7],
            "from your run",
            "the 90 % quantile of the last 100 norms before the onset",
            "trainer = Trainer(gradient_clip_val=1.4, gradient_clip_algorithm='norm')\n" * 3,
            "a burst moves the weights no farther than an ordinary step",
            "no norm over the clip reaches the weights; the loss falls again within 200 steps",
            "training is slower where the large gradients were right",
        ),
        may_be_normal="A norm that grows slowly over the whole run; single hard batches.",
        layers=[layer, f"{layer}.up", f"{layer}.down"],
    )


def judged(home: MemoryHome, findings: list[Finding], step: int) -> None:
    before = home.judgement(RUN).cursor
    state = {"judged": ["plateau"], "not_judged": {}, "place": {"step": step}}
    home.acquire(RUN, "bench", 1000)
    home.commit(RUN, "bench", 1000, before, Judgement(str(step), state, findings, {}))


def train(home: MemoryHome, first: int, last: int) -> None:
    draw = np.random.default_rng(first).random((last - first + 1, 3)).astype(np.float32)
    frames = [
        Frame("train", 0, 1, step, 1e9 + step, SCHEMA.hash, draw[step - first])
        for step in range(first, last + 1)
    ]
    home.append(RUN, frames, fields={"heartbeat": {"0": time.time()}, "progress": {"step": last}})


def answer(client: FlaskClient, path: str) -> tuple[bytes, float]:
    begun = time.thread_time()
    found = client.get(f"/api/runs/{RUN}/{path}")
    if found.status_code != 200:
        raise RuntimeError(f"{path}: {found.get_data(as_text=True)[:200]}")
    return found.data, 1e3 * (time.thread_time() - begun)


def measure(count: int, page: str) -> dict[str, float]:
    """Return bytes and milliseconds of first view, tick and evidence of one page."""
    home = MemoryHome()
    home.begin_attempt(RUN)
    home.write_meta(RUN, {"name": "viewing"})
    home.add_schema(RUN, SCHEMA)
    train(home, 1, STEPS)
    findings = [finding(i, STEPS) for i in range(count)]
    judged(home, findings, STEPS)
    client = create_app(lambda: Store(home)).test_client()
    body, spent = answer(client, f"delta?page={page}")
    row = {"first_bytes": float(len(zlib.compress(body))), "first_ms": spent}
    sizes, times = [], []
    for turn in range(ROUNDS):
        last = STEPS + 10 * (turn + 1)
        train(home, last - 9, last)
        findings[0] = finding(0, last)
        judged(home, findings, last)
        body, spent = answer(client, f"delta?page={page}&since={json.loads(body)['cursor']}")
        sizes.append(len(zlib.compress(body)))
        times.append(spent)
    body, spent = answer(client, f"evidence?finding={findings[0].id}")
    return row | {
        "tick_bytes": statistics.median(sizes),
        "tick_ms": statistics.median(times),
        "evidence_bytes": float(len(zlib.compress(body))),
        "evidence_ms": spent,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.viewing", description=__doc__)
    parser.add_argument("--findings", type=int, default=200)
    arguments = parser.parse_args(argv)
    found: dict[str, dict[str, float]] = {}
    names = ("first_bytes", "first_ms", "tick_bytes", "tick_ms", "evidence_bytes", "evidence_ms")
    print(f"{'':26}" + "".join(f"{name.replace('_', ' '):>16}" for name in names))
    for page in ("findings", "run"):
        for count in sorted({5, arguments.findings}):
            row = measure(count, page)
            found[f"{page}, {count} findings"] = row
            print(f"{f'{page}, {count} findings':26}" + "".join(f"{row[n]:16,.1f}" for n in names))
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
