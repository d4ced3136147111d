"""Probes: quantities that are sampled while a run trains, each at a price that it measures."""

from .activations import Activations
from .curvature import Curvature
from .density import Density
from .gradients import Gradients
from .initialization import Initialization
from .inputs import Inputs
from .landscape import Landscape
from .noise import Noise
from .probe import Probe, ProbeOffError, Training
from .symmetry import Symmetry
from .system import System
from .tail_index import TailIndex
from .tap import GradientTap
from .throughput import Throughput

__all__ = [
    "Activations",
    "Curvature",
    "Density",
    "GradientTap",
    "Gradients",
    "Initialization",
    "Inputs",
    "Landscape",
    "Noise",
    "Probe",
    "ProbeOffError",
    "Symmetry",
    "System",
    "TailIndex",
    "Throughput",
    "Training",
]
