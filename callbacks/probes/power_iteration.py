"""Power iteration: PyHessian's, over products of ours; the second engine of the curvature probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from ..measures import Spectrum
from .probe import ProbeOffError

TOLERANCE = 1e-3
"""Relative change of an eigenvalue between two iterations at which PyHessian stops; its default."""

MOST_ITERATIONS = 100
"""Iterations for all eigenvalues together, where nobody says how many."""


def check_pyhessian() -> None:
    """Raise ProbeOffError where PyHessian is not installed."""
    if find_spec("pyhessian") is None:
        raise ProbeOffError(
            'engine="pyhessian" needs pyhessian; install it with '
            "`pip install 'otoscope[lightning]'`, or leave engine at \"lanczos\""
        )


def largest_by_pyhessian(
    product: Callable[[Tensor], Tensor],
    parameters: Sequence[Tensor],
    k: int,
    *,
    max_products: int = 100,
    tol: float = TOLERANCE,
) -> Spectrum:
    """Return the k eigenvalues of largest magnitude, descending, as PyHessian 0.1 finds them.

    `product` maps Tensor[d] to Tensor[d], d over all `parameters`; at most `max_products` of them
    for each eigenvalue. PyHessian's own constructor is left out: it would put the model into eval
    mode and spoil every `.grad`. It starts at random vectors, so it knows nothing of the gradient:
    `ritz_weights` are nan, and so is what is computed from them. `bounds` are residuals, by one
    more product each; `smallest` is nan.
    """
    from pyhessian import hessian  # type: ignore[import-untyped]

    first = parameters[0]
    spent = 0

    def counted(vector: Tensor) -> Tensor:
        nonlocal spent
        spent += 1
        return product(vector)

    class Iteration(hessian):  # type: ignore[misc]
        """PyHessian with our products in the place of its own."""

        def __init__(self) -> None:
            self.model = nn.Module()  # whose gradients it sets to nothing
            self.params = [p.detach() for p in parameters]
            self.device = first.device
            self.full_dataset = True

        def dataloader_hv_product(self, v: list[Tensor]) -> tuple[float, list[Tensor]]:
            flat = _flat(v).to(first.dtype)
            image = counted(flat)
            parts = image.split([p.numel() for p in parameters])
            shaped = [part.view_as(p) for part, p in zip(parts, parameters, strict=True)]
            return float(image @ flat), shaped

    iteration: Any = Iteration()
    found, vectors = iteration.eigenvalues(maxIter=max_products, tol=tol, top_n=k)
    order = sorted(range(k), key=lambda i: -found[i])
    rows = torch.stack([_flat(vectors[i]).to(first.dtype) for i in order])
    values = torch.tensor([found[i] for i in order], dtype=torch.float64)
    bounds = [
        float((counted(row) - value * row).norm())
        for row, value in zip(rows, values.tolist(), strict=True)
    ]
    return Spectrum(
        values=values,
        bounds=torch.tensor(bounds, dtype=torch.float64),
        smallest=float("nan"),
        ritz_values=values,
        ritz_weights=torch.full_like(values, float("nan")),
        products=spent,
        vectors=rows,
    )


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts])
