"""Applying a recommendation to settings: the value as it was proposed, or an error, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from ..store import ConfigError

S = TypeVar("S")


def apply(settings: S, recommendation: Mapping[str, Any], *, prefix: str = "") -> S:
    """Return settings (a dataclass) with a recommendation applied, and what goes with it.

    `recommendation` holds `parameter`, `proposed` and perhaps `also`, as in a finding's JSON.
    `optimizer` is {"name", "lr"}; `rollback` {"step", "path", "then": {parameter: value}};
    values that are mappings by layer are merged into those of the settings, with `prefix` (the
    place of the net within the module that was watched) taken off the layers' names.

    >>> from .digits import Settings
    >>> advice = {"parameter": "lr", "proposed": 0.02,
    ...           "also": [{"parameter": "gradient_clip_val", "proposed": 1.0}]}
    >>> applied = apply(Settings(), advice)
    >>> applied.lr, applied.gradient_clip_val
    (0.02, 1.0)

    Raises ConfigError for a parameter that the settings do not have.
    """
    if "parameter" not in recommendation or "proposed" not in recommendation:
        raise ConfigError(
            f"a recommendation needs parameter and proposed, got {sorted(recommendation)}"
        )
    pairs = [(str(recommendation["parameter"]), recommendation["proposed"])]
    pairs += [
        (str(more["parameter"]), more["proposed"]) for more in recommendation.get("also") or ()
    ]
    for parameter, proposed in pairs:
        settings = _set(settings, parameter, proposed, prefix)
    return settings


def _set(settings: Any, parameter: str, proposed: Any, prefix: str) -> Any:
    known = {item.name for item in fields(settings)}
    if parameter not in known:
        raise ConfigError(
            f"this training has no setting {parameter!r} to set to {proposed!r}; "
            f"it has {', '.join(sorted(known))}"
        )
    if parameter == "optimizer" and isinstance(proposed, Mapping):
        return replace(settings, optimizer=str(proposed["name"]), lr=float(proposed["lr"]))
    if parameter == "rollback":
        place = {"step": int(proposed["step"]), "path": str(proposed["path"])}
        settings = replace(settings, rollback=place)
        for name, value in (proposed.get("then") or {}).items():
            settings = _set(settings, name, value, prefix)
        return settings
    before = getattr(settings, parameter)
    if isinstance(before, Mapping) and isinstance(proposed, Mapping):
        layers = {name.removeprefix(prefix): value for name, value in proposed.items()}
        return replace(settings, **{parameter: {**before, **layers}})
    return replace(settings, **{parameter: _like(before, proposed)})


def _like(before: Any, proposed: Any) -> Any:
    """JSON knows no tuples; everything else is taken as it stands."""
    return tuple(proposed) if isinstance(before, tuple) else proposed
