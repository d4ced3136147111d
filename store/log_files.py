"""Log files of other loggers: CSV files, and by `event_files` TensorBoard's, read as curves by step."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import UnreadableLogError
from .event_files import EVENTS, is_event_file, read_events
from .log_curves import LARGEST, Log, Writing
from .log_names import EPOCHS, loss_of, plain_name
from .log_steps import (
    GOING_ON,
    STEPS,
    TOTALS,
    Numbers,
    counted_again,
    counted_on,
    counts_within_epochs,
    falls_only,
    go_on,
    parts,
    rows_in_order,
)

CSV_ENDINGS = (".csv", ".tsv", ".txt", ".log")
DELIMITERS = ",;\t|"
HOLDS_SOMETHING = re.compile(r"[^\s,;|]")
TIMES = ("wall_time", "_timestamp", "timestamp", "time", "walltime", "wall time")


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows of a CSV file as text, with the names of their columns."""

    path: Path
    names: list[str]
    rows: list[list[str]]
    delimiter: str

    def place(self, known: Sequence[str]) -> int | None:
        """Return the place of the first of some names that a column has, None where none has."""
        names = [_plain(name) for name in self.names]
        return next((names.index(name) for name in known if name in names), None)

    def numbers(self, place: int | None) -> list[float | None]:
        """Return the finite number of each row in a column, None where there is none."""
        if place is None:
            return [None] * len(self.rows)
        cells = (row[place] if place < len(row) else "" for row in self.rows)
        numbers = (_number(cell, self.delimiter) for cell in cells)
        return [
            number if number is not None and math.isfinite(number) else None for number in numbers
        ]

    def epochs(self) -> list[float | None]:
        """Return the epoch of each row, None where it tells none."""
        names = [plain_name(name) for name in self.names]
        return self.numbers(next((names.index(name) for name in EPOCHS if name in names), None))

    def counts(self, place: int | None) -> list[int | None]:
        """Return the step of each row in a column, None where there is none."""
        return [_step(value) for value in self.numbers(place)]

    def told(self, place: int | None) -> list[bool]:
        """Tell of each row whether it holds anything in a column; of all where there is no such column."""
        if place is None:
            return [True] * len(self.rows)
        return [place < len(row) and bool(row[place].strip()) for row in self.rows]


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
    return tables + ([folder] if any(map(is_event_file, inside)) else [])


def read_log_file(path: Path, step: str | None = None, loss: str | None = None) -> Log:
    """Return the curves of a CSV file (any delimiter), an event file, or a folder of event files.

    Args:
        path: the file, or the folder.
        step: the column of a CSV file that counts steps; None finds it by name, and counts rows
            where there is none.
        loss: the curve whose steps tell where a run was started again; None finds it by name.

    Raises:
        UnreadableLogError: there is no such file, or it holds no numbers that can be read.
        MissingExtraError: event files are read by the package `tensorboard`, which is not there.
    """
    if path.is_dir() or EVENTS in path.name:
        return read_events(path, loss)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UnreadableLogError(f"cannot read {str(path)!r}: {error.strerror}") from error
    if b"\0" in text[:4096]:
        raise UnreadableLogError(
            f"{str(path)!r} is neither a CSV file nor a TensorBoard event file (their names hold "
            f"{EVENTS!r}); give one of these, or the folder of a recorded run"
        )
    return _read_table(path, text.decode("utf-8-sig", errors="replace"), step, loss)


def _read_table(path: Path, text: str, asked: str | None, loss: str | None) -> Log:
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
    table = _Table(path, names, list(rows), delimiter)
    if not table.rows:
        raise UnreadableLogError(f"{str(path)!r} names its columns and holds no row yet")
    log = Log()
    counter = _step_column(table, asked)
    loss = loss if loss in names else _loss_column(table)
    if falls_only(table.epochs(), table.counts(counter)):
        table.rows.reverse()
        log.remarks.append("the rows stand from the last to the first: they are read from the end")
    _fill(log, table, counter, _steps(log, table, counter, loss, asked is not None), loss)
    return log


