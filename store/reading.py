"""The store as people read it: runs, series with derived quantities, findings, events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence

from .blocks import Block, buckets_block, frames_block, joined
from .buckets import Bucket
from .errors import UnknownRunError
from .home import Home, Judgement, Rows
from .keys import RUN_ID
from .noise_reading import MEMORY, ROWS, is_estimated, steps_before, with_estimates
from .overlay import combine_ranks
from .reducing import reduce_to
from .runs import run_info
from .schemas import Column, Event, Finding, Frame, Meta, RunInfo, Schema, Series, StreamName
from .selecting import Selection, select
from .tiers import MOST_POINTS, RAW, Extent, Span, choose_levels, first_step, last_step, pieces


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
            points: at least so many rows where raw still has them; a longer range comes from the
                finest tier that covers it, with 128 to about 1,024 rows. More rows are reduced. A
                row that stands for several samples holds their mean, with `low` and `high` beside
                it; of a derived quantity it holds the quantity of the means, and bounds of it.
            rank: one rank alone, under its plain column names; None combines the ranks as the
                schema says (`each` gives `name@<rank>`).
            attempt: one attempt alone; None overlays them, the later attempt wins a step.
        """
        if points < 1:
            raise ValueError(f"points must be at least 1, got {points}")
        streams = self._streams(run, family, rank, attempt)
        schemas = self.home.schemas(run) if streams else {}
        chosen = select(family, [s for s in schemas.values() if s.family == family], columns)
        estimated = is_estimated(family, chosen.wanted)
        least = max(points, ROWS) if estimated else points
        rows = self._table(run, streams, schemas, chosen, (start, stop), least, rank)
        reduced = reduce_to(rows, points)
        if estimated:
            begun = int(rows.steps[0]) if start and len(rows) else 0
            ahead = self._ahead(run, streams, schemas, chosen, begun, rank) if begun else None
            whole = rows if ahead is None else joined([ahead, rows])
            reduced = with_estimates(reduced, whole, len(whole) - len(rows), points)
        found = chosen.derive(reduced)
        return Series(found.steps, found.times, found.values, found.low, found.high, found.columns)

    def _ahead(
        self,
        run: str,
        streams: Sequence[StreamName],
        schemas: Mapping[str, Schema],
        chosen: Selection,
        start: int,
        rank: int | None,
    ) -> Block:
        """Return the rows before a step that the estimates from there on are made of too."""
        begin = max(0, start - steps_before(self.home.extents(run, streams)))
        span = (begin, start - 1)
        return self._table(run, streams, schemas, chosen, span, MEMORY, rank)

    def _table(
        self,
        run: str,
        streams: Sequence[StreamName],
        schemas: Mapping[str, Schema],
        chosen: Selection,
        span: tuple[int | None, int | None],
        points: int,
        rank: int | None,
    ) -> Block:
        """Return the recorded columns of some steps as one table, not reduced."""
        family, (start, stop) = chosen.family, span
        attempts = self._spans(run, streams, start, stop)
        levels = choose_levels(attempts, points)
        asked = [
            (StreamName(family, rank_, number), piece)
            for number, ranks in attempts.items()
            for rank_, span in ranks.items()
            for piece in pieces(span, levels[number])
        ]
        parts: dict[StreamName, list[Rows]] = {}
        for (stream, _), found in zip(asked, self.home.pieces(run, asked), strict=True):
            parts.setdefault(stream, []).append(found)
        blocks = []
        for number, ranks in attempts.items():
            tables = {
                rank_: _block(
                    parts[StreamName(family, rank_, number)], span, schemas, chosen.recorded
                )
                for rank_, span in ranks.items()
            }
            ends = {} if rank is not None else self._ends(run, family, number, streams, chosen)
            plain = rank is not None
            blocks.append(combine_ranks(tables, chosen.recorded, plain=plain, ends=ends))
        if not blocks:
            blocks = [combine_ranks({}, chosen.recorded, plain=rank is not None)]
        return joined(blocks)

    def _ends(
        self, run: str, family: str, attempt: int, streams: Sequence[StreamName], chosen: Selection
    ) -> dict[int, int]:
        """Return the last step of each rank of an attempt, where parts of a sum are sampled."""
        ranks = [stream.rank for stream in streams if stream.attempt == attempt]
        adds_up = any(column.ranks in ("sum", "mean") for column in chosen.recorded)
        if family == "train" or len(ranks) < 2 or not adds_up:
            return {}
        lasts = {r: self.home.last_id(run, StreamName("train", r, attempt)) for r in ranks}
        return {r: last[0] for r, last in lasts.items() if last is not None}

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

    def _spans(
        self, run: str, streams: Sequence[StreamName], start: int | None, stop: int | None
    ) -> dict[int, dict[int, Span]]:
        """Return the steps that are asked of each attempt and rank, without those of no frame.

        From its first step on, a later attempt replaces earlier ones: what those did beyond it is
        no longer part of the weights (docs/decisions/0002-overlaying-attempts.md).
        """
        found = self._newest(run, streams, start) or self.home.extents(run, streams)
        attempts: dict[int, dict[int, Span]] = {}
        end = sys.maxsize if stop is None else stop
        for number in sorted({stream.attempt for stream in found}, reverse=True):
            begins: list[int] = []
            for stream, extents in found.items():
                first, last = first_step(extents), last_step(extents)
                if stream.attempt != number or first is None or last is None:
                    continue
                begins.append(first)
                low, high = max(first, start or 0), min(last, end)
                if low <= high:
                    attempts.setdefault(number, {})[stream.rank] = Span(extents, low, high)
            end = min([end, *(first - 1 for first in begins)])
        return dict(sorted(attempts.items()))

    def _newest(
        self, run: str, streams: Sequence[StreamName], start: int | None
    ) -> dict[StreamName, tuple[Extent | None, ...]]:
        """Return the extents of the latest attempt's raw where the question begins within it.

        What a page asks every second is answered without a look at the tiers.
        """
        if start is None:
            return {}
        latest = max((stream.attempt for stream in streams), default=0)
        last = [stream for stream in streams if stream.attempt == latest]
        found = self.home.extents(run, last, tiers=False)
        raw = [extents[RAW] for extents in found.values()]
        short = [x for x in raw if x and x.first <= start and x.last - start < MOST_POINTS]
        return found if raw and len(short) == len(raw) else {}

    def close(self) -> None:
        """Let go of the connection."""
        self.home.close()


def _block(
    parts: Sequence[Rows], span: Span, schemas: Mapping[str, Schema], recorded: Sequence[Column]
) -> Block:
    """Return one rank's rows of the pieces that its span was read in, each step once."""
    blocks: list[Block] = []
    done = -1
    for rows in parts:
        buckets = [item for item in rows if isinstance(item, Bucket)]
        if rows and not buckets:
            frames = [item for item in rows if isinstance(item, Frame)]
            done = frames[-1].step
            blocks.append(frames_block(frames, schemas, recorded))
            continue
        kept = [bucket for bucket in buckets if done < bucket.first <= span.stop]
        done = kept[-1].last if kept else done
        blocks.append(buckets_block(kept, schemas, recorded))
    return joined(blocks)
