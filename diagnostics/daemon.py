"""The daemon: takes the lease of each run, reads on, folds, and commits in one transaction."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..store import (
    Event,
    Home,
    Judgement,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnknownRunError,
    places,
)
from ..store.ranks import has_ended
from ..store.retention import SOFT_SHARE, Retention
from ..store.schemas import plain
from .fold import Fold
from .janitor import Janitor
from .judging import report_of, resumed
from .lineage import Lineage
from .overriding import project_or_defaults
from .own_rules import active_rules
from .reader import Reader
from .rule import Rule
from .silence import Silence, last_steps
from .turns import LEAST, TURN, Turns

LEASE_MS = 10_000
BEAT = "daemon.heartbeat"
FRESH_SECONDS = 30.0
LONGEST_WAIT = 5.0
IDLE_SECONDS = 15.0
WATCHED_SECONDS = 3600.0
"""A run that fell silent longer ago was lost before this daemon came."""
LOOK_SECONDS = 5.0
"""Seconds between two looks at the ranks' heartbeats."""

IDLE_TICKS = 10
"""A run that was last seen so long ago is looked at in every tenth tick only, for its events."""

JANITOR = "(janitor)"
"""Among the names of runs that cannot be judged; no run has brackets in its id."""

_log = logging.getLogger("otoscope")


@dataclass
class _Watched:
    """A run as this daemon knows it: its fold, and the cursor that it last committed."""

    fold: Fold
    reader: Reader
    committed: str | None
    silence: Silence = field(default_factory=Silence)
    looked: float = -math.inf
    """When the ranks' heartbeats were looked at last."""
    behind: bool = False
    """Whether its last turn ended before all was read."""


