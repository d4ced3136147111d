"""A case of the bench: one run as a TOML table describes it, checked before anything trains."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from otoscope.diagnostics.rules import RULES
from otoscope.store.errors import OtoscopeError

from . import parts
from .sets import reserved

CASES = Path(__file__).parent / "cases"
KINDS = ("fault", "healthy", "look-alike")
LOOPS = ("plain", "gan")
SETS = ("tuning", "held-out", "published")
TRAINING: dict[str, Any] = {
    "net": None,
    "start": None,
    "data": None,
    "loss": "cross_entropy",
    "optimizer": None,
    "schedule": None,
    "warmup": 0,
    "clip": None,
    "class_weights": None,
    "normalize": None,
    "batch": 64,
    "accumulate": 1,
    "steps": 600,
    "stop": None,
    "switch": None,
    "order": "shuffled",
    "spoil": None,
    "machine": None,
    "scaler": None,
    "validate_every": 50,
    "checkpoint_every": 0,
    "task": "supervised",
    "loop": "plain",
    "ranks": 1,
}
"""What makes a training, with the defaults; None stands for "none", or must be given."""
ABOUT = ("kind", "set", "expect", "tempts", "twin", "onset", "mend", "why", "source", "like")
"""What is said about the training."""
REQUIRED = ("kind", "set", "net", "data", "optimizer")
RESERVED = {"net": tuple(reserved.NETS), "data": tuple(reserved.DATA)}
"""What no threshold was chosen on: a held-out case has a net and data of these, a tuning case neither."""
UNPLANTED = ("edge_of_stability", "stalled", "memory_growth", "throughput_drop", "lost_samples")
"""Rules that never fire, or that a clock decides: they are tested on synthetic frames."""


class CaseError(OtoscopeError):
    """Raised when a case file says something that the bench does not know."""


@dataclass(frozen=True)
class Case:
    """One run: what trains on what, and what ought to be said of it.

    `body` holds every key of TRAINING; two cases of the same body are the same training.
    """

    name: str
    kind: str
    set: str
    body: Mapping[str, Any]
    expect: tuple[str, ...] = ()
    tempts: tuple[str, ...] = ()
    twin: Mapping[str, Any] | None = None
    onset: int = 1
    mend: bool = True
    why: str = ""
    source: str = ""
    area: str = ""

    @cached_property
    def healthy(self) -> Mapping[str, Any] | None:
        """The body of the healthy twin; None where there is none.

        It is no dearer: a twin in larger batches takes fewer steps, unless it says how many. What it learns from
        samples that the fault never sees no setting gives back.
        """
        if self.twin is None:
            return None
        body = {**self.body, **self.twin}
        if _samples(body) > _samples(self.body) and "steps" not in self.twin:
            body["steps"] = max(1, round(body["steps"] * _samples(self.body) / _samples(body)))
        return body

    @property
    def net(self) -> str:
        """The net's architecture and data, as the score card groups by."""
        return f"{_name(self.body['net'])} on {_name(self.body['data'])}"


def _samples(body: Mapping[str, Any]) -> int:
    """Return how many samples a training sees, repeated ones counted again."""
    return int(body["batch"]) * int(body["accumulate"]) * int(body["steps"])


def _name(part: Any) -> str:
    return str(part["name"] if isinstance(part, Mapping) else part)


def load_cases(folder: Path = CASES) -> list[Case]:
    """Return the cases of all files of a folder; raises CaseError at the first that cannot be used."""
    tables: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            file = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise CaseError(f"{path.name} is no TOML: {error}") from error
        for name, table in file.items():
            if name in tables:
                raise CaseError(f"[{name}] stands in {tables[name][0]}.toml and in {path.name}")
            tables[name] = (path.stem, table)
    return [_case(name, tables) for name in tables]


