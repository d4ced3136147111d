"""Comparing: what tells runs apart in settings, results, verdicts and obstacles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..store import Meta, Store
from ..store.findings import hidden_ids
from ..store.schemas import Json, plain
from .rules.overfitting import chosen

COMPARED = (
    *("model", "task", "max_steps", "parameter_count", "training_samples", "precision"),
    *("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches", "batch_size"),
    *("num_workers", "world_size", "classes", "budget", "probes"),
)
"""Fields of Meta that are settings; the optimizers' and those of `config` come besides."""

OBSTACLES = ("non_linearity", "conditioning", "noise")


@dataclass(frozen=True, slots=True)
class Side:
    """One run of a comparison: its store, its id, and what `judge` or `summary` returned for it."""

    store: Store
    run: str
    judged: Mapping[str, Json]


def compare(sides: Sequence[Side]) -> dict[str, Json]:
    """Return what tells runs apart, as docs/shapes.md writes it.

    Args:
        sides: two runs or more; they may lie in different stores.
    """
    settings = [_settings(side.store.meta(side.run), side.judged) for side in sides]
    names = dict.fromkeys(name for one in settings for name in one)
    found = [_rules(side.judged) for side in sides]
    every = dict.fromkeys(rule for rules in found for rule in rules)
    return plain(
        {
            "runs": [_row(side) for side in sides],
            "settings": {
                name: values
                for name in names
                for values in [[one.get(name) for one in settings]]
                if any(value != values[0] for value in values)
            },
            "findings": {
                "all": [rule for rule in every if all(rule in rules for rules in found)],
                "some": {
                    rule: [rule in rules for rules in found]
                    for rule in every
                    if not all(rule in rules for rules in found)
                },
            },
            "obstacles": {
                name: [(side.judged.get("obstacles") or {}).get(name) or {} for side in sides]
                for name in OBSTACLES
            },
        }
    )


def _row(side: Side) -> dict[str, Json]:
    info = side.store.run(side.run)
    return {
        "run": side.run,
        "name": info.name,
        "status": info.status,
        "step": info.step,
        "loss": {"last": info.loss_last, "best": info.loss_best},
        "validation": _validation(side),
        "state": side.judged["state"],
        "verdict": side.judged["verdict"],
        "judged": len(side.judged["judged"]),
        "findings": [
            {name: item[name] for name in ("rule", "severity", "state", "first_step", "title")}
            for item in _roots(side.judged)
        ],
    }


def _validation(side: Side) -> dict[str, Json] | None:
    """Return the validation loss's name with its last and least value; None without one.

    A module that logs its training loss has that among what a validation leaves behind, too.
    """
    rows = side.store.read(side.run, "validation")
    name, _ = chosen(list(rows.columns))
    values = rows.column(name) if name else np.empty(0)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    return {"name": name, "last": float(finite[-1]), "best": float(finite.min())}


def _roots(judged: Mapping[str, Json]) -> list[Mapping[str, Json]]:
    hidden = hidden_ids(judged["findings"])
    return [item for item in judged["findings"] if item["id"] not in hidden]


def _rules(judged: Mapping[str, Json]) -> list[str]:
    """Return the rules that found something, in their order, each once."""
    return list(dict.fromkeys(str(item["rule"]) for item in judged["findings"]))


def _settings(meta: Meta, judged: Mapping[str, Json]) -> dict[str, Json]:
    body = meta.to_json()
    settings = {name: body[name] for name in COMPARED}
    for place, optimizer in enumerate(meta.optimizers):
        front = "" if place == 0 else f"optimizer {place}: "
        for name, value in optimizer.items():
            settings[f"{front}{'optimizer' if name == 'name' else name}"] = value
    settings |= {f"config.{name}": value for name, value in meta.config.items()}
    thresholds = (judged.get("thresholds") or {}).get("set") or {}
    return settings | {f"rules.{name}": value for name, value in thresholds.items()}
