"""Proposals: what a recommendation sets, in the words of a person who would do it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from ..store.schemas import Json
from .words import count, interval, number

FLAGS = {
    "shuffle": "shuffle the training data",
    "remove_softmax": "remove the softmax in front of the loss",
    "distributed_sampler": "give each rank its own samples (DistributedSampler)",
}
"""What is done where the value is only `true`."""

MOST = 3
"""Layers or numbers that are named one by one."""


def value_words(parameter: str, value: Json) -> str:
    """Return a proposed or a current value in few words; the snippet has it in full.

    >>> value_words("weight_init", {"a": {"kind": "kaiming_normal", "std": 0.18}})
    'kaiming_normal (std 0.18) in `a`'
    >>> value_words("class_weights", [0.5, 1.0, 2.25, 1.0])
    '4 values from 0.5 to 2.25'
    >>> value_words("rollback", {"step": 200, "path": "step=200.ckpt", "then": {"lr": 0.003}})
    'step 200 (step=200.ckpt), then lr 0.003'
    """
    if isinstance(value, Mapping):
        return _mapping(parameter, value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _sequence(parameter, value)
    return _plain(value)


def deed(parameter: str, value: Json, low_high: Sequence[float] | None = None) -> str:
    """Return what to do as an order without its subject: "set lr to 0.034 (0.031–0.037)".

    >>> deed("lr", 0.034, [0.031, 0.037]), deed("shuffle", True)
    ('set lr = 0.034 (0.031–0.037)', 'shuffle the training data')
    >>> deed("optimizer", {"name": "AdamW", "lr": 0.001})
    'use AdamW with lr 0.001'
    """
    words = value_words(parameter, value)
    if parameter in FLAGS and value is True:
        return FLAGS[parameter]
    orders = {
        "rollback": "go back to ",
        "stop": "stop: ",
        "inspect": "look at ",
        "optimizer": "use ",
        "params": "give the optimizer ",
        "activation": "use ",
        "precision": "train in ",
        "weight_init": "initialize with ",
        "input_normalization": "normalize the inputs: ",
        "class_weights": "weight the classes: ",
        "lr_multipliers": "scale the learning rate ",
    }
    if parameter in orders:
        return orders[parameter] + words
    between = f" ({interval(*low_high)})" if low_high else ""
    return f"set {parameter} = {words}{between}"


def _mapping(parameter: str, value: Mapping[str, Json]) -> str:
    if parameter == "rollback":
        path = f" ({value['path']})" if value.get("path") else ""
        then = ", ".join(
            f"{name} {value_words(name, item)}" for name, item in (value.get("then") or {}).items()
        )
        return f"step {_plain(value.get('step'))}{path}" + (f", then {then}" if then else "")
    if parameter == "stop":
        path = f" ({value['path']})" if value.get("path") else ""
        return f"the best weights are those of step {_plain(value.get('best_step'))}{path}"
    if parameter == "optimizer":
        lr = f" with lr {_plain(value['lr'])}" if value.get("lr") is not None else ""
        return f"{value.get('name')}{lr}"
    if parameter == "input_normalization":
        return ", ".join(f"{name} {_numbers(item)}" for name, item in value.items())
    if parameter == "inspect":
        return "; ".join(f"{name} {value_words(name, item)}" for name, item in value.items())
    if parameter == "lr_multipliers":
        return _grouped({name: f"× {_plain(item)} for" for name, item in value.items()})
    return _grouped({name: f"{_kind(item)} in" for name, item in value.items()})


def _grouped(said: Mapping[str, str]) -> str:
    """Return what holds for many layers once, with their number; few are named."""
    groups: dict[str, list[str]] = {}
    for layer, words in said.items():
        groups.setdefault(words, []).append(layer)
    if len(groups) > MOST:
        kinds = {words.partition(" ")[0] for words in groups}
        first = next(iter(kinds)) if len(kinds) == 1 else "values"
        return f"{first} in {count(len(said), 'layer')}"
    return "; ".join(
        f"{words} "
        + (", ".join(f"`{n}`" for n in names) if len(names) < MOST else count(len(names), "layer"))
        for words, names in groups.items()
    )


def _kind(item: Json) -> str:
    if not isinstance(item, Mapping):
        return _plain(item)
    rest = ", ".join(f"{key} {_plain(part)}" for key, part in item.items() if key != "kind")
    return f"{item.get('kind', '')} ({rest})".strip() if rest else str(item.get("kind", "–"))


def _sequence(parameter: str, value: Sequence[Json]) -> str:
    if parameter == "params":
        names = ", ".join(f"`{name}`" for name in value[:MOST])
        more = f" and {len(value) - MOST} more" if len(value) > MOST else ""
        return f"{count(len(value), 'parameter')}: {names}{more}"
    if len(value) <= (MOST if parameter == "class_weights" else 8):
        return ", ".join(_plain(item) for item in value)
    if parameter == "inspect" or not all(isinstance(item, (int, float)) for item in value):
        return ", ".join(_plain(item) for item in value[:8]) + f" and {len(value) - 8} more"
    return _numbers(value)


def _numbers(value: Json) -> str:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _plain(value)
    if len(value) <= MOST:
        return ", ".join(_plain(item) for item in value)
    return f"{len(value)} values from {_plain(min(value))} to {_plain(max(value))}"


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return number(value)
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
