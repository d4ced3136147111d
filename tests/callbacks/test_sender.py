"""The sender: everything arrives once and in order, whatever the store does meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from otoscope.callbacks.sender import Sender
from otoscope.store import (
    Column,
    Event,
    Frame,
    MemoryHome,
    Schema,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StreamName,
    connect,
)
from otoscope.store.places import recordings
from otoscope.store.recording import RecordingSink

RUN = "run-01"
SCHEMA = Schema("train", (Column.of("loss"),))
STREAM = StreamName("train", 0, 1)


def frame(step: int, attempt: int = 1) -> Frame:
    return Frame(
        "train", 0, attempt, step, 1000.0 + step, SCHEMA.hash, np.array([step], np.float32)
    )


class Flaky(MemoryHome):
    """Refuses, or loses its reply after having stored, as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refuse: Exception | None = None
        self.lose_reply = False
        self.tries = 0

    def append(self, run: str, *args: Any, **options: Any) -> int:
        self.tries += 1
        if self.refuse is not None:
            raise self.refuse
        refused = super().append(run, *args, **options)
        if self.lose_reply:
            self.lose_reply = False
            raise StoreUnavailableError("the reply was lost")
        return refused

    def last_id(self, run: str, stream: StreamName) -> tuple[int, int] | None:
        self.tries += 1
        if self.refuse is not None:
            raise self.refuse
        return super().last_id(run, stream)


def started(home: Any, spool: Path, **options: Any) -> Sender:
    sender = Sender(RUN, lambda: home, spool, **{"linger": 0.005, **options})
    sender.emit({"name": "a run"})
    sender.emit(SCHEMA)
    sender.start()
    return sender


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.002)


def steps(home: MemoryHome, stream: StreamName = STREAM) -> list[int]:
    return [frame.step for frame in home.frames(RUN, stream)]


def test_frames_events_and_fields_arrive_in_order(tmp_path: Path) -> None:
    home = MemoryHome()
    sender = started(home, tmp_path / RUN)
    for step in range(1, 1201):
        sender.emit(frame(step))
    sender.emit(Event("finished", 1200))
    sender.emit({"heartbeat": {"0": 5.0}})
    sender.emit({"heartbeat": {"1": 6.0}})
    assert sender.close()
    assert steps(home) == list(range(1, 1201))
    assert [event.kind for _, event in home.events(RUN)] == ["finished"]
    assert home.meta(RUN).heartbeat == {"0": 5.0, "1": 6.0}
    assert home.meta(RUN).name == "a run" and home.meta(RUN).attempt == 1
    assert SCHEMA.hash in home.schemas(RUN)
    assert (sender.sent_frames, sender.dropped_frames, sender.queue_frames) == (1200, 0, 0)
    assert not (tmp_path / RUN).exists()


def test_a_lost_reply_stores_nothing_twice(tmp_path: Path) -> None:
    home = Flaky()
    home.lose_reply = True
    sender = started(home, tmp_path / RUN)
    event = Event("lr", 2)
    for item in (frame(1), frame(2), event):
        sender.emit(item)
    until(lambda: home.tries >= 2, "a second try")
    sender.emit(frame(3))
    assert sender.close()
    assert steps(home) == [1, 2, 3]
    assert [e.id for _, e in home.events(RUN)] == [event.id]
    assert (sender.sent_frames, sender.dropped_frames) == (3, 0)


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("nobody answers"), StoreFullError("memory is full")]
)
def test_a_short_outage_is_waited_out_in_memory(error: StoreError, tmp_path: Path) -> None:
    home = Flaky()
    home.refuse = error
    sender = started(home, tmp_path / RUN)
    for step in range(1, 11):
        sender.emit(frame(step))
    until(lambda: home.tries >= 2, "a retry")
    assert sender.spooled_frames == 0 and sender.queue_frames == 10
    home.refuse = None
    until(lambda: sender.queue_frames == 0, "the recovery")
    assert sender.close()
    assert steps(home) == list(range(1, 11))
    assert not (tmp_path / RUN).exists()


