"""The sender's bounds: a slow store, a frame that nothing can write, what `flush` may not miss."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any

from otoscope.callbacks.outbox import Item, Outbox
from otoscope.callbacks.ranks import OtherRank, _machine
from otoscope.callbacks.sender import Sender
from otoscope.store import MemoryHome, StoreUnavailableError

from tests.callbacks.flaky import RUN, SCHEMA, Flaky, frame, started, steps, until


def test_a_store_that_is_slower_than_the_training_fills_the_disk_and_not_the_memory(
    tmp_path: Path,
) -> None:
    class Slow(MemoryHome):
        """Answers its second call once it is told to, and every call with success."""

        def __init__(self) -> None:
            super().__init__()
            self.calls, self.goes_on = 0, threading.Event()

        def append(self, *args: Any, **options: Any) -> int:
            self.calls += 1
            if self.calls == 2:
                self.goes_on.wait(30)
            return super().append(*args, **options)

    home = Slow()
    sender = started(home, tmp_path / RUN, held=50)
    until(lambda: home.calls == 1, "the first batch")
    sender.emit(frame(1))
    until(lambda: home.calls == 2, "a call that takes long")
    for step in range(2, 1201):
        sender.emit(frame(step))
    waited: list[int] = []
    sender.delivery.tend = lambda sink: waited.append(sender.spooled_frames)
    home.goes_on.set()
    assert sender.flush(30) and sender.close()
    assert max(waited) > 0  # although no call failed
    assert steps(home) == list(range(1, 1201))
    assert (sender.sent_frames, sender.dropped_frames) == (1200, 0)
    assert not (tmp_path / RUN).exists()


def test_a_frame_that_cannot_be_written_to_disk_is_counted_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    home = Flaky()
    home.refuse = StoreUnavailableError("nobody answers")
    sender = started(home, tmp_path / RUN, held=5)
    wrong = frame(1)
    wrong.schema = "no hexadecimal16"
    sender.emit(wrong)
    for step in range(2, 31):
        sender.emit(frame(step))
    until(lambda: sender.dropped_frames > 0, "the loss")
    lost = sender.dropped_frames
    for step in range(31, 61):
        sender.emit(frame(step))
    until(lambda: sender.queue_frames == 0, "what comes behind it on disk")
    assert sender.spooled_frames == 60 - lost
    home.refuse = None
    assert sender.flush(20) and sender.close()
    assert steps(home) == list(range(lost + 1, 61))
    assert sender.dropped_frames == lost < 31


def test_something_waits_while_a_batch_is_put_together() -> None:
    outbox = Outbox(10)
    seen: list[bool] = []

    class Watched(deque[Item]):
        def popleft(self) -> Item:
            item = super().popleft()
            seen.append(outbox.waits)  # what `flush` asks meanwhile
            return item

    outbox.queue = Watched([SCHEMA, frame(1), frame(2)])
    assert len(outbox.next_batch().frames) == 2
    assert seen == [True] * 3


def test_a_rank_that_learnt_its_run_late_leaves_no_folder_behind(tmp_path: Path) -> None:
    home = MemoryHome()
    rank = OtherRank(1, tmp_path / "spool", "ab12")
    sender = Sender(
        rank.provisional.run,
        lambda: home,
        rank.provisional.spool,
        held=5,
        linger=0.01,
        identify=rank,
    )
    sender.emit(SCHEMA)
    for step in range(1, 31):
        sender.emit(frame(step))
    sender.start()
    until(lambda: sender.spooled_frames == 30, "the spool")
    home.tell_job("ab12", f"{RUN} 1 9e9 {_machine()}")
    assert sender.flush(20) and sender.close()
    assert steps(home) == list(range(1, 31))
    assert list((tmp_path / "spool").iterdir()) == []
