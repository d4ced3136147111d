"""How ranks find each other: the job key, the token, what rank 0 tells and what is too old."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from otoscope.callbacks import ranks
from otoscope.callbacks.ranks import FirstRank, OtherRank, job_key, leave_token
from otoscope.callbacks.sender import Sender
from otoscope.store import Column, Frame, MemoryHome, Schema, Store, StoreUnavailableError
from otoscope.store.connecting import connect, open_sink
from otoscope.store.jobs import JOB_SECONDS, read_job, write_job
from otoscope.store.places import recordings
from otoscope.store.recording import RecordingSink
from otoscope.store.replaying import replay

ELASTIC = {"TORCHELASTIC_RUN_ID": "a1", "TORCHELASTIC_RESTART_COUNT": "0", "MASTER_PORT": "29500"}
SLURM = {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "MASTER_PORT": "29500"}
UNNAMED = {**ELASTIC, "TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "node-1"}
ADDRESS = {"MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}
TOKEN = {**ADDRESS, "OTOSCOPE_JOB_TOKEN": "12-ab"}
ASKED = {"OTOSCOPE_JOB": "my job"}
SCHEMA = Schema("train", (Column.of("loss", ranks="mean"),))


@pytest.mark.parametrize("job", [ELASTIC, SLURM, UNNAMED, ADDRESS, TOKEN, ASKED, {}])
def test_the_ranks_of_a_job_have_one_key(job: dict[str, str]) -> None:
    environments = [{**job, "RANK": str(n), "LOCAL_RANK": str(n), "PWD": f"/{n}"} for n in (0, 7)]
    keys = {job_key(environment, 1, parent=5) for environment in environments}
    assert len(keys) == 1
    assert all(len(key) == 32 for key in keys)


def test_jobs_restarts_and_fits_have_keys_of_their_own() -> None:
    jobs = [
        *(ELASTIC, SLURM, UNNAMED, ADDRESS, TOKEN, ASKED, {}),
        {**ELASTIC, "TORCHELASTIC_RESTART_COUNT": "1"},
        {**ELASTIC, "TORCHELASTIC_RUN_ID": "a2"},
        {**UNNAMED, "MASTER_ADDR": "node-2"},
        {**SLURM, "SLURM_STEP_ID": "1"},
        {**SLURM, "SLURM_RESTART_COUNT": "1"},
        {**SLURM, "MASTER_PORT": "29501"},
        {**ADDRESS, "MASTER_PORT": "29501"},
        {**TOKEN, "OTOSCOPE_JOB_TOKEN": "13-ab"},
        {"OTOSCOPE_JOB": "another"},
    ]
    keys = [job_key(job, fit, parent=5) for job, fit in itertools.product(jobs, (1, 2))]
    keys.append(job_key({}, 1, parent=6))
    assert len(set(keys)) == len(keys)


def test_a_token_serves_the_ranks_of_one_machine_alone() -> None:
    other = {**TOKEN, "OTOSCOPE_JOB_TOKEN": "13-cd"}
    assert job_key(TOKEN, 1) != job_key(other, 1)
    assert job_key(TOKEN, 1, one_node=False) == job_key(other, 1, one_node=False)


def test_the_loopback_of_each_machine_is_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for host, address in itertools.product(("a", "b"), ("localhost", "127.0.0.1", "::1")):
        monkeypatch.setattr(ranks.socket, "gethostname", lambda host=host: host)
        keys.add(job_key({"MASTER_ADDR": address, "MASTER_PORT": "1"}, 1))
    assert len(keys) == 2


def test_a_process_leaves_its_own_token_and_a_launched_rank_keeps_the_one_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv(ranks.TOKEN, "1-of-the-sweep")
    leave_token()
    own = os.environ[ranks.TOKEN]
    assert own.startswith(f"{os.getpid()}-")
    leave_token()
    assert os.environ[ranks.TOKEN] == own
    monkeypatch.setenv(ranks.TOKEN, "1-of-rank-0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    leave_token()
    assert os.environ[ranks.TOKEN] == "1-of-rank-0"


def test_other_ranks_learn_run_and_attempt_from_rank_0(tmp_path: Path) -> None:
    home = MemoryHome()
    home.begin_attempt("net-1")
    first = FirstRank("net-1", tmp_path / "net-1", "key")(home)
    other = OtherRank(3, tmp_path, "key")(home)
    assert (first.run, first.attempt) == (other.run, other.attempt) == ("net-1", 2)
    assert other.spool == tmp_path / "net-1" / "rank-3"


def test_a_rank_that_was_told_nothing_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(StoreUnavailableError, match=r"rank 3 waits .* set OTOSCOPE_JOB"):
        OtherRank(3, tmp_path, "key")(MemoryHome())


def test_what_an_earlier_job_told_under_the_same_key_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "PATIENCE_SECONDS", 0.0)
    home = MemoryHome()
    begun = ranks.process_started()
    assert time.time() - 3600 < begun <= time.time()
    for seconds, machine, counts in [
        (-5.0, ranks._machine(), False),  # of a job before this process
        (+5.0, ranks._machine(), True),
        (-5.0, "another/boot", True),  # its clock may differ
        (-400.0, "another/boot", False),
    ]:
        home.tell_job("key", f"net-1 1 {begun + seconds} {machine}")
        if counts:
            assert OtherRank(1, tmp_path, "key")(home).run == "net-1"
        else:
            with pytest.raises(StoreUnavailableError):
                OtherRank(1, tmp_path, "key")(home)


def test_without_a_server_ranks_meet_in_the_folder_of_recordings(tmp_path: Path) -> None:
    spool = tmp_path / "net-1"
    FirstRank("net-1", spool, "key")(RecordingSink(spool, "net-1"))
    sink = OtherRank(1, tmp_path, "key").open_sink(None)
    assert isinstance(sink, RecordingSink)
    assert (sink.directory, sink.run) == (spool / "rank-1", "net-1")
    assert not (tmp_path / "otoscope-home" / "recordings.json").exists()  # rank 0's is registered


def test_keys_of_yesterday_are_swept_from_the_folder(tmp_path: Path) -> None:
    write_job(tmp_path, "old", "net-1 1 0 here")
    long_ago = time.time() - JOB_SECONDS - 10
    os.utime(tmp_path / ".jobs" / "old", (long_ago, long_ago))
    write_job(tmp_path, "new", "net-2 1 0 here")
    assert (read_job(tmp_path, "old"), read_job(tmp_path, "new")) == (None, "net-2 1 0 here")


def frame(rank: int, step: int) -> Frame:
    return Frame("train", rank, 1, step, 1e9, SCHEMA.hash, np.ones(1, np.float32))


def test_a_rank_keeps_its_frames_until_rank_0_tells_which_run_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "PATIENCE_SECONDS", 0.02)
    home = MemoryHome()
    other = OtherRank(1, tmp_path, "key")
    place = other.provisional
    sender = Sender(place.run, lambda: home, place.spool, identify=other, linger=0.01, held=10)
    sender.emit(SCHEMA)
    sender.start()
    for step in range(1, 41):  # more than is held in memory
        sender.emit(frame(1, step))
    end = time.monotonic() + 20
    while not sender.spooled_frames:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not sender.identified
    assert home.run_ids() == []
    FirstRank("net-1", tmp_path / "net-1", "key")(home)
    assert sender.flush(20)
    sender.emit(frame(1, 41))
    assert sender.close(10)
    (stream,) = home.streams("net-1")
    assert [frame.step for frame in home.frames("net-1", stream)] == list(range(1, 42))
    assert (sender.run, sender.attempt, sender.dropped_frames) == ("net-1", 1, 0)
    assert not list(tmp_path.rglob("*.spool"))


class Away(MemoryHome):
    """A server that never answers."""

    def begin_attempt(self, run: str) -> int:
        raise StoreUnavailableError("away")

    def job(self, job: str) -> str | None:
        raise StoreUnavailableError("away")


def test_what_ranks_recorded_while_the_server_was_away_comes_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "PATIENCE_SECONDS", 0.0)
    first = FirstRank("net-1", tmp_path / "net-1", "key")
    for rank, identify in ((0, first), (1, OtherRank(1, tmp_path, "key"))):
        place = identify.provisional
        sender = Sender(place.run, Away, place.spool, identify=identify, linger=0.01)
        sender.emit(SCHEMA)
        sender.emit({"name": "net", "world_size": 2} if rank == 0 else {"left": {"1": 5.0}})
        for step in (1, 2, 3):
            sender.emit(frame(rank, step))
        sender.start()
        sender.close(0.3)
    home = MemoryHome()
    for folder in recordings():
        replay(folder, home)
    assert [run for run, _ in home.run_ids()] == ["net-1"]
    assert [len(home.frames("net-1", stream)) for stream in home.streams("net-1")] == [3, 3]
    assert Store(home).meta("net-1").left == {"1": 5.0}


def test_an_attempt_is_begun_once_although_it_could_not_be_told_at_first(tmp_path: Path) -> None:
    class Deaf(MemoryHome):
        deaf = True

        def tell_job(self, job: str, text: str) -> None:
            if self.deaf:
                raise StoreUnavailableError("lost")
            super().tell_job(job, text)

    home = Deaf()
    identify = FirstRank("net-1", tmp_path / "net-1", "key")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            identify(home)
    home.deaf = False
    assert identify(home).attempt == 1
    assert home.begin_attempt("net-1") == 2


def test_what_every_rank_recorded_is_read_and_replayed_as_one_run(tmp_path: Path) -> None:
    folder = tmp_path / "net-1"
    for rank, place in ((0, folder), (1, folder / "rank-1")):
        sink = RecordingSink(place, "net-1")
        told = {"name": "net", "world_size": 2} if rank == 0 else {}
        sink.write_meta("net-1", {**told, "attempt": 1, "heartbeat": {str(rank): 5.0 + rank}})
        sink.add_schema("net-1", SCHEMA)
        sink.append("net-1", [frame(rank, step) for step in (1, 2, 3)])
        sink.close()
    store = connect(folder)
    assert store.damage == []
    assert [(s.rank, s.family) for s in store.home.streams("net-1")] == [(0, "train"), (1, "train")]
    assert store.meta("net-1").heartbeat == {"0": 5.0, "1": 6.0}
    home = MemoryHome()
    # what a rank left behind on its own, on another machine, goes into the run that is there
    for folder_of_one in (folder / "rank-1", folder, folder):
        replay(folder_of_one, home)
    assert Store(home).meta("net-1").name == "net"
    assert [len(home.frames("net-1", stream)) for stream in home.streams("net-1")] == [3, 3]


def test_a_process_tells_when_it_started(tmp_path: Path) -> None:
    before = time.time()
    code = "from otoscope.store.places import process_started as p; print(p())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert before - 0.05 <= float(told.stdout) <= time.time()


@pytest.mark.redis
def test_a_server_remembers_a_job_for_a_day(redis_url: str, tmp_path: Path) -> None:
    sink = open_sink(redis_url, "net-1", tmp_path)
    key = f"test-{os.getpid()}"
    assert sink.job(key) is None  # type: ignore[attr-defined]
    sink.tell_job(key, "net-1 2 0 here")  # type: ignore[attr-defined]
    assert sink.job(key) == "net-1 2 0 here"  # type: ignore[attr-defined]
    left = sink._client.ttl(f"otoscope:job:{key}")  # type: ignore[attr-defined]
    assert 0 < left <= JOB_SECONDS
    sink.close()