def test_a_long_outage_goes_to_disk_and_comes_back_in_order(tmp_path: Path) -> None:
    home = Flaky()
    sender = started(home, tmp_path / RUN, held=20)
    for step in range(1, 6):
        sender.emit(frame(step))
    until(lambda: sender.sent_frames == 5, "the first frames")
    home.refuse = StoreUnavailableError("nobody answers")
    for step in range(6, 101):
        sender.emit(frame(step))
    sender.emit(Event("epoch", 100))
    until(lambda: sender.spooled_frames >= 95, "the spool")
    for step in range(101, 121):
        sender.emit(frame(step))
    sender.emit({"progress": {"step": 120}})
    until(lambda: sender.spooled_frames >= 115, "the later frames on disk")
    home.refuse = None
    until(lambda: sender.spooled_frames == 0, "the replay")
    sender.emit(frame(121))
    assert sender.close()
    assert steps(home) == list(range(1, 122))
    assert [event.kind for _, event in home.events(RUN)] == ["epoch"]
    assert home.meta(RUN).progress == {"step": 120} and home.meta(RUN).name == "a run"
    assert (sender.sent_frames, sender.dropped_frames) == (121, 0)
    assert not list((tmp_path / RUN).glob("*.spool"))


def test_what_no_server_took_by_the_end_is_a_recording(tmp_path: Path) -> None:
    home = Flaky()
    home.refuse = StoreUnavailableError("nobody answers")
    sender = started(home, tmp_path / RUN)
    for step in range(1, 31):
        sender.emit(frame(step))
    sender.emit(Event("finished", 30))
    assert sender.close(deadline=0.3)
    store = connect(tmp_path / RUN)
    assert list(store.read(RUN, "train").steps) == list(range(1, 31))
    assert [event.kind for event in store.events(RUN)] == ["finished"]
    assert store.meta(RUN).name == "a run"
    assert recordings() == [tmp_path / RUN]


def test_a_store_that_hangs_keeps_nobody_waiting_beyond_the_deadline(tmp_path: Path) -> None:
    release = threading.Event()

    class Stalled(MemoryHome):
        def append(self, *args: Any, **options: Any) -> int:
            release.wait(30)
            raise StoreUnavailableError("timed out")

    sender = started(Stalled(), tmp_path / RUN)
    sender.emit(frame(1))
    begun = time.monotonic()
    ended = sender.close(deadline=0.2)
    assert not ended and time.monotonic() - begun < 10
    release.set()
    until(lambda: bool(list(tmp_path.glob("*/*.spool"))), "the spool, once the store let go")


def test_a_resumed_run_writes_under_the_attempt_that_the_store_gives(tmp_path: Path) -> None:
    home = MemoryHome()
    for _ in range(3):
        home.begin_attempt(RUN)
    sender = started(home, tmp_path / RUN, attempt=2)
    sender.emit(frame(7, attempt=2))
    sender.emit(Event("resumed", 7, attempt=2))
    assert sender.close()
    assert sender.attempt == 4
    assert steps(home, StreamName("train", 0, 4)) == [7]
    assert home.events(RUN)[0][1].attempt == 4


def test_frames_written_before_the_attempt_was_known_get_its_number(tmp_path: Path) -> None:
    home = Flaky()
    home.begin_attempt(RUN)
    home.refuse = StoreUnavailableError("nobody answers")
    refusing = True

    def open_sink() -> MemoryHome:
        if refusing:
            raise StoreUnavailableError("nobody answers")
        return home

    sender = Sender(RUN, open_sink, tmp_path / RUN, linger=0.005, held=2)
    sender.emit(SCHEMA)
    sender.start()
    for step in range(1, 11):
        sender.emit(frame(step))
    until(lambda: sender.spooled_frames == 10, "the spool")
    refusing, home.refuse = False, None
    until(lambda: sender.spooled_frames == 0, "the replay")
    assert sender.close()
    assert steps(home, StreamName("train", 0, 2)) == list(range(1, 11))


def test_a_batch_that_cannot_be_written_is_given_up_and_counted(tmp_path: Path) -> None:
    class Picky(MemoryHome):
        def append(self, run: str, frames: Any, *args: Any, **options: Any) -> int:
            if any(frame.step == 1 for frame in frames):
                raise TypeError("planted")
            return super().append(run, frames, *args, **options)

    home = Picky()
    sender = started(home, tmp_path / RUN)
    sender.emit(frame(1))
    until(lambda: sender.dropped_frames == 1, "the bad batch given up")
    sender.emit(frame(2))
    assert sender.close()
    assert steps(home) == [2]


def test_a_full_disk_and_no_server_loses_the_oldest_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Flaky()
    home.refuse = StoreUnavailableError("nobody answers")

    def full(self: RecordingSink, *args: Any, **options: Any) -> int:
        raise StoreFullError("no space left")

    monkeypatch.setattr(RecordingSink, "append", full)
    sender = started(home, tmp_path / RUN, held=10)
    for step in range(1, 101):
        sender.emit(frame(step))
    until(lambda: sender.dropped_frames > 0, "a loss")
    home.refuse = None
    until(lambda: sender.queue_frames == 0, "the recovery")
    assert sender.close()
    arrived = steps(home)
    assert arrived[-1] == 100 and arrived == sorted(arrived)
    assert len(arrived) + sender.dropped_frames == 100


