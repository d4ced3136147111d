"""A run on disk: what was written is read back, what is damaged is read as far as it is sound."""

from __future__ import annotations

import errno
import math
import mmap
from pathlib import Path

import numpy as np
import pytest
from otoscope.store import (
    Column,
    DamagedRecordingError,
    Event,
    Frame,
    MemoryHome,
    Schema,
    StoreFullError,
    StoreUnavailableError,
    StreamName,
    connect,
    places,
    recording_sink,
)
from otoscope.store.connecting import open_sink
from otoscope.store.recording import RecordingSink, is_recording, read_recording
from otoscope.store.redis_home import RedisHome
from otoscope.store.replaying import replay

RUN = "disk-01"
SCHEMA = Schema("train", (Column.of("loss"), Column.of("lr")))


def frame(step: int, rank: int = 0, attempt: int = 1) -> Frame:
    values = np.array([math.nan if step == 2 else step, 0.1], np.float32)
    return Frame("train", rank, attempt, step, 1e9 + step, SCHEMA.hash, values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / RUN
    sink = RecordingSink(folder, RUN)
    assert sink.begin_attempt(RUN) == 1
    sink.write_meta(RUN, {"name": "disk", "heartbeat": {"0": 5.0}})
    sink.add_schema(RUN, SCHEMA)
    event = Event("started", id="e1")
    assert sink.append(RUN, [frame(step) for step in (1, 2, 3)], [event]) == 0
    assert sink.append(RUN, [frame(3), frame(4)], [event], resent=True) == 1
    sink.append(RUN, [frame(1, rank=1)], [], {"heartbeat": {"1": 6.0}})
    sink.close()
    return folder


def test_what_was_recorded_is_read_back(folder: Path) -> None:
    recording = read_recording(folder)
    home = recording.home
    assert (recording.run, recording.damage) == (RUN, [])
    assert home.streams(RUN) == [StreamName("train", 0, 1), StreamName("train", 1, 1)]
    frames = home.frames(RUN, StreamName("train", 0, 1))
    assert [item.step for item in frames] == [1, 2, 3, 4]
    assert frames[0].time == 1e9 + 1
    assert np.isnan(frames[1].values[0])
    assert home.meta(RUN).heartbeat == {"0": 5.0, "1": 6.0}
    assert [event.id for _, event in home.events(RUN)] == ["e1"]


def test_a_second_process_goes_on_in_the_same_folder(folder: Path) -> None:
    sink = RecordingSink(folder, RUN)
    assert sink.begin_attempt(RUN) == 2
    sink.add_schema(RUN, SCHEMA)
    sink.append(RUN, [frame(3, attempt=2)])
    sink.close()
    store = connect(folder)
    assert store.read(RUN, "train", ["loss"]).steps.tolist() == [1, 2, 3]
    assert store.meta(RUN).name == "disk"


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_file_that_is_cut_short_is_read_as_far_as_it_goes(folder: Path, cut: int) -> None:
    path = folder / "0-1-0.spool"
    path.write_bytes(path.read_bytes()[:-cut])
    recording = read_recording(folder)
    frames = recording.home.frames(RUN, StreamName("train", 0, 1))
    assert [item.step for item in frames] == [1, 2, 3]
    assert "0-1-0.spool: cut short" in recording.damage[0] and "at byte 150" in recording.damage[0]
    assert connect(folder).damage == recording.damage


def test_a_flipped_bit_is_found_and_named(folder: Path) -> None:
    path = folder / "0-1-0.spool"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 20] ^= 1
    path.write_bytes(bytes(data))
    recording = read_recording(folder)
    assert len(recording.home.frames(RUN, StreamName("train", 0, 1))) < 4
    assert "0-1-0.spool" in recording.damage[0]


def test_a_folder_without_a_recording_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="neither a URL nor the folder"):
        connect(tmp_path)
    (tmp_path / "meta.json").write_text("[1, 2]")
    with pytest.raises(DamagedRecordingError, match="no recording"):
        connect(tmp_path)
    for text in ("{broken", "[" * 100_000):
        (tmp_path / "meta.json").write_text(text)
        with pytest.raises(DamagedRecordingError, match="cannot read"):
            connect(tmp_path)


