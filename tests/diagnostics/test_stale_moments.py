"""A second moment that only looks stale: behind the restart of a schedule, and behind one bad batch."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.store import Event

from .made import ADAM, Made, flat, train


def recorded(losses: np.ndarray, rate: float, stale: dict[int, float]) -> Made:
    """Return a run with Adam whose gradients stand so many times over what the second moment expects at steps."""
    made = Made("stale_second_moment", optimizers=[ADAM])
    made.add("train", train(losses, lr=rate))
    steps = list(range(5, len(losses), 5))
    made.add("gradients", {}, steps, {"adam_ratio": {"0": [stale.get(x, 1.0) for x in steps]}})
    return made


@pytest.mark.parametrize(("leaps", "found"), [(True, 0), (False, 1)], ids=["restart", "steady"])
def test_gradients_that_grow_behind_a_restart_of_the_schedule_are_not_stale(
    leaps: bool, found: int
) -> None:
    losses = flat(400, at=0.4, noise=0.02)
    losses[:5] = 1.0
    losses[204:230] += 0.12
    made = recorded(losses, 1e-3, {205: 5.1, 210: 4.6, 215: 5.2})
    if leaps:
        told = {"from": 1e-6, "to": 1e-3}
        made.fold.push(events=[Event("lr", step=200, body=told, id="restart")])
    assert len(made.judge()) == found


def test_what_a_single_batch_left_behind_is_not_a_stale_moment() -> None:
    losses = flat(400, at=0.3, noise=0.02)
    losses[:5] = 1.4
    losses[199], losses[201:226] = 2.3, 0.8
    assert recorded(losses, 2e-3, {200: 10.9}).judge() == []


def test_one_good_batch_in_a_stretch_of_bad_ones_makes_none_of_them_single() -> None:
    losses = flat(400, at=0.3, noise=0.02)
    losses[:5] = 1.4
    losses[199], losses[201:226] = 0.6, 2.3
    assert len(recorded(losses, 2e-3, {200: 10.9}).judge()) == 1


def test_a_stretch_of_bad_batches_makes_the_moment_stale_at_once() -> None:
    losses = flat(400, at=0.3, noise=0.02)
    losses[:5] = 1.4
    losses[205:225] = 2.3
    (finding,) = recorded(losses, 2e-3, {205: 10.9}).judge()
    assert finding.first_step <= 230
