"""Initialization: how each layer scales the signal and its gradient, and how its weights were drawn."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...store import ConfigError
from ..undisturbed import undisturbed
from .weights import drawn, identical_rows, weighted_modules

RECTIFIERS = frozenset(
    {"relu", "relu6", "leaky_relu", "prelu", "rrelu", "gelu", "silu", "mish", "elu", "celu"}
    | {"hardswish"}
)
"""Activations that pass about half of a centred signal's energy: He's deviation is theirs."""

_OTHERS = frozenset(("tanh", "sigmoid", "softplus", "hardtanh", "selu", "softsign", "hardsigmoid"))


@dataclass(frozen=True, slots=True)
class LayerInit:
    """How one layer with weights begins.

    `layer` is its module path ("(model)" for the outermost), `kind` one of linear, conv, embedding,
    attention, recurrent, other. `std`: standard deviation of its weights; `xavier_std` is
    √(2/(n_in + n_out)) (Glorot and Bengio 2010), `he_std` √(2/n_in) (He et al. 2015), both nan for
    an embedding; `activation` is the function called next, None where there was none before the
    next layer. `rms`: root mean square of its outputs. `forward_gain`: mean square of its outputs
    over that of the layer run before it (of its own inputs for the first), so that the gains of
    all layers multiply to that of the net. `backward_gain`: mean square of the gradient with
    respect to the outputs of the layer run before it over that with respect to its own (nan for
    the first). Both are 1 where variance is kept: below, signals vanish, above, they explode.
    `identical_rows`: share of units (rows) whose weights equal another unit's: these learn the same.
    nan stands for what was not seen: a layer that did not run, or got no gradient.
    """

    layer: str
    kind: str
    std: float
    xavier_std: float
    he_std: float
    forward_gain: float
    backward_gain: float
    identical_rows: float
    rms: float
    activation: str | None = None

    @property
    def proposed_std(self) -> float:
        """The deviation to draw the weights with: He's before a rectifier, else Xavier's."""
        return self.he_std if self.activation in RECTIFIERS else self.xavier_std


def initialization_report(
    module: nn.Module,
    batch: Any,
    *,
    loss_fn: Callable[[nn.Module, Any], Tensor] | None = None,
) -> list[LayerInit]:
    """Return how each layer with weights begins, in the order in which they run.

    One forward and one backward pass on `batch`, undisturbed: buffers, modes, `.grad` and random
    states are as before. `loss_fn(module, batch)` is the run's own loss; without it the module is
    called with `batch` (a mapping as keywords, of a tuple or list the first item) and a standard
    normal gradient of its output is sent back, which tells the same gains. Layers are modules that
    own weights of two or more dimensions; one that runs several times counts with its first call.
    Layers that did not run follow at the end.

    >>> net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
    >>> with torch.random.fork_rng():
    ...     _ = torch.manual_seed(0)
    ...     for layer in (net[0], net[2]):
    ...         _ = nn.init.kaiming_normal_(layer.weight), nn.init.zeros_(layer.bias)
    ...     report = initialization_report(net, torch.randn(64, 256))
    >>> [(row.layer, round(row.forward_gain), row.activation) for row in report]
    [('0', 2, 'relu'), ('2', 1, 'relu')]
    >>> round(report[1].proposed_std, 2), round(report[1].std, 2)
    (0.09, 0.09)

    Raises ConfigError for a module without weights or with lazy ones, and for a batch that gives no
    tensor.
    """
    layers = weighted_modules(module)
    run = _Run(layers)
    with undisturbed(module):
        with run.watching():
            loss = _loss(module, batch, loss_fn)
        if loss.requires_grad:
            leaves = [p for p in module.parameters() if p.requires_grad]
            torch.autograd.grad(loss, leaves, allow_unused=True)
    return run.report()


class _Activations(TorchFunctionMode):
    """Notes the calls of activations, as modules or as functions."""

    def __init__(self, note: Callable[[str], None]):
        super().__init__()
        self._note = note

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "").rstrip("_")  # relu_ is relu in place
        if name in RECTIFIERS or name in _OTHERS:
            self._note(name)
        return func(*args, **(kwargs or {}))


class _Run:
    """One pass through the layers: what came out of each, what gradient came back, in order."""

    def __init__(self, layers: dict[str, nn.Module]):
        self.layers = layers
        self.order: list[str] = []
        self.inputs: dict[str, float] = {}
        self.outputs: dict[str, float] = {}
        self.gradients: dict[str, float] = {}
        self.activations: dict[str, str] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        handles = [
            layer.register_forward_hook(self._hook(path)) for path, layer in self.layers.items()
        ]
        try:
            with _Activations(self._activated):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            tensor = first_tensor(output)
            if path in self.outputs or tensor is None:
                return
            self.order.append(path)
            entered = first_tensor(given)
            self.inputs[path] = math.nan if entered is None else _mean_square(entered)
            self.outputs[path] = _mean_square(tensor)
            if tensor.requires_grad:
                # A hook on the tensor, as an activation in place would change what it stands for.
                tensor.register_hook(lambda g: self.gradients.__setitem__(path, _mean_square(g)))

        return hook

    def _activated(self, name: str) -> None:
        if self.order:
            self.activations.setdefault(self.order[-1], name)

    def report(self) -> list[LayerInit]:
        rows, before = [], None
        for path in self.order:
            forward = self.inputs[path] if before is None else self.outputs[before]
            backward = math.nan if before is None else self.gradients.get(before, math.nan)
            rows.append(
                self._row(
                    path,
                    forward_gain=_ratio(self.outputs[path], forward),
                    backward_gain=_ratio(backward, self.gradients.get(path, math.nan)),
                    rms=math.sqrt(self.outputs[path]),
                )
            )
            before = path
        missing = [path for path in self.layers if path not in self.outputs]
        return rows + [self._row(path) for path in missing]

    def _row(
        self,
        path: str,
        forward_gain: float = math.nan,
        backward_gain: float = math.nan,
        rms: float = math.nan,
    ) -> LayerInit:
        weights = drawn(self.layers[path])
        return LayerInit(
            layer=path,
            kind=weights.kind,
            std=float(weights.std),
            xavier_std=weights.xavier_std,
            he_std=weights.he_std,
            forward_gain=forward_gain,
            backward_gain=backward_gain,
            identical_rows=float(identical_rows(weights.rows)),
            rms=rms,
            activation=self.activations.get(path),
        )


def _loss(
    module: nn.Module, batch: Any, loss_fn: Callable[[nn.Module, Any], Tensor] | None
) -> Tensor:
    if loss_fn is not None:
        return loss_fn(module, batch).sum()
    if isinstance(batch, Mapping):
        output = module(**batch)
    else:
        output = module(batch[0] if isinstance(batch, (tuple, list)) else batch)
    tensor = first_tensor(output)
    if tensor is None or not tensor.is_floating_point():
        raise ConfigError(
            f"{type(module).__name__} gave {type(output).__name__}, in which there is no floating "
            "tensor to send a gradient back from; give loss_fn(module, batch) instead"
        )
    generator = torch.Generator().manual_seed(0)
    return (tensor * torch.randn(tensor.shape, generator=generator).to(tensor)).sum()


def first_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):  # also the outputs of Hugging Face models
        value = list(value.values())
    items = value if isinstance(value, (tuple, list)) else ()
    return next((t for item in items if (t := first_tensor(item)) is not None), None)


def _mean_square(tensor: Tensor) -> float:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return math.nan  # token ids have no scale
    return float(tensor.detach().double().square().mean())


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else math.nan
