"""The guard at the border, and the phases of a schedule."""

from __future__ import annotations

import logging
import math

import pytest
from otoscope.callbacks.guard import Guard
from otoscope.callbacks.schedule import Change, Schedule


def test_an_error_is_counted_each_time_and_logged_once_a_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[tuple[str, int]] = []
    guard = Guard(on_failure=lambda kind, error, count: told.append((kind, count)))
    with caplog.at_level(logging.WARNING, "otoscope"):
        for kind in ("a", "a", "b", "a"):
            with guard(kind):
                raise ValueError("planted")
    assert guard.failures == {"a": 3, "b": 1}
    assert told == [("a", 1), ("a", 2), ("b", 1), ("a", 3)]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_the_users_own_passes(error: type[BaseException]) -> None:
    guard = Guard()
    with pytest.raises(error), guard("a"):
        raise error
    assert guard.failures == {}


def test_strict_counts_and_raises_again() -> None:
    guard = Guard(strict=True)
    with pytest.raises(ValueError, match="planted"), guard("a"):
        raise ValueError("planted")
    assert guard.failures == {"a": 1}


def changes(lrs: list[float]) -> list[tuple[int, Change]]:
    schedule = Schedule()
    found = [(step, schedule.observe(step, lr)) for step, lr in enumerate(lrs, 1)]
    return [(step, change) for step, change in found if change is not None]


def test_a_constant_learning_rate_tells_nothing() -> None:
    assert changes([0.1] * 500) == []


def test_warm_up_and_cosine_are_two_phases() -> None:
    warm = [0.001 * step for step in range(1, 101)]
    cosine = [0.05 * (1 + math.cos(math.pi * step / 400)) for step in range(400)]
    found = changes(warm + cosine[1:])
    assert [(step, change.phase) for step, change in found][:2] == [(2, "warmup"), (101, "decay")]
    # the last steps of a cosine more than halve, each in a jump of its own
    assert all(change.phase == "decay" for _, change in found[1:])
    assert len(found) <= 4


def test_a_schedule_by_epochs_is_one_phase() -> None:
    found = changes([0.1 * 0.95 ** (step // 30) for step in range(600)])
    assert [(step, change.phase) for step, change in found] == [(31, "decay")]


def test_a_drop_beyond_half_is_told_each_time_and_rest_comes_back() -> None:
    found = changes([0.1] * 100 + [0.01] * 400 + [0.001] * 1600)
    assert [(step, change.phase) for step, change in found] == [
        (101, "decay"),
        (402, "constant"),
        (501, "decay"),
        (1702, "constant"),
    ]
