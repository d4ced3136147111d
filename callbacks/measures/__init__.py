"""Pure tensor maths: tensors in, numbers out; no Lightning, no recorder.

>>> import torch
>>> w = torch.tensor([1.0, 1.0], requires_grad=True)
>>> spectrum = hessian_eigenvalues(lambda: 3 * w[0] ** 2 + w[1] ** 2, [w], k=2)
>>> edge_of_stability("SGD", lr=0.1) > spectrum.values[0].item()  # 20 > 6: these steps shrink
True
"""

from ...store import NoiseEstimate, NoiseScale, NoiseScaleEstimator, noise_scale
from .activations import KINDS, activation_kind, dead_units, saturated_share, unit_dimension
from .attention import Attention, attention_entropy
from .batches import (
    BatchParts,
    batch_parts,
    feature_statistics,
    input_statistics,
    label_counts,
    label_order,
)
from .edge import edge_of_stability
from .effective_rank import effective_rank, sampled_rows
from .hessian import Hessian, hessian_eigenvalues
from .initialization import LayerInit, initialization_report
from .lanczos import Spectrum, lanczos
from .loss_at_start import chance_loss
from .newton_gain import newton_gain
from .per_example import PER_EXAMPLE, per_example_squares
from .spectral_density import Density, lanczos_density, spectral_density
from .step import horizon, step_position
from .tail_index import tail_index

__all__ = [
    "KINDS",
    "PER_EXAMPLE",
    "Attention",
    "BatchParts",
    "Density",
    "Hessian",
    "LayerInit",
    "NoiseEstimate",
    "NoiseScale",
    "NoiseScaleEstimator",
    "Spectrum",
    "activation_kind",
    "attention_entropy",
    "batch_parts",
    "chance_loss",
    "dead_units",
    "edge_of_stability",
    "effective_rank",
    "feature_statistics",
    "hessian_eigenvalues",
    "horizon",
    "initialization_report",
    "input_statistics",
    "label_counts",
    "label_order",
    "lanczos",
    "lanczos_density",
    "newton_gain",
    "noise_scale",
    "per_example_squares",
    "sampled_rows",
    "saturated_share",
    "spectral_density",
    "step_position",
    "tail_index",
    "unit_dimension",
]
