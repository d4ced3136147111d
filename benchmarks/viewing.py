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
from dataclasses import replace
from pathlib import Path

from flask.testing import FlaskClient
from otoscope.dashboard import create_app
from otoscope.store import Evidence, Finding, MemoryHome, Store

from tests.dashboard.made_runs import RUN, MadeRun, too_high

STEPS = 2000
ROUNDS = 9
RESULT = Path(__file__).parent / "results" / "viewing.json"


def finding(i: int, last: int) -> Finding:
    """Return a finding with everything that a card can show; the first one stands."""
    layer = f"encoder.layers.{i % 24}.mlp"
    return replace(
        too_high(RUN, 5 * i + 1, 5 * i + 40 if i else last),
        id=f"lr_too_high:run:1:{i}",
        state="resolved" if i else "firing",
        because=[
            Evidence(f"norm {i + 9} at step {5 * i}", "train", "grad_sq", 5 * i + 5, 9.0, 4.0),
            Evidence("loss 0.36 before, 0.83 since", "train", "loss", 5 * i + 9, 0.83, 0.47),
        ],
        layers=[layer, f"{layer}.up", f"{layer}.down"],
        caused=[],
    )


def answer(client: FlaskClient, path: str) -> tuple[bytes, float]:
    begun = time.thread_time()
    found = client.get(f"/api/runs/{RUN}/{path}")
    if found.status_code != 200:
        raise RuntimeError(f"{path}: {found.get_data(as_text=True)[:200]}")
    return found.data, 1e3 * (time.thread_time() - begun)


def measure(count: int, page: str) -> dict[str, float]:
    """Return bytes and milliseconds of first view, tick and evidence of one page."""
    home = MemoryHome()
    findings = [finding(i, STEPS) for i in range(count)]
    run = MadeRun(home, RUN).train(STEPS).judged(*findings)
    client = create_app(lambda: Store(home)).test_client()
    body, spent = answer(client, f"delta?page={page}")
    row = {"first_bytes": float(len(zlib.compress(body))), "first_ms": spent}
    sizes, times = [], []
    for _ in range(ROUNDS):
        run.train(10)
        findings[0] = finding(0, run.step)
        run.judged(*findings)
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
