"""Replaying: a recording goes into a home as if it had trained there, whatever state it is in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics import Daemon, judge, summary
from otoscope.store import Column, Event, Frame, MemoryHome, Schema, Store, StreamName, connect
from otoscope.store import replaying as module
from otoscope.store.buckets import TIERS
from otoscope.store.frames import decode_id
from otoscope.store.recording import RecordingSink
from otoscope.store.replaying import replay
from otoscope.store.retention import RAW_FRAMES
from otoscope.store.rollups import Rollups

from tests.cli.conftest import record

RUN = "replayed-01"
SCHEMAS = {name: Schema(name, (Column.of("loss"), Column.of("lr"))) for name in ("train", "noise")}


def frame(step: int, rank: int = 0, attempt: int = 1, family: str = "train") -> Frame:
    values = np.array([step, rank], np.float32)
    time = 1e9 + step + rank / 10
    return Frame(family, rank, attempt, step, time, SCHEMAS[family].hash, values)


def opened(folder: Path, run: str = RUN) -> RecordingSink:
    sink = RecordingSink(folder, run)
    for schema in SCHEMAS.values():
        sink.add_schema(run, schema)
    return sink


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two ranks of 100 steps, events among them, ended."""
    sink = opened(tmp_path / RUN)
    sink.begin_attempt(RUN)
    sink.write_meta(RUN, {"name": "replayed", "world_size": 2, "started": 1e9})
    for rank in (0, 1):
        sink.append(RUN, [frame(step, rank) for step in range(1, 101)])
    events = [Event("started", t=1e9, id="s"), Event("lr", 50, t=1e9 + 50.5, id="l")]
    ended = {"attempt": 1, "how": "finished", "t": 1e9 + 101, "reason": "max_steps"}
    sink.append(RUN, [], events, {"heartbeat": {"0": 1e9 + 100, "1": 1e9 + 99}, "ended": ended})
    sink.close()
    return tmp_path / RUN