def test_a_forked_child_sends_nothing_and_its_parent_everything(tmp_path: Path) -> None:
    home = MemoryHome()
    sender = Sender(RUN, lambda: home, tmp_path / RUN, linger=0.2)
    sender.emit(SCHEMA)
    sender.start()
    sender.emit(frame(1))
    child = os.fork()
    if child == 0:
        sender.emit(frame(2))
        clean = sender.queue_frames == 0 and sender.close()
        os._exit(0 if clean else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    sender.emit(frame(3))
    assert sender.close()
    assert steps(home) == [1, 3]


def test_flush_waits_until_everything_was_written(tmp_path: Path) -> None:
    home = MemoryHome()
    sender = started(home, tmp_path / RUN, linger=0.5)
    for step in range(1, 101):
        sender.emit(frame(step))
    assert sender.flush()
    assert steps(home) == list(range(1, 101))
    assert sender.close()


def test_what_neither_server_nor_disk_took_by_the_end_is_said_to_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Flaky()
    home.refuse = StoreUnavailableError("nobody answers")
    (tmp_path / "file").write_text("")
    sender = started(home, tmp_path / "file" / RUN)
    for step in range(1, 31):
        sender.emit(frame(step))
    assert sender.close(deadline=0.3)
    assert sender.dropped_frames == 30
    assert "30 samples are lost" in caplog.text
    assert "takes it in" not in caplog.text
    assert recordings() == []


def test_a_run_tells_how_many_samples_are_stored_and_how_many_were_lost(tmp_path: Path) -> None:
    home = Flaky()
    sender = started(home, tmp_path / RUN)
    for step in range(1, 101):
        sender.emit(frame(step))
    sender.emit({"heartbeat": {"3": 1.0}})
    assert sender.flush()
    assert home.meta(RUN).sending == {"3": {"stored": 100, "waiting": 0, "lost": 0}}
    sender.dropped_frames += 5
    sender.emit(frame(101))
    sender.emit({"heartbeat": {"3": 2.0}})
    assert sender.close()
    assert home.meta(RUN).sending == {"3": {"stored": 101, "waiting": 0, "lost": 5}}


def test_what_is_told_after_a_cut_off_is_kept_where_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otoscope.callbacks.sender.CUT_OFF_SECONDS", 0.0)
    sender = started(MemoryHome(), tmp_path / RUN)
    sender.is_over = lambda: True
    until(lambda: "otoscope-sender" not in {t.name for t in threading.enumerate()}, "the end")
    sender.emit(frame(1))

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refused)
    assert not sender.close()
    assert list(connect(tmp_path / RUN).read(RUN, "train").steps) == [1]


def test_a_spool_that_somebody_else_takes_in_meanwhile_is_not_counted_as_lost(
    tmp_path: Path,
) -> None:
    class Overtaken(Flaky):
        """Another process replays the same spool between our question and our write."""

        def append(self, run: str, frames: Any, *args: Any, **options: Any) -> int:
            if self.refuse is None and len(frames) > 10:
                MemoryHome.append(self, run, frames)
            return super().append(run, frames, *args, **options)

    home = Overtaken()
    home.refuse = StoreUnavailableError("nobody answers")
    sender = started(home, tmp_path / RUN, held=20)
    for step in range(1, 101):
        sender.emit(frame(step))
    until(lambda: sender.spooled_frames == 100, "the spool")
    home.refuse = None
    assert sender.flush() and sender.close()
    assert steps(home) == list(range(1, 101))
    assert (sender.sent_frames, sender.dropped_frames) == (100, 0)


def test_a_disk_that_was_full_is_left_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Flaky()
    home.refuse = StoreUnavailableError("nobody answers")
    append = RecordingSink.append

    def full(self: RecordingSink, run: str, frames: Any, *args: Any, **options: Any) -> int:
        if frames:
            raise StoreFullError("no space left")
        return append(self, run, frames, *args, **options)

    monkeypatch.setattr(RecordingSink, "append", full)
    sender = started(home, tmp_path / RUN, held=10)
    sender.emit(Event("epoch", 1))
    for step in range(1, 31):
        sender.emit(frame(step))
    until(lambda: "no space left" in (sender.last_error or ""), "a full disk")
    assert (tmp_path / RUN / "events.jsonl").exists()
    home.refuse = None
    assert sender.flush() and sender.close()
    assert steps(home) == list(range(1, 31))
    assert [event.kind for _, event in home.events(RUN)] == ["epoch"]
    assert not (tmp_path / RUN).exists() and recordings() == []
