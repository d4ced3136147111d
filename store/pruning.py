"""Pruning: which runs may be deleted, of those that nobody records any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .errors import ConfigError
from .schemas import RunInfo

LIVE = ("live", "stale")
"""A run that is heard of, or was a moment ago: never deleted."""
KEEP = "keep"
"""The tag of a run that stays; the janitor spares it too."""
UNITS = {"min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which runs to delete: those that meet every condition that is set.

    `ids`: these runs; `names` (or ids), `tags`: globs, one of each must match; `older_than`: seconds since
    the run was last heard of; `keep_last`: so many of the runs that meet the rest stay, the last
    seen ones. A run with the tag KEEP goes only by its id.
    """

    ids: Sequence[str] = ()
    names: Sequence[str] = ()
    tags: Sequence[str] = ()
    older_than: float | None = None
    keep_last: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no condition is set; nothing is deleted then."""
        given = (self.ids, self.names, self.tags)
        return not any(given) and self.older_than is None and self.keep_last is None

    def of(self, rows: Sequence[RunInfo], now: float) -> list[RunInfo]:
        """Return the runs to delete, the last seen first; none that is live."""
        if self.is_empty:
            return []
        found = [row for row in rows if row.status not in LIVE and self._meets(row)]
        found.sort(key=lambda row: -row.last_seen)
        found = found[self.keep_last or 0 :]
        age = self.older_than
        return [row for row in found if age is None or now - row.last_seen > age]

    def _meets(self, row: RunInfo) -> bool:
        return (
            (row.id in self.ids if self.ids else KEEP not in row.tags)
            and _matches(self.names, [row.name, row.id])
            and _matches(self.tags, row.tags)
        )


def _matches(patterns: Sequence[str], texts: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(text, glob) for glob in patterns for text in texts)


def seconds_of(text: str) -> float:
    """Return a length of time in seconds.

    >>> seconds_of("30d"), seconds_of("12h"), seconds_of("1.5w")
    (2592000.0, 43200.0, 907200.0)
    """
    for unit, seconds in UNITS.items():
        number = text.removesuffix(unit)
        if number != text:
            try:
                found = float(number) * seconds
            except ValueError:
                break
            if 0 <= found < 1e12:
                return found
    raise ConfigError(f"{text!r} is no length of time; write 90min, 12h, 30d or 4w")
