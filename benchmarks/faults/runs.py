"""Runs of the bench, kept: what was trained is not trained again, what was judged not judged."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import uuid
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.judging import judge, report_of
from otoscope.diagnostics.reader import Reader
from otoscope.store import Store, connect
from otoscope.store.schemas import plain

from .case import Case, text_of
from .training import COLUMNS, train

ROOT = Path(__file__).parents[2]
OUT = ROOT / "benchmarks" / "out" / "faults"
JUDGES = ("diagnostics",)
RECORDS = ("callbacks", "store", "benchmarks/faults")
"""Folders whose code decides what is judged, and what is recorded."""
NOT_RUNNING = (
    "advice.py",
    "bench.py",
    "null_rates.py",
    "printed.py",
    "quick.py",
    "case.py",
    "__main__.py",
    "running.py",
    "card.py",
    "page.py",
    "efficacy.py",
    "warned.py",
    "logs.py",
    "runs.py",
)
"""Files of the bench that neither train nor judge."""
DEMO = ("demo.py", "digits.py")
"""Files of the recorder that are no part of what records a run."""


def digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


@cache
def code(folders: tuple[str, ...], reserved: bool = False) -> str:
    """Return a hash of the code and numbers of some folders, of what is held out only where asked."""
    told = hashlib.blake2b(digest_size=8)
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix not in (".py", ".toml") or path.parent.name == "cases":
                continue
            if folder == "callbacks" and path.name in DEMO:
                continue
            ours = path.parent == Path(__file__).parent
            if (ours and path.name in NOT_RUNNING) or path.name == "null_rates.toml":
                continue
            if path.parent.name == "reserved" and not reserved:
                continue
            told.update(path.read_bytes())
    return told.hexdigest()


def _recorder(case: Case) -> str:
    """Return a hash of what records a case; tuning cases may use nothing that is held out."""
    return code(RECORDS, reserved=case.set == "held-out")


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):  # there is none, or one cut off by a kill
        return None


def _keep(path: Path, body: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{uuid.uuid4().hex}.part")
    part.write_text(json.dumps(plain(dict(body))), encoding="utf-8")
    part.replace(path)


def _still(out: Path) -> Path:
    torch.set_num_threads(1)
    logging.getLogger("otoscope").setLevel(logging.ERROR)
    return out


def folder_of(case: Case, seed: int, column: str, out: Path = OUT) -> Path:
    """Return where a run's recording is kept; `told.json` is in it once it is whole."""
    return out / "recordings" / digest(text_of(case.body), str(seed), column)


def recorded(case: Case, seed: int, column: str, out: Path = OUT, fresh: bool = False) -> Path:
    """Return the folder of a recorded run, trained where it is not kept."""
    folder = folder_of(case, seed, column, _still(out))
    told = _kept(folder / "told.json")
    by = _recorder(case)
    if told is not None and not (fresh and told["by"] != by):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if case.body["loop"] == "gan":
        from .adversarial import train_gan

        ended = train_gan(case.body, seed, folder, case.name, **COLUMNS[column])
    elif "loader_seconds" in (case.body["machine"] or {}):
        from .lightning_loop import train_in_lightning

        ended = train_in_lightning(case.body, seed, folder, case.name, **COLUMNS[column])
    elif int(case.body["ranks"]) > 1:
        from .ranks import train_in_ranks

        ended = train_in_ranks(case.body, seed, folder, case.name, **COLUMNS[column])
    else:
        ended = train(case.body, seed, folder, case.name, **COLUMNS[column])
    _keep(
        folder / "told.json", {**ended, "by": by, "case": case.name, "seed": seed, "column": column}
    )
    _keep(_plain_path(case.body, seed, out), ended)
    return folder


def is_old(folder: Path, case: Case) -> bool:
    """Tell whether a kept recording was made by another state of the recorder than this."""
    return (_kept(folder / "told.json") or {}).get("by") != _recorder(case)


def _plain_path(body: Mapping[str, Any], seed: int, out: Path) -> Path:
    return out / "trained" / f"{digest(text_of(body), str(seed))}.json"


def trained(body: Mapping[str, Any], seed: int, out: Path = OUT) -> dict[str, Any]:
    """Return how a training ended: kept, or trained without Otoscope."""
    path = _plain_path(body, seed, _still(out))
    told = _kept(path)
    if told is None:
        told = plain(train(body, seed))
        _keep(path, told)
    return told


def judged(
    case: Case, seed: int, column: str, out: Path = OUT, fresh: bool = False
) -> dict[str, Any]:
    """Return what Otoscope says of a recorded run: the run JSON, and when each rule fired first."""
    folder = recorded(case, seed, column, out, fresh)
    path = folder / "judged" / f"{code(JUDGES)}.json"
    told = _kept(path)
    if told is None:
        ended = _kept(folder / "told.json") or {}
        run = str(ended["run"])
        fired, report = watched(connect(folder / run), run)
        told = {"fired": fired, "report": report, "old": is_old(folder, case), "ended": ended}
        shutil.rmtree(path.parent, ignore_errors=True)
        _keep(path, told)
    return told


def watched(store: Store, run: str) -> tuple[dict[str, int], dict[str, Any]]:
    """Return the step at which each rule first fired, as one who watched saw it, and the verdict."""
    fold = Fold(run, store.meta(run), store.home.schemas(run))
    reader = Reader(store.home, fold)
    fired: dict[str, int] = {}
    while reader.pull():
        while fold.judge(most=1):
            for finding in fold.findings():
                fired.setdefault(finding.rule, fold.place.step)
    # where a rank sent less than the others, what is behind it is judged without it at the end
    report = judge(store, run) if fold.lagging() else report_of(fold)
    for finding in report["findings"]:
        fired.setdefault(finding["rule"], int(finding["last_step"]))
    return fired, report
