"""Inside the training process: the recorder, the Lightning callback over it, probes and measures.

`Otoscope` needs a Lightning package and is loaded when first asked for; `attach` needs torch alone.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..store import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError(
        "otoscope.callbacks needs torch; install it with `pip install 'otoscope[lightning]'`"
    )

from . import measures
from .attaching import attach
from .probes import (
    Activations,
    Density,
    Gradients,
    Head,
    Initialization,
    Inputs,
    Landscape,
    Modes,
    Noise,
    Probe,
    ProbeOffError,
    Replicas,
    Symmetry,
    System,
    TailIndex,
    Throughput,
    Training,
)
from .recorder import Recorder

if TYPE_CHECKING:
    from .lightning import Otoscope
    from .probes.curvature import Curvature

__all__ = [
    "Activations",
    "Curvature",
    "Density",
    "Gradients",
    "Head",
    "Initialization",
    "Inputs",
    "Landscape",
    "Modes",
    "Noise",
    "Otoscope",
    "Probe",
    "ProbeOffError",
    "Recorder",
    "Replicas",
    "Symmetry",
    "System",
    "TailIndex",
    "Throughput",
    "Training",
    "attach",
    "measures",
]


def __getattr__(name: str) -> Any:
    if name == "Otoscope":
        from .lightning import Otoscope

        return Otoscope
    if name == "Curvature":
        from .probes.curvature import Curvature

        return Curvature
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
