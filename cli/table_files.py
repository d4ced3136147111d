"""Files of tables: CSV and Parquet, written table by table and whole or not at all."""

from __future__ import annotations

import csv
import errno
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from ..store import MissingExtraError, StoreError
from ..store.exporting import Table

KEYS = ("step", "time", "attempt")
"""The first columns of every file."""
NUMBERS_AT_ONCE = 50_000
"""Values that are text at once: 128 bytes each, and then a Python string."""
NUMBERS_A_GROUP = 4_000_000
"""Values of a row group, 16 MB: what describes a group and its columns stays in memory to the end,
1.5 GB of it for 96 groups of 2,400 columns."""
ENDINGS = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds: run, family, recorded columns with their units, extremes beside them."""

    run: str
    family: str
    columns: Sequence[str]
    units: dict[str, str]
    extremes: bool = False

    @property
    def names(self) -> list[str]:
        """Written names behind the KEYS; a reduced column has its lowest and highest beside it."""
        plain = [f"{name} (recorded)" if name in KEYS else name for name in self.columns]
        if not self.extremes:
            return plain
        return [f"{name}{end}" for name in plain for end in ("", ":low", ":high")]

    def values(self, table: Table) -> np.ndarray:
        """Return float32[n, len(names)]."""
        series = table.series
        if not self.extremes:
            return series.values
        return np.stack([series.values, series.low, series.high], axis=2).reshape(len(table), -1)


class TableFile(Protocol):
    """A file that takes tables one after the other."""

    def write(self, table: Table) -> None: ...

    def close(self) -> None: ...


class CsvFile:
    """CSV with a header; times are UTC ISO 8601, `NaN` is not measured, `inf` and `-inf` are data."""

    def __init__(self, file: IO[str], layout: Layout) -> None:
        self._layout = layout
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow([*KEYS, *layout.names])

    def write(self, table: Table) -> None:
        values = self._layout.values(table).astype(np.float32, copy=False)
        steps, times = table.series.steps.tolist(), iso_times(table.series.times)
        attempts = table.attempts.tolist()
        some = max(1, NUMBERS_AT_ONCE // max(values.shape[1], 1))
        for first in range(0, len(values), some):
            part = slice(first, first + some)
            # str of a float32 is its shortest form that reads back to the same number
            texts = values[part].astype(str)
            texts[texts == "nan"] = "NaN"
            keys = zip(steps[part], times[part], attempts[part], strict=True)
            for key, row in zip(keys, texts.tolist(), strict=True):
                self._writer.writerow([*key, *row])

    def close(self) -> None:
        return None


class ParquetFile:
    """Parquet, zstd: step int64, time timestamp[us, UTC], attempt int32, float32 columns."""

    def __init__(self, file: IO[bytes], layout: Layout) -> None:
        self._arrow, parquet = _pyarrow()
        arrow, self._layout = self._arrow, layout
        fields = [
            arrow.field("step", arrow.int64()),
            arrow.field("time", arrow.timestamp("us", tz="UTC")),
            arrow.field("attempt", arrow.int32()),
        ]
        for name in layout.names:
            unit = layout.units.get(name.removesuffix(":low").removesuffix(":high"), "")
            about = {"unit": unit} if unit else None
            fields.append(arrow.field(name, arrow.float32(), metadata=about))
        about = {"otoscope.run": layout.run, "otoscope.family": layout.family}
        self._schema = arrow.schema(fields, metadata=about)
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._held: list[Any] = []

    def write(self, table: Table) -> None:
        arrow, series = self._arrow, table.series
        values = np.ascontiguousarray(self._layout.values(table).T)
        arrays = [
            arrow.array(series.steps.astype(np.int64, copy=False)),
            arrow.array(microseconds(series.times), type=self._schema.field("time").type),
            arrow.array(table.attempts),
            *(arrow.array(column) for column in values),
        ]
        self._held.append(arrow.Table.from_arrays(arrays, schema=self._schema))
        if sum(held.num_rows for held in self._held) * len(arrays) >= NUMBERS_A_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        if self._held:
            whole = self._arrow.concat_tables(self._held).combine_chunks()
            self._writer.write_table(whole, row_group_size=whole.num_rows)
            self._held.clear()

    def close(self) -> None:
        self._write_group()
        self._writer.close()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            "Parquet needs pyarrow, which is not installed; `pip install 'otoscope[parquet]'`, or "
            "export to a file that ends in .csv"
        ) from error
    return pyarrow, parquet


def check_format(kind: str) -> None:
    """Raise MissingExtraError where a format's library is not there, before a run is read."""
    if kind == "parquet":
        _pyarrow()


def microseconds(times: np.ndarray) -> np.ndarray:
    """Return epoch seconds as datetime64[us]; what is no time is NaT."""
    sound = np.isfinite(times) & (np.abs(times) < 1e11)
    whole = np.round(np.where(sound, times, 0.0) * 1e6).astype(np.int64)
    return np.where(sound, whole.astype("datetime64[us]"), np.datetime64("NaT", "us"))


def iso_times(times: np.ndarray) -> list[str]:
    """Return epoch seconds as UTC ISO 8601.

    >>> iso_times(np.array([0.25]))
    ['1970-01-01T00:00:00.250000Z']
    """
    texts = np.datetime_as_string(microseconds(times), unit="us")
    return [f"{text}Z" if text != "NaT" else "" for text in texts.tolist()]


@contextmanager
def table_file(path: Path, kind: str, layout: Layout) -> Iterator[TableFile]:
    """Yield a file that appears under its name once it is whole; `-` is stdout.

    Raises StoreError where the disk takes no more; nothing is left of the file then.
    """
    if str(path) == "-":
        yield CsvFile(sys.stdout, layout)
        sys.stdout.flush()
    elif path.exists() and not stat.S_ISREG(path.stat().st_mode):
        with _said(path), _opened(path, kind) as file:  # a pipe or a device: nothing to replace
            yield from _written(file, kind, layout)
    else:
        with _said(path), _atomic(path, kind) as file:
            yield from _written(file, kind, layout)


def _written(file: IO[Any], kind: str, layout: Layout) -> Iterator[TableFile]:
    writer: TableFile = CsvFile(file, layout) if kind == "csv" else ParquetFile(file, layout)
    yield writer
    writer.close()


def _opened(path: Path | int, kind: str) -> IO[Any]:
    if kind == "csv":
        return open(path, "w", encoding="utf-8", newline="")  # noqa: PTH123 (also a descriptor)
    return open(path, "wb")  # noqa: PTH123


@contextmanager
def _atomic(path: Path, kind: str) -> Iterator[IO[Any]]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with _opened(handle, kind) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # as any file that the user writes, not as a secret
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
        remedy = "free some space, or choose fewer columns" if full else "choose another place"
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}; {remedy}; nothing was written"
        ) from error
