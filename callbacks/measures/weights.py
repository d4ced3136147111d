"""The weights of a layer: which modules own some, and how they are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from ...store import ConfigError
from ..undisturbed import undisturbed


def weighted_modules(module: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that own a weight of two or more dimensions, by path.

    >>> list(weighted_modules(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))))
    ['0']

    Raises ConfigError where there is none, or one is lazy.
    """
    found: dict[str, nn.Module] = {}
    for path, inner in module.named_modules():
        own = [*inner.parameters(recurse=False)]
        if any(map(is_lazy, own)):
            raise ConfigError(
                f"layer {path or '(model)'} is lazy, its weights have no shape yet; "
                "run the module once before asking how it begins"
            )
        if f".{path}".endswith(".parametrizations.weight"):
            continue  # what a weight is made of: its layer is named already
        if _weight(inner) is not None:
            found[path or "(model)"] = inner
    if not found:
        raise ConfigError(
            f"{type(module).__name__} has no weights of two or more dimensions, so that there is "
            "no initialization to report on"
        )
    return found


def identical_rows(rows: Tensor) -> Tensor:
    """Return the share of rows of `rows` [n, m] that equal another row; 0 for a single row.

    A float32 scalar on the device of `rows`; nothing is waited for.

    >>> identical_rows(torch.tensor([[1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [2.0, 1.0]])).item()
    0.5
    """
    # Equal rows have equal products with an odd vector, and others almost surely do not. It is made
    # where the rows are: a vector that is drawn on the host would have to be copied, and waited for.
    # Two products in float32 are a third of the time of one in float64, and as hard to meet by chance.
    places = torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=torch.float64)
    one, other = ((places * x).sin().mul(43758.5453).frac().float() for x in (12.9898, 78.233))
    rows = rows.detach().float()
    products = (rows * one).sum(1).double() * 2**25 + (rows * other).sum(1).double()
    products = products.sort().values
    same = (products[1:] == products[:-1]).float()
    nothing = same.new_zeros(1)
    return torch.maximum(torch.cat([same, nothing]), torch.cat([nothing, same])).mean()


def alike_rows(rows: Tensor, cosine: float = 0.999) -> Tensor:
    """Return the share of rows of `rows` [n, m] that point where another one does; 0 for one row.

    Cosines over `cosine` count; a row of zeros is like other rows of zeros; complex numbers count as
    two. A float32 scalar on the device of `rows`; nothing is waited for. Rows of few numbers are alike
    by chance: of two numbers each, 64 rows have neighbours within 3 degrees, of eight none has.

    >>> round(alike_rows(torch.tensor([[1.0, 2.0], [2.0, 4.001], [3.0, 1.0]])).item(), 2)
    0.67
    """
    rows = rows.detach()
    if rows.is_complex():
        rows = torch.view_as_real(rows).flatten(1)
    rows = rows.float()
    norms = rows.norm(dim=1, keepdim=True)
    unit = rows / norms.clamp(min=1e-30)
    empty = norms[:, 0] == 0
    several = empty & (empty.sum() > 1)
    with torch.autocast(rows.device.type, enabled=False):  # bfloat16 has 1 next to 0.996
        like = (unit @ unit.T).fill_diagonal_(0.0).amax(1) > cosine
    return (like | several).float().mean()


@dataclass(frozen=True, slots=True)
class Drawn:
    """The weights of a layer as [units, inputs], and the deviations that they might be drawn with."""

    kind: str
    rows: Tensor
    xavier_std: float
    he_std: float

    @property
    def std(self) -> Tensor:
        """Standard deviation of the weights: a float32 scalar on their device, or float64 of such."""
        return (self.rows if self.rows.dtype == torch.float64 else self.rows.float()).std(
            correction=0
        )


def drawn(module: nn.Module) -> Drawn:
    """Return how the weights of a module are drawn; one of `weighted_modules`.

    >>> round(drawn(nn.Linear(50, 10)).he_std, 2)
    0.2
    """
    weight = _weight(module)
    assert weight is not None  # else it would not be among the layers
    kind = _kind(module)
    inputs, outputs = _fans(module, weight)
    fans = kind != "embedding" and inputs > 0 and outputs > 0
    return Drawn(
        kind,
        _rows(module, weight.detach()),
        math.sqrt(2 / (inputs + outputs)) if fans else math.nan,
        math.sqrt(2 / inputs) if fans else math.nan,
    )


def fan_in(module: nn.Module, weight: Tensor) -> int | None:
    """Return how many inputs a unit of a linear layer or a convolution has; None of any other.

    >>> fan_in((layer := nn.Conv2d(3, 8, 5)), layer.weight)
    75
    """
    return _fans(module, weight)[0] if _kind(module) in ("linear", "conv") else None


def _weight(module: nn.Module) -> Tensor | None:
    """Return the weight that tells how a module was drawn: the first of two or more dimensions."""
    held = dict(module.named_parameters(recurse=False))
    if is_parametrized(module, "weight"):
        # made anew whenever it is asked for: spectral norm iterates meanwhile, others draw
        with undisturbed(module):
            weight = module.weight
    else:
        weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim >= 2:
        return weight
    return next((p for p in held.values() if p.ndim >= 2), None)


def _kind(module: nn.Module) -> str:
    kinds: list[tuple[str, type | tuple[type, ...]]] = [
        ("linear", nn.Linear),
        ("conv", nn.modules.conv._ConvNd),
        ("embedding", (nn.Embedding, nn.EmbeddingBag)),
        ("attention", nn.MultiheadAttention),
        ("recurrent", nn.RNNBase),
    ]
    if _is_conv1d_of_transformers(module):
        return "linear"
    return next((name for name, cls in kinds if isinstance(module, cls)), "other")


def _is_conv1d_of_transformers(module: nn.Module) -> bool:
    """GPT-2's linear layer, whose weight is [inputs, outputs]."""
    cls = type(module)
    return cls.__name__ == "Conv1D" and cls.__module__.startswith("transformers.")


def _rows(module: nn.Module, weight: Tensor) -> Tensor:
    """Return a weight as [units, inputs]."""
    if _is_conv1d_of_transformers(module) or getattr(module, "transposed", False):
        weight = weight.transpose(0, 1)
    return weight.flatten(1)


def _fans(module: nn.Module, weight: Tensor) -> tuple[int, int]:
    """Return inputs and outputs of a unit, over its receptive field."""
    rows = _rows(module, weight)
    field = weight[0, 0].numel() if weight.ndim > 2 else 1
    outputs = len(rows) * field
    if isinstance(module, nn.MultiheadAttention):
        outputs //= 3 if module._qkv_same_embed_dim else 1  # three projections in one matrix
    elif isinstance(module, nn.RNNBase):
        outputs = module.hidden_size  # the gates are matrices of their own
    elif isinstance(module, nn.modules.conv._ConvNd):
        shared = module.groups
        if module.transposed:  # [inputs, outputs / groups, …]
            return rows.shape[1] // shared, outputs
        outputs //= shared
    return rows.shape[1], outputs
