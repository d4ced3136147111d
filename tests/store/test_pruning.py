"""Pruning: which runs go, told from their rows alone; a live one never."""

from __future__ import annotations

import pytest
from otoscope.store import ConfigError, RunInfo
from otoscope.store.pruning import Choice, seconds_of

NOW = 1_000_000.0
DAY = 86400.0


def row(run: str, status: str = "finished", days: float = 1, tags: tuple[str, ...] = ()) -> RunInfo:
    return RunInfo(
        **{"id": run, "name": run.partition("-")[0], "status": status, "attempt": 1, "step": 1},  # type: ignore[arg-type]
        **{"max_steps": None, "started": 0.0, "last_seen": NOW - days * DAY, "world_size": 1},
        **{
            "loss_last": 0.0,
            "loss_best": 0.0,
            "open": {},
            "tags": [*tags],
            "notes": "",
            "parent": None,
        },
    )


ROWS = [
    row("sweep-1", days=1, tags=("old",)),
    row("sweep-2", days=5),
    row("sweep-3", "failed", days=9),
    row("base-1", "lost", days=40, tags=("kept", "old")),
    row("base-2", "live", days=50, tags=("old",)),
    row("base-3", "stale", days=50),
    row("best-1", days=90, tags=("keep",)),
]


@pytest.mark.parametrize(
    ("choice", "gone"),
    [
        (Choice(), []),
        (Choice(older_than=0), ["sweep-1", "sweep-2", "sweep-3", "base-1"]),
        (Choice(older_than=5 * DAY), ["sweep-3", "base-1"]),
        (Choice(ids=["sweep-2", "base-2"]), ["sweep-2"]),
        (Choice(names=["swe*"]), ["sweep-1", "sweep-2", "sweep-3"]),
        (Choice(names=["swe*"], keep_last=2), ["sweep-3"]),
        (Choice(names=["base-[12]"]), ["base-1"]),
        (Choice(tags=["o?d"]), ["sweep-1", "base-1"]),
        (Choice(tags=["old"], names=["base"]), ["base-1"]),
        (Choice(keep_last=1, older_than=6 * DAY), ["sweep-3", "base-1"]),
        (Choice(keep_last=9), []),
        (Choice(names=["best"]), []),
        (Choice(ids=["best-1"], older_than=DAY), ["best-1"]),
        (Choice(keep_last=0), ["sweep-1", "sweep-2", "sweep-3", "base-1"]),
    ],
)
def test_a_run_goes_where_it_meets_every_condition_and_is_not_live(
    choice: Choice, gone: list[str]
) -> None:
    assert [info.id for info in choice.of(ROWS, NOW)] == gone


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "xd", "nand", "infw", "30 days", "1e99d"])
def test_what_is_no_length_of_time_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match="write 90min, 12h, 30d or 4w"):
        seconds_of(text)
