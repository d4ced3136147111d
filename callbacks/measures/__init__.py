"""Pure tensor maths: tensors in, numbers out; no Lightning, no recorder, no store."""

from .activations import KINDS, activation_kind, dead_units, saturated_share, unit_dimension

__all__ = ["KINDS", "activation_kind", "dead_units", "saturated_share", "unit_dimension"]
