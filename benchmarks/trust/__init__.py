"""Do the measures tell what they say they tell? On held-out nets, against what is known.

    python -m benchmarks.trust [--quick] [--only edge|gain|newton|noise]

`edge`: the learning rate at which training blows up, found by bisection, against the one that the
curvature probe's `edge_ratio` predicts. `gain`: steps to a loss by SGD and by Adam, and `newton`:
gradient steps that a Newton step is worth, both against the Newton gain. `noise`: what doubling the
batch buys in branches from a checkpoint, against B_noise. Prints the tables, writes
benchmarks/results/trust.json and docs/trust.md. What is finished is kept in benchmarks/out until the
code changes, so that an interrupted run goes on.
"""

from .running import main

__all__ = ["main"]