class Daemon:
    """Judges every run of a home; several daemons share the runs by their leases.

    Runs that train come first in every tick. Those that were recorded before get one turn of it
    together, first come, first served, so that neither waits for the other.

    Args:
        home: where the runs live.
        clock: seconds since the epoch; only for the heartbeat and for runs that went silent.
        token: this daemon's name in the leases; None makes one.
        poll: seconds between two looks at the home.
        heartbeat: the file that tells Docker that the daemon is alive; None takes
            `daemon.heartbeat` in Otoscope's home folder.
        keep: the share of a sender's cap of raw frames that is kept once it was judged.
        ttl: seconds after which finished runs are deleted; None keeps them.
        rules: those to judge by; None takes the catalogue's and a reader's own, and raises
            ConfigError where one of these cannot be used.
    """

    def __init__(
        self,
        home: Home,
        *,
        clock: Callable[[], float] = time.time,
        token: str | None = None,
        poll: float = 0.5,
        heartbeat: Path | None = None,
        keep: float = SOFT_SHARE,
        ttl: float | None = None,
        rules: Sequence[Rule] | None = None,
    ) -> None:
        self.rules = active_rules() if rules is None else tuple(rules)
        self.project = project_or_defaults(self.rules)
        self.home, self.poll, self.keep = home, poll, keep
        self.token = token or f"daemon-{uuid.uuid4().hex}"
        self.heartbeat = heartbeat or places.home_folder() / BEAT
        self._clock = clock
        self.janitor = Janitor(home, ttl=ttl, clock=clock)
        self._runs: dict[str, _Watched] = {}
        self._idle: dict[str, tuple[float, str]] = {}
        self._broken: set[str] = set()
        self._refused: set[str] = set()
        self._elsewhere: set[str] = set()
        """Runs that another daemon held when this one asked for them last."""
        self._turns = Turns()
        self._lineage = Lineage(home, self.rules)
        self._ticks = 0

    def run(self, stop: threading.Event) -> None:
        """Judge until `stop` is set; a home that goes away is waited for."""
        wait, away = self.poll, False
        while not stop.is_set():
            try:
                self.tick()
                if away:
                    _log.warning("the store answers again")
                wait, away = self.poll, False
            except StoreError as error:
                if not away:
                    _log.warning("the store does not answer, waiting for it: %s", error)
                self._runs.clear()
                wait, away = min(2 * wait, LONGEST_WAIT), True
            if away or not self.has_more:
                stop.wait(wait)
        self._let_go()

    @property
    def has_more(self) -> bool:
        """Whether the last tick left something unread, so that the next one need not wait.

        What another daemon holds is waited for: asking for it again and again would get nobody on.
        """
        ours = any(run not in self._elsewhere for run in self._turns.queue())
        return ours or any(watched.behind for watched in self._runs.values())

    def tick(self) -> int:
        """Read on in the runs that this daemon holds; returns how many points were judged."""
        self._beat()
        self._ticks += 1
        self._sweep()
        rows = dict(self.home.run_ids())
        for gone in (set(self._runs) | set(self._idle)) - rows.keys():
            self._runs.pop(gone, None)
            self._idle.pop(gone, None)
        self._turns.keep(rows)
        self._elsewhere &= rows.keys()
        judged = 0
        for run, seen in rows.items():
            if self._rests(run, seen):
                continue
            self._beat()
            judged += self._guarded(run, seen, self._look)
        return judged + self._work_off(rows)

    def _look(self, run: str, seen: float) -> int:
        """Tend a run that trains, or was tended before; let others queue."""
        known = run in self._idle or run in self._runs
        if self._turns.queues(run, seen, known, self.home.meta, self._clock()):
            return 0
        return self._turn(run, seen)

    def _turn(self, run: str, seen: float) -> int:
        judged = self._tend(run)
        if judged and run in self._runs:
            fold = self._runs[run].fold
            self._lineage.look(run, fold.meta, self._clock(), fold.settings.heirs)
        self._put_to_rest(run, seen)
        return judged

    def _work_off(self, seen: Mapping[str, float]) -> int:
        """Tend the runs that queue, for as long as one turn is."""
        judged = 0
        left = TURN
        for run in self._turns.queue():
            if left <= 0:
                break
            self._beat()
            points = self._guarded(run, seen[run], self._turn)
            judged, left = judged + points, left - max(points, LEAST)
            watched = self._runs.get(run)
            if watched is None or not watched.behind:
                self._turns.leave(run)
        return judged

    def _sweep(self) -> None:
        """Let the janitor look; what hinders it must not stop the judging."""
        try:
            self.janitor.sweep()
        except StoreError:
            raise
        except Exception:  # the guard at the border, as for a run
            if JANITOR not in self._broken:
                _log.exception("finished runs cannot be deleted; the judging goes on")
            self._broken.add(JANITOR)

    def _guarded(self, run: str, seen: float, tend: Callable[[str, float], int]) -> int:
        """Tend one run; one that cannot be judged is left alone until it is seen again."""
        try:
            return tend(run, seen)
        except UnknownRunError:
            self._runs.pop(run, None)  # deleted a moment ago
            return 0
        except (StoreUnavailableError, StoreFullError):
            raise
        except StoreError as error:  # a key of this run holds something else than ours
            if run not in self._refused:
                _log.warning("run %s cannot be read or judged now: %s", run, error)
            self._refused.add(run)
            self._runs.pop(run, None)
            return 0
        except Exception:  # the guard at the border: one run must not stop the others
            if run not in self._broken:
                _log.exception("run %s cannot be judged; the other runs go on", run)
            self._broken.add(run)
            self._runs.pop(run, None)
            self._idle[run] = (seen, "0-0")
            return 0

    def _rests(self, run: str, seen: float) -> bool:
        """Tell whether nothing can have come for a run since it was judged to its end."""
        idle = self._idle.get(run)
        if idle is None or idle[0] != seen:
            return False
        if run in self._broken:
            return True
        return bool(self._ticks % IDLE_TICKS) or not self.home.events(run, idle[1], count=1)

    def _put_to_rest(self, run: str, seen: float) -> None:
        watched = self._runs.get(run)
        age = self._clock() - seen
        if watched is None or watched.behind or self._waits(run, watched, age):
            self._idle.pop(run, None)
            return
        self._idle[run] = (seen, watched.fold.place.events)
        del self._runs[run]  # its windows are read again when it goes on
        self.home.release(run, self.token)

    def _waits(self, run: str, watched: _Watched, age: float) -> bool:
        """Tell whether more may come of a run soon, or a clock has yet to decide something about it."""
        if age < IDLE_SECONDS and not (run in self._turns and has_ended(self.home.meta(run))):
            return True
        if watched.fold.lagging() and not watched.reader.awaits_attempt:
            return True
        return age < WATCHED_SECONDS and watched.silence.watches(self.home.meta(run))

    def _tend(self, run: str) -> int:
        """Judge one turn of a run; the lease is renewed by each commit in it."""
        if not self.home.acquire(run, self.token, LEASE_MS):
            self._runs.pop(run, None)  # another daemon goes on with it
            self._elsewhere.add(run)
            return 0
        self._elsewhere.discard(run)
        watched = self._runs.get(run) or self._begin(run)
        judged = 0
        while watched.behind or watched.reader.pull():
            self._refresh(run, watched.fold)
            points = watched.fold.judge(most=TURN)
            judged += points
            if not self._commit(run, watched):
                return judged
            watched.behind = points == TURN or judged >= TURN
            if judged >= TURN:
                return judged
        if self._decided_by_the_clock(run, watched):
            judged += self._tend(run)
        return judged

    def _refresh(self, run: str, fold: Fold) -> None:
        """Read what a run tells of itself until it was judged for the first time."""
        if fold.place.points == 0:
            fold.meta = self.home.meta(run)
            fold.settings.profile = fold.settings.profile or fold.meta.task
            fold.log.world_size = fold.meta.world_size
            fold.settle()
        if not fold.knows_its_schemas():
            fold.schemas.update(self.home.schemas(run))

    def _decided_by_the_clock(self, run: str, watched: _Watched) -> bool:
        """Write as events what the clock decides; returns whether the fold can go on by them."""
        now = self._clock()
        # the first sample of a later attempt ends the waiting for ranks of this one
        later = watched.reader.awaits_attempt
        excluded = [] if later else watched.silence.excluded(watched.fold, now)
        found = list(excluded)
        if now - watched.looked >= LOOK_SECONDS:
            watched.looked = now
            steps = last_steps(watched.fold)
            found += watched.silence.stalled(self.home.meta(run), now, steps)
        if found:  # another daemon, or this one before it began anew, may have told of it
            told = {event.id for _, event in self.home.events(run)}
            for event in found:
                if event.id not in told:
                    self.home.add_event(run, event)
        return bool(excluded)

    def _tell_project(self, run: str) -> None:
        """Write this project's numbers into the log of a run that brings none of its own.

        Whoever judges it later, and wherever, comes to the same then.
        """
        told = any(event.kind == "project" for _, event in self.home.events(run))
        if self.project and not told:
            body = {"numbers": self.project}
            self.home.add_event(run, Event("project", body=body, id=f"project-{run}"))

    def _begin(self, run: str) -> _Watched:
        if self.home.judgement(run).cursor is None:
            self._tell_project(run)
        fold, cursor = resumed(self.home, run, self.rules)
        reader = Reader(self.home, fold, Retention(self.keep))
        watched = _Watched(fold, reader, cursor)
        self._runs[run] = watched
        return watched

    def _commit(self, run: str, watched: _Watched) -> bool:
        fold = watched.fold
        if fold.cursor == watched.committed:
            return True
        whole = report_of(fold)
        state = {
            **fold.state(),
            **{key: whole[key] for key in ("state", "verdict", "judged", "not_judged")},
        }
        judgement = Judgement(
            cursor=fold.cursor,
            state=state,
            findings=fold.findings(),
            obstacles=plain(whole["obstacles"]),
        )
        stamps = fold.stamps
        if not self.home.commit(run, self.token, LEASE_MS, watched.committed, judgement, stamps):
            self._runs.pop(run, None)  # another daemon was faster: begin anew from what it wrote
            return False
        watched.committed, fold.stamps = fold.cursor, []
        watched.reader.relax()
        return True

    def _beat(self) -> None:
        with contextlib.suppress(OSError):
            self.heartbeat.parent.mkdir(parents=True, exist_ok=True)
            self.heartbeat.write_text(f"{self._clock():.3f}\n", encoding="ascii")

    def _let_go(self) -> None:
        for run in list(self._runs):
            with contextlib.suppress(StoreError):
                self.home.release(run, self.token)
        self._runs.clear()


def is_alive(heartbeat: Path | None = None, now: float | None = None) -> bool:
    """Tell whether a daemon beat in the last 30 s, by its heartbeat file."""
    path = heartbeat or places.home_folder() / BEAT
    try:
        beat = float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return (time.time() if now is None else now) - beat < FRESH_SECONDS
