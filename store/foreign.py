"""Foreign runs: logs that we did not record, read as a run that can be judged as far as they go."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from .errors import UnreadableLogError
from .keys import RUN_ID
from .log_curves import Log
from .log_files import logs_in, read_log_file
from .log_names import signals
from .memory import MemoryHome
from .recording import Recording
from .rollups import Rollups
from .schemas import Column, Event, Frame, Schema

SIGNALS = ("step", "loss", "lr", "grad_norm", "val_loss")
"""What a reader may say a column to be."""
AT_ONCE = 5000
JUMP = 2


def read_foreign(path: Path, columns: Mapping[str, str] | None = None) -> Recording:
    """Read a log that we did not record as a run: loss, rate, gradient norm and validation by step.

    Args:
        path: a CSV file, a TensorBoard event file, or a folder that holds one of them.
        columns: {one of SIGNALS: the name of its column}, for what its name does not tell.

    Steps that are counted from 0 are counted from 1. What was not logged is not measured; a rate
    holds until the next one that was logged. `damage` of the recording tells what was read as what.

    Raises:
        UnreadableLogError: the log cannot be read, holds no loss, or not the columns that were named.
        MissingExtraError: it is an event file and the package `tensorboard` is not installed.
    """
    path, told = Path(path), dict(columns or {})
    file = _the_log_in(path) if path.is_dir() else path
    log = read_log_file(file, told.pop("step", None), told.get("loss"))
    written = file.stat().st_mtime  # where no time is told
    found = _found(log, told, file)
    run = run_id_of(file)
    recording = Recording(MemoryHome(), run, list(log.remarks))
    recording.damage.append(
        "read " + ", ".join(f"{name!r} as {signal}" for signal, name in found.items())
    )
    first = 1 if min((min(log.curves[name]) for name in found.values()), default=1) == 0 else 0
    steps = {step for name in found.values() for step in log.curves[name]}
    log.times = dict.fromkeys(steps, written) | log.times
    _fill(recording, log, found, first)
    return recording


def _the_log_in(folder: Path) -> Path:
    logs = logs_in(folder)
    if len(logs) == 1:
        return logs[0]
    if not logs:
        raise UnreadableLogError(f"{str(folder)!r} holds neither a CSV file nor event files")
    listed = ", ".join(str(path) for path in logs[:5]) + (", …" if len(logs) > 5 else "")
    raise UnreadableLogError(f"{str(folder)!r} holds {len(logs)} logs; name one: {listed}")


def run_id_of(path: Path) -> str:
    """Return the id of the run that a log holds, by its name and its folder's.

    >>> run_id_of(Path("lightning_logs/version_0/metrics.csv"))
    'version_0-metrics'
    """
    stem = "events" if "tfevents" in path.name else path.stem
    words = [path.resolve().parent.name, stem] if path.suffix else [path.resolve().name]
    text = re.sub(r"[^a-z0-9_.-]+", "-", "-".join(filter(None, words)).lower())[-60:].strip("-._")
    return text if RUN_ID.match(text) else "log"


def _found(log: Log, told: Mapping[str, str], path: Path) -> dict[str, str]:
    """Return {signal: name of its curve}: loss, lr, grad_norm, epoch, and val_… for each score of a validation."""
    for signal, name in told.items():
        if name not in log.curves:
            raise UnreadableLogError(
                f"no column {name!r} of numbers to read as {signal} in {str(path)!r}; "
                f"it has {_listed(log)}"
            )
    known = signals(log.curves) | dict(told)
    if "loss" not in known and "val_loss" not in known:
        raise UnreadableLogError(
            f"no column of {str(path)!r} is named as a loss; it has {_listed(log)}. "
            "Say which it is: --column loss=NAME"
        )
    return known


def _listed(log: Log) -> str:
    names = sorted(log.curves)
    return (
        ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
        if names
        else "no column of numbers"
    )


def _fill(recording: Recording, log: Log, found: Mapping[str, str], first: int) -> None:
    """Put the curves into the home as frames of the families train and validation."""
    home, run = recording.home, recording.run
    home.begin_attempt(run)
    curves = {signal: log.curves[name] for signal, name in found.items()}
    scores = {signal: curve for signal, curve in curves.items() if signal.startswith("val_")}
    frames = _validations(home, run, scores, log.times, first)
    if "loss" in curves:
        frames += _training(home, run, curves, log.times, first)
    frames.sort(key=lambda frame: frame.step)
    rollups = Rollups()
    for i in range(0, len(frames), AT_ONCE):
        some = frames[i : i + AT_ONCE]
        home.append(run, some, buckets=rollups.take(some))
    last, began, over = frames[-1].step, frames[0].time, frames[-1].time
    started = Event(
        "started",
        0,
        1,
        0,
        began,
        {"start_step": frames[0].step - 1, "world_size": 1, "settings": {}},
    )
    finished = Event("finished", last, 1, 0, over, {"last_step": last})
    home.append(run, [], [started, *_jumps(curves.get("lr", {}), log.times, first), finished])
    home.write_meta(run, {
        "name": run, "started": began, "began": began, "world_size": 1, "tags": ["log"],
        "left": {"0": over}, "heartbeat": {"0": over},
        "progress": {"step": last, **_losses(curves.get("loss", {}))},
        "ended": {"attempt": 1, "how": "finished", "t": over, "reason": "end of the log"},
        "config": {"loop": "log"},
    })  # fmt: skip


def _losses(curve: Mapping[int, float]) -> dict[str, float]:
    values = _as_stored([value for _, value in sorted(curve.items())])
    finite = values[np.isfinite(values)].tolist()
    return {"loss": finite[-1], "loss_best": min(finite)} if finite else {}


def _jumps(rates: Mapping[int, float], times: Mapping[int, float], first: int) -> list[Event]:
    """Return the events `lr` of a rate that was set to more than twice, or less than half, of what it was."""
    told: list[Event] = []
    steps = sorted(rates)
    for before, step in pairwise(steps):
        old, new = rates[before], rates[step]
        if new > JUMP * old > 0 or old > JUMP * new > 0:
            phase = "warmup" if new > old else "decay"
            body = {"optimizer": 0, "group": "0", "from": old, "to": new, "phase": phase}
            told.append(Event("lr", step + first, 1, 0, times[step], body))
    return told


def _training(
    home: MemoryHome,
    run: str,
    curves: Mapping[str, Mapping[int, float]],
    times: Mapping[int, float],
    first: int,
) -> list[Frame]:
    asked = ("lr", "grad_norm", "epoch")
    names = ["loss", *(name for name in asked if name in curves), "non_finite"]
    columns = [Column.of("grad_sq" if name == "grad_norm" else name) for name in names]
    schema = Schema("train", tuple(columns))
    home.add_schema(run, schema)
    # a rate logged before the first loss holds there
    rates = sorted(curves.get("lr", {}).items())
    frames, rate, place = list[Frame](), rates[0][1] if rates else math.nan, 0
    for step in sorted(curves["loss"]):
        while place < len(rates) and rates[place][0] <= step:
            rate, place = rates[place][1], place + 1
        loss, norm = curves["loss"][step], curves.get("grad_norm", {}).get(step, math.nan)
        row = {"loss": loss, "lr": rate, "grad_norm": norm * norm, "non_finite": 0.0}
        row["epoch"] = curves.get("epoch", {}).get(step, math.nan)
        values = _as_stored([row[name] for name in names])
        bad = not np.isfinite(values[0])
        if step in curves.get("grad_norm", {}):
            bad |= not np.isfinite(values[names.index("grad_norm")])
        values[-1] = bad
        frames.append(Frame("train", 0, 1, step + first, times[step], schema.hash, values))
    return frames


def _validations(
    home: MemoryHome,
    run: str,
    scores: Mapping[str, Mapping[int, float]],
    times: Mapping[int, float],
    first: int,
) -> list[Frame]:
    if not scores:
        return []
    schema = Schema("validation", tuple(Column.of(name) for name in scores))
    home.add_schema(run, schema)
    frames: list[Frame] = []
    for step in sorted({step for curve in scores.values() for step in curve}):
        values = _as_stored([curve.get(step, math.nan) for curve in scores.values()])
        frames.append(Frame("validation", 0, 1, step + first, times[step], schema.hash, values))
    return frames


def _as_stored(values: list[float]) -> np.ndarray:
    """Return numbers as a frame holds them: of 32 bits, infinite where they are too large for that."""
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)