@pytest.mark.parametrize(
    "text", ['{"args": ["--lr", "0.1"]}', '{"run": "exp-1", "config": {"lr": 0.1}}', "3", "[1, 2]"]
)
def test_a_folder_with_another_tools_meta_is_no_recording_and_says_so(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "meta.json").write_text(text)
    assert not is_recording(tmp_path)
    with pytest.raises(DamagedRecordingError, match="not one that Otoscope wrote"):
        connect(tmp_path)


def test_a_recording_is_one_from_its_first_write_on(tmp_path: Path) -> None:
    RecordingSink(tmp_path, RUN).begin_attempt(RUN)
    assert is_recording(tmp_path)


def test_an_event_of_brackets_without_end_is_left_out_and_said(folder: Path) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.write("[" * 100_000 + "\n")
    store = connect(folder)
    assert [event.id for event in store.events(RUN)] == ["e1"]
    assert "line 2" in store.damage[0]


def test_a_recording_is_taken_into_a_home_once(folder: Path) -> None:
    home = MemoryHome()
    assert (replay(folder, home).samples, replay(folder, home).samples) == (5, 0)
    assert [event.id for _, event in home.events(RUN)] == ["e1"]
    assert home.meta(RUN).name == "disk"


@pytest.mark.redis
def test_a_recording_is_taken_into_redis_once(folder: Path, redis_url: str) -> None:
    home = RedisHome(redis_url)
    home.delete(RUN)
    try:
        assert (replay(folder, home).samples, replay(folder, home).samples) == (5, 0)
        assert home.meta(RUN) == read_recording(folder).home.meta(RUN)
        assert len(home.frames(RUN, StreamName("train", 0, 1))) == 4
    finally:
        home.delete(RUN)


def test_without_a_server_a_run_goes_to_disk_and_is_remembered(tmp_path: Path) -> None:
    sink = open_sink(None, RUN, tmp_path / RUN)
    assert isinstance(sink, RecordingSink)
    assert places.recordings() == [(tmp_path / RUN).resolve()]


def test_a_url_in_the_environment_comes_before_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTOSCOPE_URL", "redis://127.0.0.1:1/0")
    sink = open_sink(None, RUN, tmp_path / RUN)
    assert isinstance(sink, RedisHome)
    assert not (tmp_path / RUN).exists()


def test_the_numbers_of_an_opened_folder_stay_in_its_files(folder: Path) -> None:
    found = connect(folder).home.frames(RUN, StreamName("train", 0, 1))[-1]
    assert isinstance(found.values.base, memoryview)
    assert isinstance(found.values.base.obj, mmap.mmap)
    assert found.values.tolist() == pytest.approx([4.0, 0.1])
    copied = read_recording(folder).home.frames(RUN, StreamName("train", 0, 1))[-1]
    assert isinstance(copied.values.base, bytes)


def test_a_schema_that_a_full_disk_refused_is_written_when_it_is_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = RecordingSink(tmp_path / RUN, RUN)
    monkeypatch.setattr(recording_sink, "_replace", refuse)
    with pytest.raises(StoreFullError):
        sink.add_schema(RUN, SCHEMA)
    monkeypatch.undo()
    sink.add_schema(RUN, SCHEMA)
    sink.append(RUN, [frame(1)])
    sink.close()
    assert read_recording(tmp_path / RUN).home.schemas(RUN) == {SCHEMA.hash: SCHEMA}


def test_news_of_a_run_do_not_rewrite_its_meta_each_time_and_are_there_at_the_end(
    tmp_path: Path,
) -> None:
    sink = RecordingSink(tmp_path / RUN, RUN)
    sink.write_meta(RUN, {"name": "x", "heartbeat": {"0": 1.0}})
    for second in range(2, 5):
        sink.write_meta(RUN, {"heartbeat": {"0": float(second)}})
        assert '"heartbeat":{"0":1.0}' in (tmp_path / RUN / "meta.json").read_text()
    sink.close()
    assert read_recording(tmp_path / RUN).home.meta(RUN).heartbeat == {"0": 4.0}


def refuse(path: Path, text: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