def _fill(
    log: Log, table: _Table, counter: int | None, steps: Sequence[int | None], loss: str | None
) -> None:
    """Put the columns of numbers into the log as curves, but those of steps and times."""
    clock = table.place(TIMES)
    writing, words = Writing(), dict[str, int]()
    for row, step, time in zip(table.rows, steps, table.numbers(clock), strict=True):
        if step is None:
            continue
        writing.at(step)
        for i, (name, cell) in enumerate(zip(table.names, row, strict=False)):
            if i in (counter, clock) or not cell.strip():
                continue
            value = _number(cell, table.delimiter)
            if value is None:
                words[name] = words.get(name, 0) + 1
            else:
                writing.add(name, value)
        if time is not None:
            log.times[step] = time
    log.remark(steps.count(None), "row without a step was left out",
               "rows without a step were left out")  # fmt: skip
    writing.settle(log, lead=loss, together=True)
    for name, count in words.items():
        if name in log.curves:
            log.remark(
                count, f"value of {name!r} is no number", f"values of {name!r} are no numbers"
            )


def _steps(
    log: Log, table: _Table, counter: int | None, loss: str | None, is_told: bool
) -> Sequence[int | None]:
    """Return the step of each row, and remark where rows are counted, or cannot be for sure."""
    epochs = table.epochs()
    # a validation may look back at any time: rows without a loss tell of no start, and of no epoch
    has_loss = table.told(None if loss is None else table.names.index(loss))
    if counter is None:
        log.remarks.append("no column counts steps: each row counts as one")
        return rows_in_order(_where(has_loss, epochs))
    counts, name = table.counts(counter), table.names[counter]
    if _plain(name) in TOTALS:
        return counts
    blank = [len(row) <= counter or not row[counter].strip() for row in table.rows]
    begins_anew = f"{name!r} begins anew with each epoch: each row counts as one step"
    if counts_within_epochs(counts, epochs):
        log.remarks.append(begins_anew)
        return counted_on(counts, blank, epochs)
    part = parts(_where(has_loss, counts))
    if is_told or any(epoch is not None for epoch in epochs):
        return counts
    again = counted_again(_where(has_loss, counts), part)
    if sum(again) < GOING_ON:
        return counts
    losses = table.numbers(None if loss is None else table.names.index(loss))
    if all(again) and go_on(losses, part):
        log.remarks.append(begins_anew)
        return counted_on(counts, blank, part)
    log.remarks.append(
        f"{name!r} begins anew and no column counts epochs, so that epochs and starts of a run cannot be "
        "told apart: what came last is read; if these are epochs, name the column that counts all steps "
        "(--column step=NAME) or add one that counts epochs, and if they are runs, split the file"
    )
    return counts


def _where(is_so: Sequence[bool], values: Numbers) -> list[float | None]:
    return [value if so else None for so, value in zip(is_so, values, strict=True)]


def _loss_column(table: _Table) -> str | None:
    """Return the name of the loss of training, None where no name tells which it is."""
    counts = {name: range(sum(table.told(i))) for i, name in enumerate(table.names)}
    return loss_of({name: count for name, count in counts.items() if count})


def _rows(path: Path, text: str, delimiter: str) -> Iterator[list[str]]:
    try:
        # lines end as csv has it: str.splitlines would end them within a cell, too, as at U+2028
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if any(cell.strip() for cell in row):
                yield row
    except csv.Error as error:
        raise UnreadableLogError(f"{str(path)!r} is no CSV file: {error}") from error


def _plain(name: str) -> str:
    """Return a name as it is compared.

    >>> _plain(" Global-Step ")
    'global_step'
    """
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def _step_column(table: _Table, asked: str | None) -> int | None:
    if asked is None:
        return table.place(STEPS)
    if asked not in table.names:
        raise UnreadableLogError(
            f"{str(table.path)!r} has no column {asked!r}; it has {', '.join(table.names)}"
        )
    return table.names.index(asked)


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


def _step(value: float | None) -> int | None:
    """Return a number as a step, None where it is none: negative, a part of one, or too large."""
    if value is None or not 0 <= value <= LARGEST or value != int(value):
        return None
    return int(value)
