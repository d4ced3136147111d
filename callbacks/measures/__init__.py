"""Pure tensor maths: tensors in, numbers out; no Lightning, no recorder.

>>> import torch
>>> w = torch.tensor([1.0, 1.0], requires_grad=True)
>>> spectrum = hessian_eigenvalues(lambda: 3 * w[0] ** 2 + w[1] ** 2, [w], k=2)
>>> edge_of_stability("SGD", lr=0.1) > spectrum.values[0].item()  # 20 > 6: these steps shrink
True
"""

from .activations import KINDS, activation_kind, dead_units, saturated_share, unit_dimension
from .edge import edge_of_stability
from .hessian import Hessian, hessian_eigenvalues
from .initialization import LayerInit, initialization_report
from .lanczos import Spectrum, lanczos
from .newton_gain import newton_gain
from .step import horizon, step_position

__all__ = [
    "KINDS",
    "Hessian",
    "LayerInit",
    "Spectrum",
    "activation_kind",
    "dead_units",
    "edge_of_stability",
    "hessian_eigenvalues",
    "horizon",
    "initialization_report",
    "lanczos",
    "newton_gain",
    "saturated_share",
    "step_position",
    "unit_dimension",
]
