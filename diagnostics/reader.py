"""The reader: a run's frames and events from a home into a fold, in an order that loses nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ..store import Event, Frame, Home, StreamName
from ..store.retention import Retention
from .fold import Fold
from .windows import KEPT_STEPS

PORTION = 1000
"""Steps of `train` read at once, so that a long run needs no more memory than a short one."""


class Reader:
    """Reads one run for one fold; where that was restored, its windows are rebuilt once needed.

    `retention` takes notice of what is read. Steps at the beginning of an attempt whose frames are
    not kept any more are told to the fold as a gap.
    """

    def __init__(self, home: Home, fold: Fold, retention: Retention | None = None) -> None:
        self.home, self.fold, self._retention = home, fold, retention
        self._begun: set[int] = set()
        self._read: dict[StreamName, tuple[int, int]] = {}
        self._attempt = fold.place.attempt
        self._whole = fold.place.step == 0
        self.awaits_attempt = False
        """Whether events of a later attempt are there and none of its samples yet: what is written of
        this attempt now would be read behind them."""

    def pull(self) -> bool:
        """Push the next portion into the fold; returns whether there was anything new.

        `train` is read before the other families and the events: a rank sends it last, so what
        is read afterwards holds all that belongs to it. Streams are listed again in between, as
        a family may have begun meanwhile.
        """
        frames = self._train_frames()
        stop = max(
            (step for stream, (step, _) in self._read.items() if self._ours(stream)), default=-1
        )
        for stream in self._streams():
            if stream.family != "train":
                frames += self._next(stream, stop=stop)
        events = self._next_events()
        self._tell_of_a_missing_beginning(frames)
        if frames or events:
            self.rebuild()
        self.fold.push(frames)
        if frames or events:
            return True
        return self._follow_attempt()

    def _tell_of_a_missing_beginning(self, frames: Sequence[Frame]) -> None:
        """Push a gap where the first steps that are to be judged are not kept any more."""
        steps = [frame.step for frame in frames if frame.family == "train"]
        if not steps or self._attempt in self._begun:
            return
        self._begun.add(self._attempt)
        place = self.fold.place
        goes_on = place.attempt == self._attempt and place.step > 0
        first = (
            place.step + 1 if goes_on else first_steps(self.home, self.fold.run).get(self._attempt)
        )
        if first is None or min(steps) <= first:
            return
        last = min(steps) - 1
        body = {"family": "train", "rank": 0, "from": first, "to": last, "beginning": not goes_on}
        self.fold.push(events=[Event("gap", last, self._attempt, 0, 0.0, body)])

    def relax(self) -> None:
        """Let go of raw frames that were judged and that no window reaches any more."""
        place = self.fold.place
        if self._retention is not None:
            judged = (place.attempt, place.step)
            self._retention.relax(self.home, self.fold.run, judged, KEPT_STEPS)

    def rebuild(self) -> None:
        """Give a restored fold the raw frames behind its place, for the windows; once."""
        if self._whole:
            return
        self._whole = True
        place = self.fold.place
        past: list[Frame] = []
        for stream in self.home.streams(self.fold.run):
            if stream.attempt != place.attempt:
                continue
            first = place.step - KEPT_STEPS
            past += self.home.frames(self.fold.run, stream, start=max(first, 0), stop=place.step)
        self.fold.rebuild(past)

    def _train_frames(self) -> list[Frame]:
        frames: list[Frame] = []
        for stream in self._streams():
            if stream.family == "train":
                frames += self._next(stream, count=PORTION)
        return frames

    def _next(
        self, stream: StreamName, *, stop: int | None = None, count: int | None = None
    ) -> list[Frame]:
        after = self._read.get(stream)
        start = None
        if after is None and stream.attempt == self.fold.place.attempt:
            start = self.fold.place.step + 1
        frames = self.home.frames(
            self.fold.run, stream, after=after, start=start, stop=stop, count=count
        )
        if frames:
            self._read[stream] = frames[-1].id
            if self._retention is not None:
                self._retention.note(frames)
        return frames

    def _next_events(self) -> int:
        """Push new events in order, up to the first one of an attempt that is not read yet."""
        pushed, self.awaits_attempt = 0, False
        for place, event in self.home.events(self.fold.run, after=self.fold.place.events):
            if event.attempt > self._attempt and self._attempt:
                self.awaits_attempt = True
                break
            self._attempt = self._attempt or event.attempt
            self.fold.push(events=[event])
            self.fold.place.events = place
            pushed += 1
        return pushed

    def _follow_attempt(self) -> bool:
        later = [
            stream.attempt
            for stream in self.home.streams(self.fold.run)
            if stream.attempt > self._attempt
        ]
        if not later:
            return False
        self._attempt = min(later)
        return True

    def _streams(self) -> list[StreamName]:
        streams = self.home.streams(self.fold.run)
        if not self._attempt:
            self._attempt = min((stream.attempt for stream in streams), default=0)
        return [stream for stream in streams if self._ours(stream)]

    def _ours(self, stream: StreamName) -> bool:
        return stream.attempt == self._attempt


def first_steps(home: Home, run: str) -> dict[int, int]:
    """Return the first step of every attempt that told of it, by the attempt's number."""
    found: dict[int, int] = {}
    for _, event in home.events(run):
        start = event.body.get("start_step")
        if event.kind == "started" and isinstance(start, int):
            found.setdefault(event.attempt, start + 1)
    return found


def lacks_a_beginning(home: Home, run: str) -> bool:
    """Tell whether first samples of an attempt of the run are not kept any more."""
    begun = first_steps(home, run)
    kept: dict[int, int] = {}
    for stream in home.streams(run):
        if stream.family == "train":
            for frame in home.frames(run, stream, count=1):
                kept[stream.attempt] = min(frame.step, kept.get(stream.attempt, frame.step))
    return any(step > begun.get(attempt, step) for attempt, step in kept.items())
