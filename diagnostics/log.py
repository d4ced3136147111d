"""The log of a run: frames and events that wait for their point, in the one order of judging.

Order: attempt, step, family, rank; an event counts behind the frames of its step, so at the first
point beyond it. How the log arrived (frame by frame, in chunks, at once) leaves no trace.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..store import Event, Frame
from ..store.schemas import Json, family_order

GRID = 10
"""Steps between two points at which a run is judged."""

ENDS = ("finished", "exception")

REQUESTS = ("override", "project", "profile", "action", "closed")
"""What people ask for and what changes a judgement; any of them may be read late."""


@dataclass
class Attempt:
    """What is known of one attempt and not yet judged."""

    frames: dict[int, list[Frame]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    """A heap of the steps that hold frames."""
    watermarks: dict[int, int] = field(default_factory=dict)
    world: int = 0
    excluded: dict[int, int] = field(default_factory=dict)
    last: int | None = None
    """The step at which rank 0 ended: a point of its own."""
    settings: dict[str, Json] = field(default_factory=dict)
    """What it told of itself when it began, where it did."""


@dataclass
class Log:
    """Frames and events by attempt, given out point by point."""

    world_size: int = 1
    attempts: dict[int, Attempt] = field(default_factory=dict)
    events: list[tuple[int, int, int, Event]] = field(default_factory=list)
    requests: list[tuple[int, int, int, Event]] = field(default_factory=list)
    late: int = 0
    counted: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(attempt, step) behind which a request counted that was read late, by its event's id."""
    _arrived: int = 0

    def add_frames(self, frames: Iterable[Frame], done: tuple[int, int]) -> None:
        """Take frames in; those at or behind `done` (attempt, step) are late and not judged."""
        for frame in frames:
            if (frame.attempt, frame.step) <= done:
                self.late += 1
                continue
            attempt = self.attempt(frame.attempt)
            stop = attempt.excluded.get(frame.rank)
            if stop is not None and frame.step > stop:
                self.late += 1
                continue
            if frame.step not in attempt.frames:
                attempt.frames[frame.step] = []
                heapq.heappush(attempt.steps, frame.step)
            attempt.frames[frame.step].append(frame)
            if frame.family == "train":
                mark = attempt.watermarks.get(frame.rank, -1)
                attempt.watermarks[frame.rank] = max(mark, frame.step)

    def add_events(self, events: Iterable[Event]) -> None:
        """Take events in, in the order of their stream."""
        for event in events:
            self._arrived += 1
            waiting = self.requests if event.kind in REQUESTS else self.events
            item = (event.attempt, event.step, self._arrived, event)
            bisect.insort(waiting, item, key=lambda item: item[:3])
            attempt = self.attempt(event.attempt)
            if event.kind == "started":
                world = event.body.get("world_size")
                attempt.world = world if isinstance(world, int) else attempt.world
                settings = event.body.get("settings")
                attempt.settings = dict(settings) if isinstance(settings, dict) else {}
            elif event.kind == "counted":
                self.counted[str(event.body.get("event"))] = (event.attempt, event.step)
            elif event.kind == "excluded":
                rank, step = event.body.get("rank"), event.body.get("from_step", event.step)
                if isinstance(rank, int) and isinstance(step, int):
                    attempt.excluded[rank] = step
                    self._exclude(attempt, rank, step)
            elif event.kind in ENDS and event.rank == 0:
                attempt.last = event.step

    def attempt(self, number: int) -> Attempt:
        """Return an attempt's waiting frames."""
        known = self.attempts.get(number)
        if known is None:
            known = self.attempts[number] = Attempt()
        return known

    def watermark(self, number: int) -> int:
        """Return the step up to which every live rank has sent all, -1 where one sent nothing."""
        marks = self.attempt(number).watermarks
        return min((marks.get(rank, -1) for rank in self.live(number)), default=-1)

    def live(self, number: int) -> list[int]:
        """Return the ranks of an attempt that are waited for."""
        attempt = self.attempt(number)
        world = max(attempt.world or self.world_size, 1)
        return [rank for rank in range(world) if rank not in attempt.excluded]

    def expected(self, number: int, step: int) -> int:
        """Return how many ranks send frames of a step: those that had not left by then."""
        attempt = self.attempt(number)
        world = max(attempt.world or self.world_size, 1)
        return world - sum(last < step for last in attempt.excluded.values())

    def next_point(self, number: int, until: int | None) -> int | None:
        """Return the next point of an attempt that can be judged, None where none can yet.

        Steps without a single frame (a gap) hold no points.
        """
        mark = self.watermark(number)
        if until is not None:
            mark = min(mark, until)
        attempt = self.attempt(number)
        while attempt.steps and attempt.steps[0] not in attempt.frames:
            heapq.heappop(attempt.steps)
        if not attempt.steps or attempt.steps[0] > mark:
            return None
        point = -(-attempt.steps[0] // GRID) * GRID
        if point <= mark:
            return point
        ended = attempt.last is not None and max(attempt.frames) == attempt.last <= mark
        return attempt.last if ended else None

    def take(self, number: int, point: int) -> list[list[Frame]]:
        """Take out the frames up to a point: one list a step and family, ranks ascending."""
        attempt = self.attempt(number)
        taken: list[list[Frame]] = []
        while attempt.steps and attempt.steps[0] <= point:
            step = heapq.heappop(attempt.steps)
            frames = sorted(
                attempt.frames.pop(step, ()), key=lambda f: (*family_order(f.family), f.rank, f.seq)
            )
            for frame in frames:
                if taken and taken[-1][0].family == frame.family and taken[-1][0].step == step:
                    taken[-1].append(frame)
                else:
                    taken.append([frame])
        return taken

    def take_events(self, number: int, point: int) -> list[Event]:
        """Take out the events that count at a point: those of earlier steps or attempts."""
        split = 0
        while split < len(self.events) and self.events[split][:2] < (number, point):
            split += 1
        taken, self.events = self.events[:split], self.events[split:]
        asked = self._take_requests(lambda place: place < (number, point))
        if asked:
            taken = sorted([*taken, *asked], key=lambda item: (self._counts(item[-1]), item[2]))
        return [event for *_, event in taken]

    def take_requests(self, number: int, step: int) -> list[Event]:
        """Take out the requests that count right behind a point that was judged."""
        return [event for *_, event in self._take_requests(lambda place: place <= (number, step))]

    def _take_requests(
        self, due: Callable[[tuple[int, int]], bool]
    ) -> list[tuple[int, int, int, Event]]:
        if not self.requests:
            return []
        taken = [item for item in self.requests if due(self._counts(item[-1]))]
        if taken:
            self.requests = [item for item in self.requests if item not in taken]
        return sorted(taken, key=lambda item: (self._counts(item[-1]), item[2]))

    def is_late(self, event: Event, number: int, step: int) -> bool:
        """Tell whether a request comes only now, and would have counted earlier in a replay."""
        return event.id not in self.counted and (event.attempt, event.step) < (number, step)

    def _counts(self, event: Event) -> tuple[int, int]:
        return max(self.counted.get(event.id, (0, 0)), (event.attempt, event.step))

    def waiting(self) -> Iterable[Frame]:
        """Return the frames that wait for their point."""
        for attempt in self.attempts.values():
            for frames in attempt.frames.values():
                yield from frames

    def following(self, number: int) -> int | None:
        """Return the next attempt that has begun, None where this is the latest."""
        begun = [
            other
            for other, attempt in self.attempts.items()
            if other > number and (attempt.frames or attempt.world)
        ]
        return min(begun, default=None)

    def _exclude(self, attempt: Attempt, rank: int, step: int) -> None:
        for at in [at for at in attempt.frames if at > step]:
            kept = [frame for frame in attempt.frames[at] if frame.rank != rank]
            self.late += len(attempt.frames[at]) - len(kept)
            if kept:
                attempt.frames[at] = kept
            else:
                del attempt.frames[at]
