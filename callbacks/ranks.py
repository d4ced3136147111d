"""Ranks: how the processes of one job agree on the run that they record, without a collective.

Every rank works out the same job key from what its launcher put into the environment. Rank 0
writes "<run> <attempt>" under it, into the server or beside the recordings; the others wait for it
in their sender's thread, with their frames in the queue.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..store import Sink, StoreError, StoreUnavailableError
from ..store.connecting import default_url, open_sink
from ..store.jobs import UNTOLD, Jobs, read_job, write_job
from ..store.places import boot_id, process_started
from ..store.recording import RecordingSink, is_of_others

JOB = "OTOSCOPE_JOB"
"""Set by a person where ranks cannot tell that they belong together: any text, equal on all."""
TOKEN = "OTOSCOPE_JOB_TOKEN"
"""Set by us in the process that launches the other ranks of its machine; they inherit it."""

SKEW_SECONDS = 300.0
"""How far the clocks of two machines may differ."""

PATIENCE_SECONDS = 1.0
"""Rank 0's sender begins within a quarter of a second: worth no warning that it has not yet."""

_fits = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """What a sender writes under: the run, the attempt, and the folder for what waits on disk."""

    run: str
    attempt: int
    spool: Path


def leave_token() -> None:
    """Leave a token for the ranks that this process may launch.

    A process that was itself launched as a rank keeps the token that it inherited. One that is no
    rank makes its own: a sweep's children shall not take their parent's.
    """
    process = multiprocessing.current_process()
    # a spawned child has no parent yet while it imports the script and unpickles the callback
    spawned = getattr(process, "_inheriting", False) or multiprocessing.parent_process() is not None
    launched = spawned or "LOCAL_RANK" in os.environ
    if not launched and not os.environ.get(TOKEN, "").startswith(f"{os.getpid()}-"):
        os.environ[TOKEN] = f"{os.getpid()}-{secrets.token_hex(8)}"


def next_fit() -> int:
    """Return the number of this fit in this process: two fits of one script are two runs."""
    global _fits
    _fits += 1
    return _fits


def job_of_this_fit(one_node: bool) -> str:
    """Return the job key of the fit that begins now in this process."""
    return job_key(os.environ, next_fit(), one_node=one_node, parent=os.getppid())


def job_key(
    environment: Mapping[str, str], fit: int, *, one_node: bool = True, parent: int = 0
) -> str:
    """Return what the ranks of a job have in common and no other job has, as 32 hex digits.

    Args:
        environment: as in `os.environ`.
        fit: the count of fits in the process.
        one_node: whether all ranks run on this machine.
        parent: id of the parent process, for ranks that were spawned by hand.

    >>> elastic = {"TORCHELASTIC_RUN_ID": "a1", "TORCHELASTIC_RESTART_COUNT": "0"}
    >>> job_key({**elastic, "RANK": "0"}, 1) == job_key({**elastic, "RANK": "7"}, 1)
    True
    >>> job_key({**elastic, "TORCHELASTIC_RESTART_COUNT": "1"}, 1) == job_key(elastic, 1)
    False
    """
    parts = [*_launcher(environment, one_node, parent), str(fit)]
    if JOB not in environment:
        parts.append(environment.get("MASTER_PORT", ""))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _launcher(environment: Mapping[str, str], one_node: bool, parent: int) -> list[str]:
    def named(*names: str) -> list[str]:
        return [environment.get(name, "") for name in names]

    if environment.get(JOB):
        return ["asked", environment[JOB]]
    if "TORCHELASTIC_RUN_ID" in environment:
        found = ["elastic", *named("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")]
        # "none" is what torchrun calls a job that nobody gave a name
        return [*found, _address(environment)] if found[1] == "none" else found
    if "SLURM_JOB_ID" in environment:
        names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return ["slurm", *named(*names)]
    if one_node and environment.get(TOKEN):
        return ["token", environment[TOKEN]]
    if environment.get("MASTER_ADDR"):
        return ["address", _address(environment)]
    return ["parent", socket.gethostname(), str(parent)]


