"""An alert of a peer, and which of our fault classes it counts for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..faults.case import PLANNED

APART = 50
"""Alerts of one name closer than this many steps are one alert that goes on."""
LEVELS = ("info", "warning", "critical")
FAULTS: dict[str, tuple[str, ...]] = {
    "loss spike": ("loss_spike", "outlier_batch", "stale_second_moment", "missing_warmup"),
    "gradient spike": ("exploding_gradients", "loss_spike", "outlier_batch", "stale_second_moment"),
    "exploding": ("exploding_gradients", "lr_too_high", "non_finite", "bad_initialization"),
    "not finite": ("non_finite", "loss_scale_collapse"),
    "diverging": ("lr_too_high", "nonlinear_step", "loss_spike", "exploding_gradients"),
    "rate too high": ("lr_too_high", "nonlinear_step", "oscillating_loss", "missing_warmup"),
    "rate too low": ("lr_too_low", "plateau"),
    "oscillating": ("oscillating_loss", "lr_too_high", "batch_too_small"),
    "not learning": ("plateau", "lr_too_low"),
    "vanishing": ("vanishing_gradients",),
    "dead units": ("dead_units",),
    "saturated": ("saturated_activations",),
    "initialization": ("bad_initialization", "symmetric_weights"),
    "not updated": ("frozen_layer", "lr_too_low", "vanishing_gradients"),
    "update too large": ("lr_too_high", "update_imbalance", "missing_warmup"),
    "weights grow": ("activation_drift", "exploding_gradients", "lr_too_high"),
    "weights unlike": ("update_imbalance", "bad_initialization"),
    "few dimensions": ("symmetric_weights", "dead_units"),
    "noisy gradient": ("batch_too_small",),
    "overfitting": ("overfitting",),
    "classes": ("wrong_head", "input_problem"),
    "input": ("input_problem", "outlier_batch"),
    "waiting for data": ("input_bound",),
    "slower": ("throughput_drop", "input_bound", "straggler"),
    "memory": ("memory_growth",),
    "other": (),
}
"""What each kind of alert counts for, read with goodwill: a spike is right for any cause of spikes."""
OTHER = "other"
"""The kind of a word that we do not know: an alert, but right for no fault."""


@dataclass(frozen=True)
class Alert:
    """What a peer said: `kind` is a key of FAULTS, or one of our rules; `name` is the peer's own word.

    `step` is the first at which it was said, from 1 (0: a report at the end, of no step), `last`
    the last.
    """

    kind: str
    name: str
    step: int = 0
    last: int = 0
    severity: str = "warning"

    def __post_init__(self) -> None:
        if self.kind not in FAULTS and self.kind not in PLANNED:
            raise ValueError(f"no kind {self.kind!r}; there are {', '.join(FAULTS)}, and our rules")
        if self.severity not in LEVELS:
            raise ValueError(f"no severity {self.severity!r}; there are {', '.join(LEVELS)}")

    @property
    def faults(self) -> tuple[str, ...]:
        """Our rules whose fault this names."""
        return FAULTS.get(self.kind, (self.kind,))

    @property
    def until(self) -> int:
        return max(self.step, self.last)


def episodes(
    kind: str, name: str, steps: Iterable[int], severity: str = "warning", apart: int = APART
) -> list[Alert]:
    """Return alerts for the steps at which a rule held: what goes on is one alert.

    >>> [(one.step, one.last) for one in episodes("loss spike", "6 sigma", [3, 5, 200])]
    [(3, 5), (200, 200)]
    """
    told: list[list[int]] = []
    for step in sorted(int(step) for step in steps):
        if told and step - told[-1][1] < apart:
            told[-1][1] = step
        else:
            told.append([step, step])
    return [Alert(kind, name, first, last, severity) for first, last in told]


def packed(alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    return [asdict(alert) for alert in alerts]


def unpacked(bodies: Iterable[Mapping[str, Any]]) -> list[Alert]:
    return [Alert(**body) for body in bodies]
