"""How silent Otoscope is on runs that are all right: findings in healthy and look-alike runs.

    python -m benchmarks.silence [--seeds 3] [--budget 0.02] [--only NAME] [--steps 600]

Each run trains a small net through `attach`, records to disk, and is judged with all rules as they
stand. A warning or a critical finding in any of them is a false alarm, and is listed.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from otoscope.diagnostics import judge
from otoscope.store import connect
from torch import nn
from torch.nn import functional

from ._cases import (
    Case,
    adam,
    cosine,
    restarts,
    sequence_loss,
    sgd,
    smoothed,
    train,
    warm_up,
)
from ._data import (
    cancer,
    diabetes,
    digits,
    text,
    wine,
)
from ._nets import (
    Recurrent,
    Transformer,
    convnet,
    frozen_backbone,
    mlp,
)

RESULT = Path(__file__).parent / "results" / "silence.json"
CASES = (
    Case("mlp-sgd", lambda: mlp(64, 10), digits, sgd(0.1)),
    Case("mlp-momentum", lambda: mlp(64, 10), digits, sgd(0.05, 0.9)),
    Case("mlp-adam", lambda: mlp(64, 10), digits, adam(1e-3)),
    Case("mlp-adam-wide", lambda: mlp(64, 10, width=256), digits, adam(3e-3)),
    Case("mlp-adamw-gelu", lambda: mlp(64, 10, act=nn.GELU), digits, adam(3e-4, 0.05)),
    Case("mlp-tanh", lambda: mlp(64, 10, act=nn.Tanh), digits, sgd(0.1)),
    Case("mlp-silu-layernorm", lambda: mlp(64, 10, act=nn.SiLU, norm=nn.LayerNorm), digits, adam(1e-3)),
    Case("mlp-deep", lambda: mlp(64, 10, depth=8), digits, adam(1e-3)),
    Case("mlp-batchnorm", lambda: mlp(64, 10, norm=nn.BatchNorm1d), digits, sgd(0.1)),
    Case("mlp-large-batch", lambda: mlp(64, 10), digits, sgd(0.1), batch=512),
    Case("convnet-sgd", convnet, digits, sgd(0.05, 0.9)),
    Case("convnet-adam", lambda: convnet(norm=True), digits, adam(1e-3)),
    Case("lstm-adam", Recurrent, digits, adam(3e-3)),
    Case("transformer-adamw", Transformer, text, adam(1e-3, 0.01), batch=16, loss=sequence_loss),
    Case("cancer-adam", lambda: mlp(30, 2), cancer, adam(1e-3)),
    Case("wine-sgd", lambda: mlp(13, 3), wine, sgd(0.05), batch=32),
    Case("diabetes-adam", lambda: mlp(10, 1), diabetes, adam(1e-3), loss=functional.mse_loss),
    Case("small-batch", lambda: mlp(64, 10), digits, sgd(0.02), batch=4, look_alike="a noisy loss"),
    Case("small-batch-batchnorm", lambda: mlp(64, 10, norm=nn.BatchNorm1d), digits, sgd(0.02), batch=8, look_alike="noise"),
    Case("dropout-heavy", lambda: mlp(64, 10, width=128, dropout=0.5), digits, adam(1e-3), look_alike="a noisy loss"),
    Case("label-smoothing", lambda: mlp(64, 10), digits, adam(1e-3), loss=smoothed, look_alike="a loss with a floor"),
    Case("cosine-to-zero", lambda: mlp(64, 10), digits, sgd(0.1), schedule=cosine, look_alike="a flat end"),
    Case("warm-restarts", lambda: mlp(64, 10), digits, sgd(0.1), schedule=restarts, look_alike="bumps"),
    Case("warm-up", Transformer, text, adam(2e-3, 0.01), batch=16, loss=sequence_loss, schedule=warm_up, look_alike="a slow start"),
    Case("clip-active", lambda: mlp(64, 10), digits, sgd(0.1), clip=1.0, look_alike="clipped in most steps"),
    Case("frozen-backbone", frozen_backbone, digits, adam(1e-3), look_alike="a layer that never moves"),
    Case("accumulation", lambda: mlp(64, 10), digits, sgd(0.1), batch=16, accumulate=4, look_alike="partial gradients"),
    Case("converged", lambda: mlp(30, 2, width=128), cancer, adam(3e-3), look_alike="a loss near zero"),
    Case("edge-of-stability", lambda: mlp(64, 10, act=nn.Tanh), digits, sgd(0.5), batch=1797, look_alike="sharpness at its limit"),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--budget", type=float, default=0.02)
    parser.add_argument("--only", default="")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    logging.getLogger("otoscope").setLevel(logging.ERROR)
    alarms: list[dict[str, object]] = []
    infos = runs = judged = 0
    begun = time.time()
    for case in CASES:
        if options.only and options.only not in case.name:
            continue
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                run = train(case, seed, options.steps, budget=options.budget, folder=folder).run
                verdict = judge(connect(folder / run), run)
            runs += 1
            judged += len(verdict["judged"])
            for finding in verdict["findings"]:
                if finding["severity"] == "info":
                    infos += 1
                    continue
                alarm = {key: finding[key] for key in ("rule", "severity", "first_step", "title")}
                alarms.append({"case": case.name, "seed": seed, **alarm})
                print(f"  false alarm: {case.name} seed {seed}: {alarm}", flush=True)
    steps = runs * options.steps
    flagged = len({(alarm["case"], alarm["seed"]) for alarm in alarms})
    figures = {
        "runs": runs,
        "steps": steps,
        "budget": options.budget,
        "runs_with_a_false_alarm": flagged,
        "false_alarms_per_1000_steps": len(alarms) / max(steps / 1000, 1e-9),
        "infos": infos,
        "rules_judged_a_run": judged / max(runs, 1),
        "seconds": time.time() - begun,
    }
    print("silence: findings in runs that are all right")
    for key, value in figures.items():
        print(f"  {key:<30} {value:10.3f}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**figures, "alarms": alarms}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
