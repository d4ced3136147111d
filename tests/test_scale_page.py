"""docs/scale.md says what the benchmark of sending measured, and what follows from it."""

from __future__ import annotations

import json

import pytest

from benchmarks.sending import PAGE, RESULT, Cost, needs, page


def load(ranks: int, steps: int, frames: float, batch_us: float, wire: float) -> dict[str, float]:
    frame_us = batch_us / frames
    return {
        "ranks": ranks,
        "steps": steps,
        "redis_cpu_us_a_batch": batch_us,
        "redis_cpu_us_a_frame": frame_us,
        "wire_bytes_a_frame": wire,
    }


def test_the_page_holds_the_figures_of_the_result() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(result)


def test_the_cost_of_a_write_is_fitted_to_two_loads_and_scales() -> None:
    rows = [load(512, 25, 26, 150.0, 300.0), load(512, 1, 1, 50.0, 500.0), load(8, 1, 1, 1.0, 1.0)]
    cost = Cost.of(rows[:2])
    assert (cost.base, cost.slope) == (pytest.approx(46.0), pytest.approx(4.0))
    result = {"many_ranks": rows, "full_rank": {"kept_bytes": 2e6}}
    found = needs(result, 10_000, 1.0)
    assert found["frames_a_second"] == pytest.approx(11_000)
    assert found["writes_a_second"] == pytest.approx(2_500)  # each rank every 4 s
    assert found["cores"] == pytest.approx((2_500 * 46 + 11_000 * 4) / 1e6)
    assert found["memory_gb"] == pytest.approx(20.0)
    assert needs(result, 10_000, 10.0)["writes_a_second"] == pytest.approx(1_000)
