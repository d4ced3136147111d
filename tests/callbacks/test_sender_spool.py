"""The sender and the disk: what waits there, what goes there at the end, what it leaves."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from otoscope.callbacks.sender import Sender
from otoscope.store import (
    Event,
    MemoryHome,
    StoreFullError,
    StoreUnavailableError,
    connect,
)
from otoscope.store.claims import is_claimed
from otoscope.store.places import recordings
from otoscope.store.recording import RecordingSink

from tests.callbacks.flaky import RUN, SCHEMA, Flaky, frame, started, steps, until


def waiting(root: Path) -> tuple[Flaky, Sender]:
    """Return a server that answers nobody, and a sender that keeps the most of thirty steps on disk."""
    home = Flaky()
    home.refuse = StoreUnavailableError("nobody answers")
    sender = started(home, root / RUN, held=5)
    for step in range(1, 31):
        sender.emit(frame(step))
    until(lambda: sender.spooled_frames >= 20, "the spool")
    return home, sender


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


def test_what_waits_is_the_senders_own_until_it_ends(tmp_path: Path) -> None:
    _, sender = waiting(tmp_path)
    assert is_claimed(tmp_path / RUN)
    sender.close(deadline=0.3)
    assert not is_claimed(tmp_path / RUN)
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


@pytest.mark.parametrize("name", ["meta.json", "model.ckpt", "events.jsonl"])
def test_a_folder_in_which_anything_lies_is_left_alone(name: str, tmp_path: Path) -> None:
    """It has the run's name by chance, or was named for the run by whoever started it."""
    (tmp_path / RUN).mkdir()
    theirs = tmp_path / RUN / name
    theirs.write_text('{"args": ["--lr", "0.1"]}')
    home, sender = waiting(tmp_path)
    home.refuse = None
    assert sender.flush() and sender.close()
    assert steps(home) == list(range(1, 31))
    assert not list(tmp_path.glob(f"{RUN}-*"))
    assert theirs.read_text() == '{"args": ["--lr", "0.1"]}'


def test_what_others_put_beside_what_waits_stays_when_that_has_gone(tmp_path: Path) -> None:
    home, sender = waiting(tmp_path)
    theirs = tmp_path / RUN / "model.ckpt"
    theirs.write_text("weights")
    home.refuse = None
    assert sender.flush() and sender.close()
    assert list((tmp_path / RUN).iterdir()) == [theirs]


def test_the_spool_of_another_rank_goes_with_its_folder_but_not_what_is_beside_it(
    tmp_path: Path,
) -> None:
    home = Flaky()
    home.refuse = StoreUnavailableError("nobody answers")
    (tmp_path / RUN / "rank-2").mkdir(parents=True)
    sender = Sender(RUN, lambda: home, tmp_path / RUN / "rank-1", linger=0.005, held=2)
    sender.emit(SCHEMA)
    sender.start()
    for step in range(1, 11):
        sender.emit(frame(step))
    until(lambda: sender.spooled_frames == 10, "the spool")
    assert (tmp_path / RUN / "rank-1").exists()
    home.refuse = None
    until(lambda: not (tmp_path / RUN / "rank-1").exists(), "the end of the spool")
    assert (tmp_path / RUN / "rank-2").exists()
    (tmp_path / RUN / "rank-2").rmdir()
    home.refuse = StoreUnavailableError("nobody answers")
    for step in range(11, 21):
        sender.emit(frame(step))
    until(lambda: sender.spooled_frames == 10, "the spool")
    home.refuse = None
    assert sender.flush() and sender.close()
    assert steps(home) == list(range(1, 21)) and not (tmp_path / RUN).exists()


def test_what_stayed_in_memory_beside_a_full_disk_leaves_behind_what_is_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Flaky()
    home.refuse = StoreUnavailableError("nobody answers")
    append, full = RecordingSink.append, threading.Event()

    def filling(self: RecordingSink, run: str, frames: Any, *args: Any, **options: Any) -> int:
        if frames and full.is_set():
            raise StoreFullError("no space left")
        return append(self, run, frames, *args, **options)

    monkeypatch.setattr(RecordingSink, "append", filling)
    sender = started(home, tmp_path / RUN, held=10)
    for step in range(1, 31):
        sender.emit(frame(step))
    until(lambda: sender.spooled_frames == 30, "the spool")
    full.set()
    for step in range(31, 61):
        sender.emit(frame(step))
    until(lambda: "no space left" in (sender.last_error or ""), "a full disk")
    home.refuse = None
    assert sender.flush() and sender.close()
    assert steps(home) == list(range(1, 61))
    assert (sender.sent_frames, sender.dropped_frames) == (60, 0)
