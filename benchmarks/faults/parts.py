"""The parts of a training by their names: nets, data, losses, optimizers, schedules, spoilers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._data import Batch
from .._nets import (
    Gated,
    Recurrent,
    Transformer,
    convnet,
    mlp,
    residual,
    sequence_loss,
)
from . import datasets, nets, sets, starting

Spoiler = Callable[[int, Batch], Batch]

NETS: dict[str, Callable[..., nn.Module]] = {
    "mlp": nets.named(mlp),
    "convnet": convnet,
    "residual": residual,
    "lstm": Recurrent,
    "gru": Gated,
    "transformer": Transformer,
    "rnn": nets.Plain,
    "classifier": nets.SequenceClassifier,
    "autoencoder": nets.autoencoder,
    "normed_convnet": nets.normed_convnet,
    "highway": nets.Highway,
    "mixer": nets.Mixer,
    "logistic": nets.logistic,
    **sets.NETS,
}
DATA = datasets.DATA
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}
FOR_GROUPS = ("name", "only", "add", "multipliers")
"""Keys of an optimizer that choose parameters; all others are arguments of its class."""


def smoothed(logits: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(logits, target, label_smoothing=0.1)


def binary(logits: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())


def squared_one_hot(logits: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(logits, functional.one_hot(target, logits.shape[1]).float())


def probabilities(outputs: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy(outputs[:, 0].clamp(1e-7, 1 - 1e-7), target.float())


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "smoothed": smoothed,
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,
    "sequence": sequence_loss,
    "binary": binary,
    "binary_each": functional.binary_cross_entropy_with_logits,
    "probabilities": probabilities,
    "absolute": functional.l1_loss,
    "squared_one_hot": squared_one_hot,
    **sets.LOSSES,
}


def cosine(step: int, steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def restarts(step: int, steps: int, times: int = 3) -> float:
    part = max(steps // times, 1)
    return cosine(step % part, part)


def warm_up(step: int, steps: int, over: int = 100) -> float:
    return min(1.0, (step + 1) / over) * cosine(step, steps)


def jump(step: int, steps: int, times: float, start: int) -> float:
    return times if step >= start else 1.0


def stairs(step: int, steps: int, times: float = 0.1, at: float = 0.6) -> float:
    return times if step >= at * steps else 1.0


def one_cycle(step: int, steps: int, times: float = 10.0) -> float:
    """Up to `times` the rate over the first 30 %, then down to nothing."""
    top = 0.3 * steps
    return (
        1 + (times - 1) * step / top if step < top else times * (1 - (step - top) / (steps - top))
    )


def exponential(step: int, steps: int, half: int = 200) -> float:
    return 0.5 ** (step / half)


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": cosine,
    "restarts": restarts,
    "warm-up": warm_up,
    "jump": jump,
    "stairs": stairs,
    "one-cycle": one_cycle,
    "exponential": exponential,
}


def scaled(times: float = 100.0) -> Callable[[Batch], Batch]:
    return lambda batch: (batch[0] * times, batch[1])


def shifted(by: float = 5.0) -> Callable[[Batch], Batch]:
    return lambda batch: (batch[0] + by, batch[1])


def mislabelled() -> Callable[[Batch], Batch]:
    """Labels of other samples of the batch: each takes that of the next but three."""
    return lambda batch: (batch[0], batch[1].roll(3, 0))


def not_a_number() -> Callable[[Batch], Batch]:
    return lambda batch: (batch[0] * math.nan, batch[1])


def far_targets(times: float = 100.0) -> Callable[[Batch], Batch]:
    return lambda batch: (batch[0], batch[1] * times)


SPOILERS: dict[str, Callable[..., Callable[[Batch], Batch]]] = {
    "scale": scaled,
    "shift": shifted,
    "labels": mislabelled,
    "nan": not_a_number,
    "targets": far_targets,
}
WHEN = ("name", "start", "stop", "every")


def named(spec: Any) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of a part: `"digits"` or `{name = "digits", rows = 200}`."""
    if isinstance(spec, str):
        return spec, {}
    rest = dict(spec)
    return str(rest.pop("name")), rest


def chosen(kind: str, known: Mapping[str, Any], spec: Any) -> tuple[Any, dict[str, Any]]:
    """Return what a name stands for, and its arguments; KeyError names those that there are."""
    name, rest = named(spec)
    if name not in known:
        raise KeyError(f"no {kind} {name!r}; there are {', '.join(known)}")
    return known[name], rest


