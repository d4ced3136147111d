"""The store as people read it: runs, series with derived quantities, findings, events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .errors import UnknownRunError
from .home import Home, Judgement
from .keys import RUN_ID
from .overlay import Block, combine_ranks, overlay_attempts, to_block
from .reducing import reduce_to
from .runs import run_info
from .schemas import Event, Finding, Meta, RunInfo, Schema, Series, StreamName
from .selecting import Selection, select


class Store:
    """A home with the questions that a person asks of it.

    `damage` lists what of a recording could not be read, one line each.
    """

    def __init__(
        self,
        home: Home,
        *,
        clock: Callable[[], float] = time.time,
        damage: Sequence[str] = (),
    ) -> None:
        self.home = home
        self.damage = list(damage)
        self._clock = clock

    def runs(self) -> list[RunInfo]:
        """Return every run, the last seen first."""
        now = self._clock()
        rows = [
            run_info(card.run, card.meta, card.labels, card.findings, card.obstacles, now)
            for card in self.home.cards()
        ]
        # the home knows when a run was last written, which for a recording is when it was taken in
        return sorted(rows, key=lambda row: -row.last_seen)

    def run(self, run: str) -> RunInfo:
        """Return one run's row; raises UnknownRunError."""
        meta = self.home.meta(run)
        kept = self.home.judgement(run)
        labels = self.home.labels(run)
        return run_info(run, meta, labels, kept.findings, kept.obstacles, self._clock())

    def resolve(self, text: str) -> str:
        """Return the run that a person means by an id, an unambiguous beginning, or a name.

        Raises UnknownRunError, which names the candidates where there are several.
        """
        ids = [run for run, _ in self.home.run_ids()]
        if text in ids:
            return text
        found = [run for run in ids if RUN_ID.match(text) and run.startswith(text)]
        if not found:
            found = [info.id for info in self.runs() if info.name == text]
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(found[:5])
            raise UnknownRunError(f"{text!r} may mean {len(found)} runs ({shown}); give a whole id")
        raise UnknownRunError(f"no run {text!r} in this store; `otoscope runs` lists those it has")

    def meta(self, run: str) -> Meta:
        """Return what the run told of itself."""
        return self.home.meta(run)

    def schemas(self, run: str, family: str) -> list[Schema]:
        """Return a family's schemas."""
        found = [item for item in self.home.schemas(run).values() if item.family == family]
        return sorted(found, key=lambda schema: schema.hash)

    def findings(self, run: str) -> list[Finding]:
        """Return what the daemon found, root causes first, most severe first."""
        return self.home.judgement(run).findings

    def judgement(self, run: str) -> Judgement:
        """Return what the daemon committed last."""
        return self.home.judgement(run)

    def events(self, run: str) -> list[Event]:
        """Return the run's events in the order in which they were stored."""
        return [event for _, event in self.home.events(run)]

    def read(
        self,
        run: str,
        family: str,
        columns: Sequence[str] | None = None,
        start: int | None = None,
        stop: int | None = None,
        points: int = 1000,
        rank: int | None = None,
        attempt: int | None = None,
        most: int | None = None,
    ) -> Series:
        """Return samples of a family: attempts overlaid, ranks combined, quantities derived.

        Args:
            run: a run id.
            family: `train`, `gradients`, …
            columns: written names (`loss`, `grad_norm/features.0`), recorded or derived; a bare
                quantity (`grad_norm`) means it for every layer. None: all there are. A name that
                was never recorded is left out.
            start: first step, inclusive.
            stop: last step, inclusive.
            points: at least so many rows where raw allows; more samples are reduced to buckets
                of mean, lowest and highest value.
            rank: one rank alone, under its plain column names; None combines the ranks as the
                schema says (`each` gives `name@<rank>`).
            attempt: one attempt alone; None overlays them, the later attempt wins a step.
            most: read at most about so many samples of a stream, evenly spread; `low` and `high`
                are then the extremes of what was read. None reads them all.
        """
        if points < 1:
            raise ValueError(f"points must be at least 1, got {points}")
        streams = self._streams(run, family, rank, attempt)
        schemas = self.home.schemas(run) if streams else {}
        chosen = select(family, [s for s in schemas.values() if s.family == family], columns)
        blocks = self._blocks(run, streams, schemas, chosen, start, stop, rank is not None, most)
        return reduce_to(chosen.derive(overlay_attempts(blocks)), points)

    def _streams(
        self, run: str, family: str, rank: int | None, attempt: int | None
    ) -> list[StreamName]:
        return [
            stream
            for stream in self.home.streams(run)
            if stream.family == family
            and rank in (None, stream.rank)
            and attempt in (None, stream.attempt)
        ]

    def _blocks(
        self,
        run: str,
        streams: Sequence[StreamName],
        schemas: dict[str, Schema],
        chosen: Selection,
        start: int | None,
        stop: int | None,
        plain: bool,
        most: int | None,
    ) -> list[Block]:
        """Return one block of recorded columns an attempt, in the order of the attempts."""
        blocks: list[Block] = []
        for number in sorted({stream.attempt for stream in streams}):
            ranks: dict[int, Block] = {}
            for stream in streams:
                if stream.attempt == number:
                    if most is None:
                        frames = self.home.frames(run, stream, start=start, stop=stop)
                    else:
                        frames = self.home.spread(run, stream, start=start, stop=stop, count=most)
                    ranks[stream.rank] = to_block(frames, schemas, chosen.recorded)
            blocks.append(combine_ranks(ranks, chosen.recorded, plain=plain))
        return blocks

    def close(self) -> None:
        """Let go of the connection."""
        self.home.close()
