"""The sender: everything arrives once and in order, whatever the store does meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from otoscope.callbacks.sender import Sender
from otoscope.store import (
    Event,
    MemoryHome,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    StreamName,
)

from tests.callbacks.flaky import RUN, SCHEMA, Flaky, frame, started, steps, until


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
