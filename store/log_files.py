"""Log files of other loggers: CSV and TensorBoard event files, read as curves of numbers by step."""

from __future__ import annotations

import csv
import io
import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from .errors import MissingExtraError, UnreadableLogError

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".log")
EVENTS = "events.out.tfevents."
"""What the name of an event file holds."""
DELIMITERS = ",;\t|"
HOLDS_SOMETHING = re.compile(r"[^\s,;|]")
STEPS = (
    "step", "global_step", "_step", "trainer/global_step", "train/global_step", "iteration", "iter",
    "iterations", "steps", "global_iteration", "batch", "update", "num_updates",
)  # fmt: skip
"""Columns that count steps, the likeliest first; any case, blanks and dashes as underscores."""
TIMES = ("wall_time", "_timestamp", "timestamp", "time", "walltime", "wall time")
LARGEST = 2**53
"""No step is larger: it would be no exact number any more."""


@dataclass(slots=True)
class Log:
    """The curves of one run by name, {step: value} each; `times` in epoch s by step, where told.

    `remarks`: what of the file could not be used, or was read otherwise than it stands there.
    """

    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def is_log(path: Path) -> bool:
    """Tell whether a path is a file that may be a log, or a folder of other loggers' making."""
    return path.is_file() or bool(logs_in(path))