def net_of(body: Mapping[str, Any]) -> nn.Module:
    make, rest = chosen("net", NETS, body["net"])
    net = make(**rest)
    for change in starting.changes(body["start"]):
        net = starting.changed(net, change)
    return net


def loss_of(body: Mapping[str, Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss that is trained on; class weights count in it alone."""
    loss = chosen("loss", LOSSES, body["loss"])[0]
    if body["class_weights"] is None:
        return loss
    weight = torch.tensor([float(value) for value in body["class_weights"]])
    return lambda logits, target: loss(logits, target, weight=weight)


def optimizer_of(body: Mapping[str, Any], net: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer, over what it was handed: `only` the layers so named, `add` more."""
    make, rest = chosen("optimizer", OPTIMIZERS, body["optimizer"])
    arguments = {key: value for key, value in rest.items() if key not in FOR_GROUPS}
    only, more = tuple(rest.get("only") or ("",)), tuple(rest.get("add") or ())
    held = {
        name: parameter
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and (name.startswith(only) or name in more)
    }
    factors: Mapping[str, float] = rest.get("multipliers") or {}
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in held.items():
        times = next((factors[key] for key in factors if name.startswith(key)), 1.0)
        groups.setdefault(times, []).append(parameter)
    lr = float(arguments.pop("lr"))
    parts = [{"params": held, "lr": lr * times} for times, held in groups.items()]
    return make(parts, lr=lr, **arguments)


def schedule_of(body: Mapping[str, Any]) -> Callable[[int], float] | None:
    """Return the factor of the learning rate at a step, counted from 0."""
    steps, warm = int(body["steps"]), int(body["warmup"])
    if body["schedule"] is None and not warm:
        return None
    shape: Callable[[int], float] = lambda step: 1.0  # noqa: E731
    if body["schedule"] is not None:
        make, rest = chosen("schedule", SCHEDULES, body["schedule"])
        most = float(rest.pop("most", math.inf))
        shape = lambda step: min(make(step, steps, **rest), most)  # noqa: E731
    return lambda step: shape(step) * (min(1.0, (step + 1) / warm) if warm else 1.0)


def spoiler_of(body: Mapping[str, Any]) -> Spoiler:
    """Return what changes the batch of a step: from `start` up to `stop`, one step in `every`."""
    specs = starting.changes(body["spoil"])
    made = []
    for spec in specs:
        make, rest = chosen("spoiler", SPOILERS, spec)
        arguments = {key: value for key, value in rest.items() if key not in WHEN}
        made.append((rest, make(**arguments)))

    def spoil(step: int, batch: Batch) -> Batch:
        for rest, change in made:
            begun = rest.get("start", 1) <= step < rest.get("stop", math.inf)
            if begun and step % rest.get("every", 1) == 0:
                batch = change(batch)
        return batch

    return spoil


def check(body: Mapping[str, Any]) -> None:
    """Look every name up; KeyError or TypeError says what is not known."""
    for kind, known, key in (
        ("net", NETS, "net"),
        ("data set", DATA, "data"),
        ("loss", LOSSES, "loss"),
        ("optimizer", OPTIMIZERS, "optimizer"),
        ("schedule", SCHEDULES, "schedule"),
    ):
        if body[key] is not None:
            part, rest = chosen(kind, known, body[key])
            if key in ("net", "schedule"):
                allowed = set(inspect.signature(part).parameters) | {"most"}
                if odd := sorted(set(rest) - allowed):
                    raise KeyError(f"{kind} {named(body[key])[0]!r} takes no {', '.join(odd)}")
    for key in ("act", "norm"):
        kind = named(body["net"])[1].get(key)
        if named(body["net"])[0] == "mlp" and kind is not None and not hasattr(nn, str(kind)):
            raise KeyError(f"torch.nn has no {kind!r}; write {key} as torch does")
    datasets.check(body["data"])
    for spec in starting.changes(body["spoil"]):
        chosen("spoiler", SPOILERS, spec)
    for change in starting.changes(body["start"]):
        starting.check(change)
    if "lr" not in named(body["optimizer"])[1]:
        raise KeyError('the optimizer needs an lr: {name = "sgd", lr = 0.1}')
    if body["order"] not in datasets.ORDERS:
        raise KeyError(f"no order {body['order']!r}; there are {', '.join(datasets.ORDERS)}")
