"""A recommendation applied to a fresh run, unedited, and the remedies that people try first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import parts, starting

Body = Mapping[str, Any]
FOLK: dict[str, Callable[[Body], Body]] = {
    "half the rate": lambda body: _rate(body, 0.5),
    "0.3 of the rate": lambda body: _rate(body, 0.3),
    "clip at 1": lambda body: {**body, "clip": 1.0},
}
"""What one tries who knows nothing of the cause."""
LIVE = ("lr", "gradient_clip_val", "betas")
"""What can be changed in the middle of a run."""


class NoSettingError(Exception):
    """Raised where a recommendation is nothing that a training of the bench can be set to."""


def applied(body: Body, advice: Mapping[str, Any]) -> Body:
    """Return the body of a fresh run with a recommendation, and what goes with it, applied.

    Raises NoSettingError where only a person can act on it.
    """
    for pair in [advice, *(advice.get("also") or ())]:
        parameter = str(pair["parameter"])
        if parameter not in SETTERS:
            raise NoSettingError(f"{parameter} is no setting of a training of the bench")
        try:
            body = SETTERS[parameter](body, pair["proposed"])
            parts.optimizer_of(body, parts.net_of(body))  # what cannot be built cannot be set
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise NoSettingError(f"{parameter} = {pair['proposed']!r}: {error}") from error
    return body


def _optimizer(body: Body, **changes: Any) -> Body:
    name, rest = parts.named(body["optimizer"])
    return {**body, "optimizer": {"name": name, **rest, **changes}}


def _rate(body: Body, times: float) -> Body:
    return _optimizer(body, lr=float(parts.named(body["optimizer"])[1]["lr"]) * times)


def _lr(body: Body, value: Any) -> Body:
    """Set the rate; of a run whose rate jumps, what it jumps to.

    The rate that the optimizer was set up with is no change unless the schedule goes: it is held then, which
    is the plainest one that "lasts as long as the run". Any other rate is decayed as before.
    """
    name, rest = parts.named(body["schedule"]) if body["schedule"] else ("", {})
    if name == "jump":
        times = float(value) / float(parts.named(body["optimizer"])[1]["lr"])
        key = "most" if float(rest["times"]) > 1 else "times"
        return {**body, "schedule": {"name": name, **rest, key: times}}
    if name == "exponential" and float(value) == float(parts.named(body["optimizer"])[1]["lr"]):
        return {**body, "schedule": None}
    return _optimizer(body, lr=float(value))


def _for_as_many_samples(body: Body, **changes: Any) -> Body:
    """Change the batch; the run sees as many samples as before."""
    new = {**body, **changes}
    before = int(body["batch"]) * int(body["accumulate"])
    after = int(new["batch"]) * int(new["accumulate"])
    return {**new, "steps": max(1, round(int(body["steps"]) * before / after))}


def _start(body: Body, change: Mapping[str, Any]) -> Body:
    return {**body, "start": [*starting.changes(body["start"]), change]}


def _other_optimizer(body: Body, proposed: Mapping[str, Any]) -> Body:
    _, rest = parts.named(body["optimizer"])
    kept = {key: rest[key] for key in parts.FOR_GROUPS if key in rest and key != "name"}
    name = str(proposed["name"]).lower()
    if name not in parts.OPTIMIZERS:
        raise ValueError(f"the bench has no optimizer {name}")
    return {**body, "optimizer": {**kept, "name": name, "lr": float(proposed["lr"])}}


def _rolled_back(body: Body, proposed: Mapping[str, Any]) -> Body:
    """Train up to the step as it was, which one seed makes the same, and go on with the change."""
    then = dict(proposed.get("then") or {})
    step = int(proposed["step"])
    if odd := [key for key in then if key not in LIVE]:
        raise ValueError(f"{', '.join(odd)} cannot be changed in the middle of a run")
    if step <= 0:
        for key, value in then.items():
            body = SETTERS[key](body, value)
        return body
    return {**body, "switch": {"step": step, "then": then}}


def _norm(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what becomes of batch norms: another momentum, or GroupNorm in their place."""
    momenta = [one["momentum"] for one in value.values() if isinstance(one, Mapping)]
    if momenta:
        return {"kind": "norm_momentum", "value": float(momenta[0])}
    return {"kind": "group_norm"}


def _more(body: Body, names: list[str]) -> Body:
    held = parts.named(body["optimizer"])[1].get("add") or []
    return _optimizer(body, add=[*held, *names])


SETTERS: dict[str, Callable[[Body, Any], Body]] = {
    "lr": _lr,
    "gradient_clip_val": lambda body, value: {**body, "clip": float(value)},
    "accumulate_grad_batches": lambda body, value: _for_as_many_samples(
        body, accumulate=int(value)
    ),
    "batch_size": lambda body, value: _for_as_many_samples(body, batch=int(value)),
    "warmup_steps": lambda body, value: {**body, "warmup": int(value)},
    "betas": lambda body, value: _optimizer(body, betas=[float(item) for item in value]),
    "lr_multipliers": lambda body, value: _optimizer(body, multipliers=dict(value)),
    "weight_init": lambda body, value: _start(body, {"kind": "weight_init", "layers": value}),
    "input_normalization": lambda body, value: {**body, "normalize": dict(value)},
    "shuffle": lambda body, value: {**body, "order": "shuffled" if value else "sorted"},
    "precision": lambda body, value: {**body, "scaler": None},
    "optimizer": _other_optimizer,
    "params": _more,
    "remove_softmax": lambda body, value: _start(body, {"kind": "remove_softmax"}),
    "activation": lambda body, value: _start(body, {"kind": "activation", "layers": value}),
    "class_weights": lambda body, value: {**body, "class_weights": list(value)},
    "weight_decay": lambda body, value: _optimizer(body, weight_decay=float(value)),
    "norm": lambda body, value: _start(body, _norm(value)),
    "dropout": lambda body, value: _start(body, {"kind": "dropout", "value": float(value)}),
    "rollback": _rolled_back,
    "stop": lambda body, value: {**body, "stop": int(value["best_step"])},
}
"""What each recommendation is for a training of the bench; the rest is for machines, or a person."""