def _address(environment: Mapping[str, str]) -> str:
    """Return where rank 0 listens; every machine has a loopback, so that one gets its name."""
    address = environment.get("MASTER_ADDR", "")
    here = address in ("", "localhost", "::1") or address.startswith("127.")
    return socket.gethostname() if here else address


class FirstRank:
    """Begins the attempt, and tells the other ranks of it; called by the sender's thread."""

    def __init__(self, run: str, spool: Path, job: str | None, attempt: int = 1) -> None:
        self.run, self.spool, self.job = run, spool, job
        self._begun = time.time()
        self._least = attempt
        self._attempt: int | None = None

    @property
    def provisional(self) -> Identity:
        """What is known before a store was asked: all but the attempt."""
        return Identity(self.run, self._least, self.spool)

    def __call__(self, sink: Sink) -> Identity:
        """Return run and attempt; raises a StoreError where the store does not answer."""
        try:
            if self._attempt is None:
                self._attempt = sink.begin_attempt(self.run)
            if self.job is not None and isinstance(sink, Jobs):
                sink.tell_job(self.job, self._told(self._attempt))
        except StoreError:
            if self.job is not None:  # what the ranks record meanwhile shall come together again
                write_job(self.spool.parent, self.job, self._told(self._attempt or self._least))
            raise
        if self.job is not None and not isinstance(sink, Jobs):
            write_job(self.spool.parent, self.job, self._told(self._attempt))
        return Identity(self.run, self._attempt, self.spool)

    def _told(self, attempt: int) -> str:
        return f"{self.run} {attempt} {self._begun:.3f} {_machine()}"


class OtherRank:
    """Waits for what rank 0 told; called by the sender's thread again and again.

    `root` is the folder that holds the recordings of all runs.
    """

    def __init__(self, rank: int, root: Path, job: str) -> None:
        self.rank, self.root, self.job = rank, root, job

    def open_sink(self, url: str | None) -> Sink:
        """Return the server, or without one a folder below that of rank 0, once it is known."""
        if url is None and default_url() is None:
            found = self._wait(lambda: read_job(self.root, self.job))
            return RecordingSink(found.spool, found.run)
        return open_sink(url, self.provisional.run, self.provisional.spool)

    def __call__(self, sink: Sink) -> Identity:
        """Return run and attempt; raises StoreUnavailableError while rank 0 has told none."""
        if isinstance(sink, Jobs):
            return self._wait(lambda: sink.job(self.job))
        return self._wait(lambda: read_job(self.root, self.job))

    def _wait(self, ask: Callable[[], str | None]) -> Identity:
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            told = ask()
            found = self._read(told) if told else None
            if found is not None:
                return found
            if time.monotonic() >= end:
                raise StoreUnavailableError(
                    f"rank {self.rank} waits to be told by rank 0 which run this is; where the "
                    f"ranks were started apart from each other, set {JOB} to one text for all"
                )
            time.sleep(0.05)

    @property
    def provisional(self) -> Identity:
        """Where to keep what cannot wait until the run is known."""
        run = f"{UNTOLD}{self.job}"
        return Identity(run, 1, self.root / run / f"rank-{self.rank}")

    def _read(self, told: str) -> Identity | None:
        """Read what rank 0 wrote; None where it was of an earlier job under the same key."""
        run, attempt, begun, machine = told.split()
        # ranks of a job meet before its rank 0 begins to record, so all of them live by then
        slack = 0.0 if machine == _machine() else SKEW_SECONDS
        if float(begun) + slack < process_started():
            return None
        return Identity(run, int(attempt), place_of(self.root, run) / f"rank-{self.rank}")


def place_of(root: Path, run: str) -> Path:
    """Return the folder of a run below `root`: beside its name, where another tool's meta.json lies there."""
    folder = root / run
    return folder.with_name(f"{run}-otoscope") if is_of_others(folder) else folder


def _machine() -> str:
    return f"{socket.gethostname()}/{boot_id()}".replace(" ", "")