def logs_in(folder: Path) -> list[Path]:
    """Return the logs in a folder: its CSV files, and the folder itself where it holds event files."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError:
        return []
    tables = [path for path in inside if path.suffix.lower() in (".csv", ".tsv")]
    return tables + ([folder] if any(EVENTS in path.name for path in inside) else [])


def read_log_file(path: Path, step: str | None = None) -> Log:
    """Return the curves of a CSV file (any delimiter), an event file, or a folder of event files.

    Args:
        path: the file, or the folder.
        step: the column of a CSV file that counts steps; None finds it by name, and counts rows
            where there is none.

    Raises:
        UnreadableLogError: there is no such file, or it holds no numbers that can be read.
        MissingExtraError: event files are read by the package `tensorboard`, which is not there.
    """
    if path.is_dir() or EVENTS in path.name:
        return _read_events(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UnreadableLogError(f"cannot read {str(path)!r}: {error.strerror}") from error
    if b"\0" in text[:4096]:
        raise UnreadableLogError(
            f"{str(path)!r} is neither a CSV file nor a TensorBoard event file (their names hold "
            f"{EVENTS!r}); give one of these, or the folder of a recorded run"
        )
    return _read_table(path, text.decode("utf-8-sig", errors="replace"), step)


def _read_table(path: Path, text: str, asked: str | None) -> Log:
    lines = io.StringIO(text, newline="")
    head = next((line.strip() for line in lines if HOLDS_SOMETHING.search(line)), None)
    if head is None:
        raise UnreadableLogError(f"{str(path)!r} is empty: no line has been logged yet")
    delimiter = max(DELIMITERS, key=head.count)
    rows = _rows(path, text, delimiter)
    names = [name.strip() for name in next(rows, [])]
    if len(names) < 2 or all(_number(name, delimiter) is not None for name in names):
        raise UnreadableLogError(
            f"the first line of {str(path)!r} names no columns, got {head[:80]!r}; the first line "
            "of a CSV file holds the names of its columns, such as step,loss,lr"
        )
    log = Log()
    rows = list(rows)
    if not rows:
        raise UnreadableLogError(f"{str(path)!r} names its columns and holds no row yet")
    counter = _step_column(names, asked, path)
    if counter is None:
        log.remarks.append("no column counts steps: each row counts as one")
    elif asked is None and _begins_anew(rows, counter, delimiter):
        log.remarks.append(
            f"{names[counter]!r} begins anew with each epoch: each row counts as one step"
        )
        counter = None
    clock = next((i for i, name in enumerate(names) if _plain(name) in TIMES), None)
    words: dict[str, int] = {}
    skipped = again = 0
    for place, row in enumerate(rows, start=1):
        step = place if counter is None else _step(row, counter, delimiter)
        if step is None:
            skipped += 1
            continue
        for i, cell in enumerate(row[: len(names)]):
            if i in (counter, clock) or not cell.strip():
                continue
            value = _number(cell, delimiter)
            if value is None:
                words[names[i]] = words.get(names[i], 0) + 1
                continue
            curve = log.curves.setdefault(names[i], {})
            again += step in curve and repr(curve[step]) != repr(value)
            curve[step] = value
        time = _number(row[clock], delimiter) if clock is not None and clock < len(row) else None
        if time is not None and math.isfinite(time):
            log.times[step] = time
    _remark(log, skipped, "row without a step was left out", "rows without a step were left out")
    _remark(log, again, "value came again for its step: the last one counts",
            "values came again for their steps: the last ones count")  # fmt: skip
    for name, count in words.items():
        if name in log.curves:
            _remark(
                log, count, f"value of {name!r} is no number", f"values of {name!r} are no numbers"
            )
    return log


def _rows(path: Path, text: str, delimiter: str) -> Iterator[list[str]]:
    try:
        # lines end as csv has it: str.splitlines would end them within a cell, too, as at U+2028
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if any(cell.strip() for cell in row):
                yield row
    except csv.Error as error:
        raise UnreadableLogError(f"{str(path)!r} is no CSV file: {error}") from error


def _remark(log: Log, count: int, one: str, many: str) -> None:
    if count:
        log.remarks.append(f"{count:,} {one if count == 1 else many}")


def _plain(name: str) -> str:
    """Return a name as it is compared.

    >>> _plain(" Global-Step ")
    'global_step'
    """
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _step_column(names: list[str], asked: str | None, path: Path) -> int | None:
    if asked is not None:
        if asked not in names:
            raise UnreadableLogError(
                f"{str(path)!r} has no column {asked!r}; it has {', '.join(names)}"
            )
        return names.index(asked)
    known = [_plain(name) for name in names]
    return next((known.index(name) for name in STEPS if name in known), None)


def _begins_anew(rows: list[list[str]], counter: int, delimiter: str) -> bool:
    """Tell whether a column counts within epochs: it comes back to its lowest value more than once."""
    steps = [step for row in rows if (step := _step(row, counter, delimiter)) is not None]
    lowest = min(steps, default=0)
    return sum(now == lowest < before for before, now in pairwise(steps)) > 1


def _number(text: str, delimiter: str = ",") -> float | None:
    """Return the number that a cell holds, with a decimal comma where commas part no cells; None for words.

    >>> _number("1e-3"), _number("0,5", ";"), _number("nan"), _number("high")
    (0.001, 0.5, nan, None)
    """
    text = text.strip()
    if delimiter != ",":
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return {"true": 1.0, "false": 0.0}.get(text.lower())


def _step(row: list[str], counter: int, delimiter: str) -> int | None:
    value = _number(row[counter], delimiter) if counter < len(row) else None
    if value is None or not 0 <= value <= LARGEST or value != int(value):
        return None
    return int(value)


def _read_events(path: Path) -> Log:
    try:
        from tensorboard.backend.event_processing import event_accumulator
        from tensorboard.util import tensor_util
    except ImportError:
        raise MissingExtraError(
            "TensorBoard event files are read by the package tensorboard, which is not installed: "
            "pip install 'otoscope[tensorboard]'"
        ) from None
    logging.getLogger("tensorboard").setLevel(
        logging.ERROR
    )  # it warns of graphs and of second files
    reader = event_accumulator.EventAccumulator(
        str(path), size_guidance={event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
    )
    reader.Reload()
    log, tags = Log(), reader.Tags()
    for tag in tags[event_accumulator.SCALARS]:
        for event in reader.Scalars(tag):
            _take(log, tag, event.step, event.value, event.wall_time)
    for tag in tags[event_accumulator.TENSORS]:
        for event in reader.Tensors(tag):
            values = tensor_util.make_ndarray(event.tensor_proto)
            if values.size == 1 and values.dtype.kind in "fiu":
                _take(log, tag, event.step, float(values.reshape(-1)[0]), event.wall_time)
    if not log.curves:
        raise UnreadableLogError(
            f"{str(path)!r} holds no scalar that can be read: it is cut off or empty, or no event file"
        )
    return log


def _take(log: Log, tag: str, step: int, value: float, time: float) -> None:
    log.curves.setdefault(tag, {})[step] = value
    log.times[step] = time
