"""Probes: quantities that are sampled while a run trains, each at a price that it measures."""

from .activations import Activations
from .curvature import Curvature
from .density import Density
from .gradients import Gradients
from .head import Head
from .initialization import Initialization
from .inputs import Inputs
from .landscape import Landscape
from .modes import Modes
from .noise import Noise
from .probe import Probe, ProbeOffError, Training
from .replicas import Replicas
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
    "Head",
    "Initialization",
    "Inputs",
    "Landscape",
    "Modes",
    "Noise",
    "Probe",
    "ProbeOffError",
    "Replicas",
    "Symmetry",
    "System",
    "TailIndex",
    "Throughput",
    "Training",
]
