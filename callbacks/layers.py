"""The layers of a model: which module path owns which parameters."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..store.schemas import Json
from .measures.weights import fan_in

PARAMETRIZED = "parametrizations"
"""What torch.nn.utils.parametrize calls the child that makes a layer's weights."""
ROOT = "(model)"
"""Name of the layer that owns the parameters of the outermost module itself."""


@dataclass(slots=True)
class Layer:
    """A module path and the parameters that its norms cover.

    Where the layer owns weights of two or more dimensions they alone are covered (group
    "weight"), so that ratios across layers compare weights; else all are (group "other").
    """

    path: str
    group: str
    parameters: list[nn.Parameter] = field(default_factory=list)


def owned_parameters(model: nn.Module) -> Iterable[tuple[str, nn.Module, str, nn.Parameter]]:
    """Yield (path, module, name, parameter), a shared parameter with its first owner only.

    What a weight is made of (weight_norm, spectral_norm) belongs to the layer whose weight it is.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        owner, inner = owner_of(path)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield owner or ROOT, module, f"{inner}{name}", parameter


def owner_of(path: str) -> tuple[str, str]:
    """Return the path of the layer that a module belongs to, and what leads from it to the module.

    >>> owner_of("net.0"), owner_of("net.0.parametrizations.weight")
    (('net.0', ''), ('net.0', 'parametrizations.weight.'))
    """
    steps = path.split(".")
    if PARAMETRIZED not in steps:
        return path, ""
    place = steps.index(PARAMETRIZED)
    return ".".join(steps[:place]), ".".join(steps[place:]) + "."


def layers_of(model: nn.Module, trained: Container[int] = ()) -> list[Layer]:
    """Return the layers that own trainable parameters, in the order of the model.

    `trained` are the ids of parameters that count as such although they are frozen now.

    >>> layers_of(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.LayerNorm(2)))[0].path
    '0'
    """
    owned: dict[str, list[nn.Parameter]] = {}
    for path, _, _, parameter in owned_parameters(model):
        if parameter.requires_grad or id(parameter) in trained:
            owned.setdefault(path, []).append(parameter)
    layers: list[Layer] = []
    for path, parameters in owned.items():
        weights = [parameter for parameter in parameters if parameter.ndim >= 2]
        layers.append(Layer(path, "weight" if weights else "other", weights or parameters))
    return layers


def kind_of(module: nn.Module, name: str) -> str:
    """Return what a parameter is for the rules: weight, bias, norm or embedding."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "embedding"
    if "norm" in type(module).__name__.lower():
        return "norm"
    return "bias" if "bias" in name else "weight"


def described_parameters(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer] = ()
) -> list[dict[str, Json]]:
    """Return one row a parameter for `Meta.parameters`; `optimized` where an optimizer holds it.

    `module` is the class of the layer: a batch norm is another one in eval mode, a layer norm is not.
    `group`: the optimizer's and the group's number, as the columns of learning rates have them.
    `momentum`, `fresh`: of a batch norm with running moments, and whether those are as they begin.
    `fan_in`: inputs of a unit, of the weight of a linear layer or a convolution.
    """
    optimizers = list(optimizers)
    held = {id(parameter) for parameter in trained_parameters(optimizers)}
    groups = {
        id(parameter): f"{i}.{j}"
        for i, optimizer in enumerate(optimizers)
        for j, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
    }
    return [
        {
            "name": name if path == ROOT else f"{path}.{name}",
            "layer": path,
            "kind": kind_of(module, name),
            "module": type(module).__name__,
            # a lazy module has no shape before its first batch
            "ndim": 0 if is_lazy(parameter) else parameter.ndim,
            "numel": 0 if is_lazy(parameter) else parameter.numel(),
            "requires_grad": parameter.requires_grad,
            "optimized": id(parameter) in held,
            **({"group": groups[id(parameter)]} if id(parameter) in groups else {}),
            **_running_moments(module),
            **_inputs_of_a_unit(module, name, parameter),
        }
        for path, module, name, parameter in owned_parameters(model)
    ]


def _running_moments(module: nn.Module) -> dict[str, Json]:
    """Return how fast a batch norm's running moments follow, {} where there are none."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm) or is_lazy(module.weight):
        return {}
    mean = module.running_mean
    if mean is None or mean.device.type == "meta" or hasattr(mean, "placements"):
        return {}
    # at the start, once: a device may wait here
    return {"momentum": module.momentum, "fresh": not bool(mean.any())}


def _inputs_of_a_unit(module: nn.Module, name: str, parameter: nn.Parameter) -> dict[str, Json]:
    if name != "weight" or is_lazy(parameter) or parameter.ndim < 2:
        return {}
    inputs = fan_in(module, parameter)
    return {"fan_in": inputs} if inputs else {}


def trained_parameters(optimizers: Iterable[torch.optim.Optimizer]) -> list[nn.Parameter]:
    """Return the parameters that some optimizer steps, each once."""
    seen: dict[int, nn.Parameter] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                seen.setdefault(id(parameter), parameter)
    return list(seen.values())
