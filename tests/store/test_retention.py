"""Retention: what is kept of raw, what may be cut by whom, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.store import Frame, Home, Judgement, MemoryHome, StoreFullError, StreamName
from otoscope.store.identity import new_run_id
from otoscope.store.redis_home import RedisHome
from otoscope.store.retention import MARK_FRAMES, RAW_FRAMES, SLACK, SOFT_SHARE, Retention

TRAIN, WIDE = StreamName("train", 0, 1), StreamName("gradients", 0, 1)
CAP = 320
COLUMNS = {"train": 4, "gradients": 40}


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def home(request: pytest.FixtureRequest) -> Home:
    if request.param == "memory":
        return MemoryHome()
    return RedisHome(request.getfixturevalue("redis_url"))


@pytest.fixture
def run(home: Home) -> str:
    run = new_run_id("kept")
    home.write_meta(run, {"name": "kept"})
    return run


def frames(first: int, last: int, family: str = "train", attempt: int = 1) -> list[Frame]:
    values = np.zeros(COLUMNS[family], np.float32)
    return [Frame(family, 0, attempt, s, 1.0, "11" * 8, values) for s in range(first, last + 1)]


def write(home: Home, run: str, retention: Retention, rows: list[Frame], size: int = 10) -> None:
    """As the sender does: a batch is stored, noted, and the caps are enforced."""
    for i in range(0, len(rows), size):
        home.append(run, rows[i : i + size])
        retention.note(rows[i : i + size])
        retention.enforce(home, run)


def judged(home: Home, run: str, cursor: str, before: str | None = None) -> None:
    assert home.acquire(run, "daemon", 60_000)
    assert home.commit(run, "daemon", 60_000, before, Judgement(cursor))


def gaps(home: Home, run: str) -> list[tuple[str, int, int]]:
    bodies = [event.body for _, event in home.events(run) if event.kind == "gap"]
    return [(body["family"], body["from"], body["to"]) for body in bodies]


def test_a_stream_never_grows_far_beyond_its_cap_and_keeps_its_newest_frames(
    home: Home, run: str
) -> None:
    retention = Retention(cap=CAP)
    for first in range(1, 2001, 100):
        write(home, run, retention, frames(first, first + 99))
        write(home, run, retention, frames(first, first + 99, "gradients"))
        for stream in (TRAIN, WIDE):
            kept = [frame.step for frame in home.frames(run, stream)]
            assert kept == list(range(kept[0], first + 100))
            # a thirty-second is cut at once, and Redis cuts whole nodes of at most 100 entries
            assert min(CAP * (1 - 1 / SLACK) - 10, first + 99) <= len(kept) <= CAP + 110


def test_what_was_judged_is_cut_without_a_word_and_what_was_not_with_a_gap(
    home: Home, run: str
) -> None:
    retention = Retention(cap=CAP, clock=lambda: 7.0)
    write(home, run, retention, frames(1, 150, "gradients"))
    judged(home, run, "1:150:0-0")
    write(home, run, retention, frames(151, 310, "gradients"))
    assert gaps(home, run) == []
    write(home, run, retention, frames(311, 500, "gradients"))
    told = gaps(home, run)
    first = home.frames(run, WIDE)[0].step
    assert told[0][:2] == ("gradients", 151)
    assert [a[2] + 1 for a in told[:-1]] == [b[1] for b in told[1:]]  # one begins where one ends
    # all that is gone and was not judged is told; Redis may keep some of it in its last node
    assert first <= told[-1][2] + 1 <= first + 100
    event = home.events(run)[-1][1]
    assert (event.attempt, event.rank, event.step, event.t) == (1, 0, told[-1][2], 7.0)


def test_a_judge_in_another_attempt_has_read_all_of_the_earlier_and_nothing_of_the_later(
    home: Home, run: str
) -> None:
    judged(home, run, "2:50:0-0")
    write(home, run, Retention(cap=CAP), frames(1, 500, "gradients", attempt=1))
    assert gaps(home, run) == []
    write(home, run, Retention(cap=CAP), frames(1, 500, "gradients", attempt=3))
    assert gaps(home, run)[0][:2] == ("gradients", 1)


def test_where_nobody_judges_no_gap_is_told(home: Home, run: str) -> None:
    write(home, run, Retention(cap=CAP), frames(1, 1000, "gradients"))
    assert gaps(home, run) == []


def test_the_daemon_cuts_behind_its_windows_at_its_soft_cap(home: Home, run: str) -> None:
    rows = frames(1, 1000)
    home.append(run, rows)
    retention = Retention(SOFT_SHARE, CAP)
    retention.note(rows[:600])
    retention.relax(home, run, (1, 600), window=500)
    assert home.frames(run, TRAIN)[0].step <= 100
    retention.note(rows[600:])
    retention.relax(home, run, (1, 1000), window=500)
    # Redis keeps what is left of its last node of at most 100 entries
    assert 380 <= home.frames(run, TRAIN)[0].step <= 500
    retention.relax(home, run, (2, 10), window=500)  # a later attempt: no window reaches back
    kept = len(home.frames(run, TRAIN))
    assert CAP * SOFT_SHARE * (1 - 1 / SLACK) - 10 <= kept <= CAP * SOFT_SHARE + 110


def test_frames_of_an_attempt_that_is_not_judged_yet_are_not_cut_by_the_daemon(
    home: Home, run: str
) -> None:
    rows = frames(1, 1000, attempt=2)
    home.append(run, rows)
    retention = Retention(SOFT_SHARE, CAP)
    retention.note(rows)
    retention.relax(home, run, (1, 5000), window=10)
    assert len(home.frames(run, StreamName("train", 0, 2))) == 1000


def test_frames_that_are_sent_again_count_once(home: Home, run: str) -> None:
    retention, rows = Retention(cap=CAP), frames(1, CAP - 10, "gradients")
    home.append(run, rows)
    for _ in range(5):
        retention.note(rows)
    retention.enforce(home, run)
    assert len(home.frames(run, WIDE)) == CAP - 10


class _Full(MemoryHome):
    """Refuses every write until something was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False

    def append(self, *args, **keywords) -> int:
        if self.full:
            raise StoreFullError("full")
        return super().append(*args, **keywords)

    def trim(self, run: str, stream: StreamName, before: int) -> None:
        super().trim(run, stream, before)
        self.full = False


def test_a_full_server_gets_its_room_first_and_is_told_of_the_gap_then() -> None:
    home, run = _Full(), "full-01"
    home.write_meta(run, {"name": run})
    judged(home, run, "1:5:0-0")
    retention, rows = Retention(cap=CAP), frames(1, 400, "gradients")
    home.append(run, rows)
    retention.note(rows)
    home.full = True
    retention.enforce(home, run)
    assert gaps(home, run) == [("gradients", 6, 90)]
    assert len(home.frames(run, WIDE)) == CAP - CAP // SLACK


def test_the_default_cap_is_cut_no_more_finely_than_its_marks() -> None:
    assert RAW_FRAMES * SOFT_SHARE / SLACK >= MARK_FRAMES