class Watched(MemoryHome):
    """A home that keeps what it was told, in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[object] = []

    def append(self, run, frames, events=(), fields=None, *, resent=False, buckets=()):
        self.told += sorted([*frames, *events], key=lambda item: getattr(item, "step", 0))
        return super().append(run, frames, events, fields, resent=resent, buckets=buckets)

    def write_meta(self, run, fields):
        self.told += [name for name in fields if name == "ended"]
        super().write_meta(run, fields)


def test_samples_and_events_go_in_by_their_time_and_the_end_is_told_last(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 20)
    home = Watched()
    done = replay(folder, home)

    kinds = [item.kind if isinstance(item, Event) else item for item in home.told]
    ranks = [item.rank for item in home.told[:40] if isinstance(item, Frame)]
    assert (done.samples, done.events, done.damage) == (200, 2, [])
    assert kinds[0] == "started"
    assert 90 < kinds.index("lr") < 125
    assert kinds[-1] == "ended"
    assert sorted(set(ranks)) == [0, 1]


def test_an_interrupted_replay_is_gone_on_with_and_a_third_changes_nothing(folder: Path) -> None:
    class Failing(MemoryHome):
        left = 3

        def append(self, *args, **keywords):
            self.left -= 1
            if self.left < 0:
                raise ConnectionError
            return super().append(*args, **keywords)

    home = Failing()
    module_size, module.FRAMES_AT_ONCE = module.FRAMES_AT_ONCE, 20
    try:
        with pytest.raises(ConnectionError):
            replay(folder, home)
        assert home.meta(RUN).ended is None
        home.left = 10**6
        assert replay(folder, home).samples == 200 - 3 * 20
    finally:
        module.FRAMES_AT_ONCE = module_size
    seen = home.run_ids()
    assert (replay(folder, home).samples, home.run_ids()) == (0, seen)
    assert [e.id for _, e in home.events(RUN)] == ["s", "l"]
    assert home.meta(RUN).ended == {
        **{"attempt": 1, "how": "finished"},
        **{"t": 1e9 + 101, "reason": "max_steps"},
    }


def test_a_run_that_is_recorded_meanwhile_is_taken_in_twice_without_a_hole(tmp_path: Path) -> None:
    sink, home = opened(tmp_path / RUN), MemoryHome()
    sink.begin_attempt(RUN)
    sink.append(RUN, [frame(step) for step in range(1, 31)])
    with (tmp_path / RUN / "0-1-0.spool").open("ab") as file:
        file.write(b"\x20\x00\x00")  # a record that is being written
    first = replay(tmp_path / RUN, home)
    os.truncate(tmp_path / RUN / "0-1-0.spool", 30 * 50)
    sink.append(RUN, [frame(step) for step in range(31, 61)])
    sink.close()
    second = replay(tmp_path / RUN, home)

    assert (first.samples, first.growing, second.samples) == (30, True, 30)
    assert "may be written right now" in first.damage[0]
    assert second.damage == []
    steps = [item.step for item in home.frames(RUN, StreamName("train", 0, 1))]
    assert steps == list(range(1, 61))


@pytest.mark.parametrize("already", [0, 37])
def test_what_is_taken_in_is_rolled_up_as_the_sender_does_it(folder: Path, already: int) -> None:
    home, live, stream = MemoryHome(), Rollups(), StreamName("train", 0, 1)
    frames = [frame(step) for step in range(1, 101)]
    before = Rollups()
    home.append(RUN, frames[:already], buckets=before.take(frames[:already]))
    replay(folder, home)

    expected = live.take(frames)
    for tier in TIERS[:2]:
        found = home.buckets(RUN, stream, tier)
        wanted = [bucket for bucket in expected if bucket.tier == tier]
        assert [bucket.id for bucket in found] == [bucket.id for bucket in wanted]
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.values, other.values)
    assert len(home.buckets(RUN, stream, TIERS[0])) == 12


def test_what_is_beyond_the_caps_is_cut_but_stays_in_the_rollups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = 256
    monkeypatch.setattr(module, "KEPT_SHARE", kept / RAW_FRAMES)
    sink, home = opened(tmp_path / RUN), MemoryHome()
    sink.begin_attempt(RUN)
    sink.append(RUN, [frame(step) for step in range(1, 2001)])
    sink.close()
    replay(tmp_path / RUN, home)

    stream = StreamName("train", 0, 1)
    assert kept // 2 <= len(home.frames(RUN, stream)) <= kept
    assert home.frames(RUN, stream)[-1].step == 2000
    assert home.buckets(RUN, stream, TIERS[0])[0].step <= 8
    assert replay(tmp_path / RUN, home).samples == 0


def test_a_folder_with_the_beginning_of_a_run_does_not_undo_what_came_later(folder: Path) -> None:
    home = MemoryHome()
    home.write_meta(RUN, {"attempt": 2, "name": "later", "heartbeat": {"0": 2e9}})
    done = replay(folder, home)

    assert done.samples == 200
    assert (home.meta(RUN).attempt, home.meta(RUN).name) == (2, "later")
    assert home.meta(RUN).ended is None


# -- damage: what is sound comes in, and the rest is named by file, byte and what ---------------


def put(path: Path, place: int, data: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[place : place + len(data)] = data
    path.write_bytes(bytes(whole))


RECORD = 50


def cut(path: Path) -> None:
    os.truncate(path, 40 * RECORD + 9)


def zeros(path: Path) -> None:
    put(path, 60 * RECORD, bytes(40 * RECORD))


def flip(path: Path) -> None:
    put(path, 10 * RECORD + 20, bytes([path.read_bytes()[10 * RECORD + 20] ^ 4]))


def lose_the_place(path: Path) -> None:
    put(path, 20 * RECORD, b"\xff\xff\xff\xff")


def other_file(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(500))


@pytest.mark.parametrize(
    ("damage", "left", "said"),
    [
        (cut, 40, "0-1-0.spool: cut short (9 of 50 bytes of a record) at byte 2000; 40 samples"),
        (zeros, 60, "0-1-0.spool: nothing but zeros (2000 bytes, after a power cut?) at byte 3000"),
        (flip, 99, "0-1-0.spool: the checksum does not match at byte 500; 10 samples before"),
        (lose_the_place, 20, "0-1-0.spool: no record begins at byte 1000; 20 samples before"),
        (other_file, 0, "0-1-0.spool: this is no spool file: no record begins at byte 0"),
    ],
)
def test_a_damaged_spool_file_is_read_as_far_as_it_is_sound(
    folder: Path, damage, left: int, said: str
) -> None:
    damage(folder / "0-1-0.spool")
    home = MemoryHome()
    done = replay(folder, home)

    assert done.samples == 100 + left
    assert len(done.damage) == 1
    assert done.damage[0].startswith(said)
    assert replay(folder, home).samples == 0


def change_schema(folder: Path) -> str:
    rows = json.loads((folder / "schema.json").read_text())
    name = SCHEMAS["train"].hash
    rows[name] = rows[name].replace("loss", "gain")
    (folder / "schema.json").write_text(json.dumps(rows))
    return f"schema.json: schema {name} was changed, its hash is"


def drop_schema(folder: Path) -> str:
    (folder / "schema.json").unlink()
    return "schema.json: missing"


def break_schema(folder: Path) -> str:
    (folder / "schema.json").write_text('{"a": ')
    return "schema.json: no JSON at byte 6"


@pytest.mark.parametrize("damage", [change_schema, drop_schema, break_schema])
def test_samples_whose_columns_are_not_known_for_sure_are_left_out_and_counted(
    folder: Path, damage
) -> None:
    said = damage(folder)
    home = MemoryHome()
    done = replay(folder, home)

    assert done.samples == 0
    assert done.damage[0].startswith(said)
    assert f"0-1-0.spool: 100 samples left out, their schema {SCHEMAS['train'].hash}" in str(
        done.damage
    )
    assert [e.id for _, e in home.events(RUN)] == ["s", "l"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "meta.json: missing"),
        ("{,", "meta.json: no JSON at byte 1"),
        ('{"name": "x"}', "meta.json: no run id, got ''"),
        ('{"run": "Not An Id"}', "meta.json: no run id, got 'Not An Id'"),
        ('{"run": "replayed-01", "attempt": "many", "heartbeat": [1]}', "attempt cannot be 'many'"),
    ],
)
def test_without_a_sound_meta_the_samples_come_in_under_the_name_of_the_folder(
    folder: Path, text: str | None, said: str
) -> None:
    (folder / "meta.json").unlink()
    if text is not None:
        (folder / "meta.json").write_text(text)
    home = MemoryHome()
    done = replay(folder, home)

    assert (done.run, done.samples) == (RUN, 200)
    assert said in "".join(done.damage)
    assert [run for run, _ in home.run_ids()] == [RUN]


def test_a_line_of_events_that_is_none_is_named_by_line_and_byte(folder: Path) -> None:
    path = folder / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"kind": \n' + b"[3]\n" + b"\xff\xfe\n" + lines[1])
    home = MemoryHome()
    done = replay(folder, home)

    at = len(lines[0])
    assert [e.id for _, e in home.events(RUN)] == ["s", "l"]
    assert [line.partition(" cannot")[0] for line in done.damage] == [
        f"events.jsonl: line 2 at byte {at}",
        f"events.jsonl: line 3 at byte {at + 10}",
        f"events.jsonl: line 4 at byte {at + 14}",
    ]


def test_a_file_that_cannot_be_opened_is_named_and_the_others_are_read(folder: Path) -> None:
    (folder / "0-1-0.spool").unlink()
    (folder / "0-1-0.spool").mkdir()  # no user, not even root, can read a folder as a file
    done = replay(folder, MemoryHome())

    assert done.samples == 100
    assert done.damage == ["0-1-0.spool: cannot be read (Is a directory)"]


def test_ids_stay_in_order_in_the_home(folder: Path) -> None:
    home = MemoryHome()
    replay(folder, home)
    places = [decode_id(place) for place, _ in home.events(RUN)]

    assert places == sorted(places)


def test_a_daemon_that_watches_a_replay_finds_what_a_judgement_of_the_folder_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRAMES_AT_ONCE", 40)
    folder = record(tmp_path / RUN, RUN, steps=600, bad_from=350)
    home = MemoryHome()
    daemon = Daemon(home, heartbeat=tmp_path / "beat")

    def watch(done: int, of: int) -> None:
        daemon.tick()

    replay(folder, home, watch)
    while daemon.tick():
        pass

    expected = judge(connect(folder), RUN)
    found = summary(Store(home), RUN)
    assert [item["rule"] for item in expected["findings"]] == ["non_finite"]
    assert found["findings"] == expected["findings"]
    assert (found["verdict"], found["judged"]) == (expected["verdict"], expected["judged"])