def _resolved(name: str, tables: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return a table with the training of the case that it is `like` below its own keys."""
    table = tables[name][1]
    like = table.get("like")
    if like is None:
        return table
    if like not in tables or like == name:
        raise CaseError(f"[{name}] is like {like!r}, which is no other case; name one")
    base = {key: value for key, value in _resolved(like, tables).items() if key in TRAINING}
    return {**base, **table}


def _case(name: str, tables: Mapping[str, tuple[str, dict[str, Any]]]) -> Case:
    area, own = tables[name]
    table = _resolved(name, tables)
    unknown = [key for key in table if key not in TRAINING and key not in ABOUT]
    if unknown:
        known = ", ".join([*ABOUT, *TRAINING])
        raise CaseError(f"[{name}] of {area}.toml has {', '.join(unknown)}; known are {known}")
    missing = [key for key in REQUIRED if table.get(key) is None]
    if missing:
        raise CaseError(f"[{name}] of {area}.toml lacks {', '.join(missing)}")
    _one_of(name, "kind", table["kind"], KINDS)
    _one_of(name, "set", table["set"], SETS)
    _one_of(name, "loop", table.get("loop", "plain"), LOOPS)
    for key in ("expect", "tempts"):
        _rules(name, key, own.get(key, []))
    if table["kind"] == "fault" and not own.get("expect"):
        raise CaseError(
            f"[{name}] is a fault; `expect` must name the rules that may name its cause"
        )
    twin = own.get("twin")
    if twin is not None and (odd := [key for key in twin if key not in TRAINING]):
        raise CaseError(
            f"[{name}] has a twin that differs in {', '.join(odd)}, no key of a training"
        )
    body = {key: table.get(key, default) for key, default in TRAINING.items()}
    for checked in (body, {**body, **(twin or {})}):
        try:
            parts.check(checked)
        except (KeyError, TypeError) as error:
            raise CaseError(f"[{name}] of {area}.toml: {error.args[0]}") from error
    reserved = [part for key in RESERVED if (part := _name(body[key])) in RESERVED[key]]
    if table["set"] == "tuning" and reserved:
        raise CaseError(
            f"[{name}] of {area}.toml tunes on {', '.join(reserved)}, which is held out"
        )
    if table["set"] == "held-out" and len(reserved) < len(RESERVED):
        raise CaseError(
            f"[{name}] of {area}.toml is held out, but {_name(body['net'])} or {_name(body['data'])} "
            "is tuned on"
        )
    return Case(
        name=name,
        kind=str(table["kind"]),
        set=str(table["set"]),
        body=body,
        expect=tuple(own.get("expect", ())),
        tempts=tuple(own.get("tempts", ())),
        twin=twin,
        onset=int(own.get("onset", 1)),
        mend=bool(own.get("mend", True)),
        why=str(own.get("why", "")),
        source=str(own.get("source", "")),
        area=area,
    )


def _one_of(name: str, key: str, value: Any, known: Iterable[str]) -> None:
    if value not in known:
        raise CaseError(f"[{name}] has {key} = {value!r}; it must be one of {', '.join(known)}")


KNOWN_RULES = frozenset(rule.id for rule in RULES)
PLANNED = frozenset(
    [
        "non_finite",
        "loss_scale_collapse",
        "exploding_gradients",
        "loss_spike",
        "outlier_batch",
        "stale_second_moment",
        "lr_too_high",
        "lr_too_low",
        "oscillating_loss",
        "plateau",
        "missing_warmup",
        "ill_conditioned",
        "nonlinear_step",
        "vanishing_gradients",
        "dead_units",
        "saturated_activations",
        "activation_drift",
        "frozen_layer",
        "symmetric_weights",
        "bad_initialization",
        "update_imbalance",
        "batch_too_small",
        "batch_too_large",
        "clipping_too_tight",
        "input_problem",
        "overfitting",
        "wrong_head",
        "straggler",
        "rank_desync",
        "input_bound",
        "stalled",
        "memory_growth",
        "throughput_drop",
        "lost_samples",
    ]
)
"""The catalogue: a case may be written before its rule is."""


def _rules(name: str, key: str, ids: Iterable[str]) -> None:
    odd = [rule for rule in ids if rule not in KNOWN_RULES | PLANNED]
    if odd:
        raise CaseError(f"[{name}] has {key} = {odd}, which are no rules of the catalogue")


def text_of(body: Mapping[str, Any]) -> str:
    """Return a body as one canonical line, the same for the same training."""
    told = {key: value for key, value in body.items() if TRAINING.get(key) != value}
    return json.dumps(told, sort_keys=True, separators=(",", ":"))
