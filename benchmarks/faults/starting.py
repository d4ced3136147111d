"""How a net is changed before it trains: its weights, its activations, what is frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def changes(spec: Any) -> list[Mapping[str, Any]]:
    """Return a table, a list of tables, or nothing, as a list."""
    if spec is None:
        return []
    return [spec] if isinstance(spec, Mapping) else list(spec)


def changed(net: nn.Module, change: Mapping[str, Any]) -> nn.Module:
    """Return the net with one change made; `only` names the layers that it is made to."""
    rest = dict(change)
    return CHANGES[rest.pop("kind")](net, **rest) or net


def check(change: Mapping[str, Any]) -> None:
    """Look the kind up; KeyError names those that there are."""
    if change.get("kind") not in CHANGES:
        raise KeyError(f"no start {change.get('kind')!r}; there are {', '.join(CHANGES)}")


def _layers(net: nn.Module, only: list[str] | None) -> Iterator[nn.Module]:
    for name, module in net.named_modules():
        if isinstance(module, LAYERS) and (only is None or name in only):
            yield module


def _bias(net: nn.Module, value: float, only: list[str] | None = None) -> None:
    for module in _layers(net, only):
        if isinstance(module.bias, Tensor):
            nn.init.constant_(module.bias, value)


def _drawn(draw: Callable[..., Any]) -> Callable[..., None]:
    def change(net: nn.Module, only: list[str] | None = None, **arguments: Any) -> None:
        for module in _layers(net, only):
            draw(module.weight, **arguments)
            if isinstance(module.bias, Tensor):
                nn.init.zeros_(module.bias)

    return change


def _scaled(net: nn.Module, times: float, only: list[str] | None = None) -> None:
    for module in _layers(net, only):
        assert isinstance(module.weight, Tensor)
        module.weight.data.mul_(times)


def _frozen(net: nn.Module, only: list[str]) -> None:
    for name in only:
        net.get_submodule(name).requires_grad_(False)


def _proposed(net: nn.Module, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """What `weight_init` proposes: for each layer a kind, or a deviation; biases of zero."""
    for name, init in layers.items():
        module = net.get_submodule(name)
        weight = module.weight
        assert isinstance(weight, Tensor)
        if init.get("std") is not None:
            nn.init.normal_(weight, std=float(init["std"]))
        else:
            getattr(nn.init, f"{init['kind']}_")(weight)
        if isinstance(module.bias, Tensor):
            nn.init.zeros_(module.bias)


def _activations(net: nn.Module, layers: Mapping[str, str]) -> None:
    for name, kind in layers.items():
        net.get_submodule(name)
        net.set_submodule(name, getattr(nn, kind)())


def _without_softmax(net: nn.Module) -> None:
    for name, module in list(net.named_modules()):
        if isinstance(module, (nn.Softmax, nn.LogSoftmax)):
            net.set_submodule(name, nn.Identity())


def _softmax(net: nn.Module) -> nn.Module:
    return nn.Sequential(net, nn.Softmax(-1))


def _with_output(net: nn.Module, act: str) -> nn.Module:
    return nn.Sequential(net, getattr(nn, act)())


def _group_norm(net: nn.Module) -> None:
    for name, module in list(net.named_modules()):
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            net.set_submodule(name, nn.GroupNorm(min(8, module.num_features), module.num_features))


def _norm_momentum(net: nn.Module, value: float) -> None:
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = value


def _dropout(net: nn.Module, value: float) -> nn.Module | None:
    """Set the share of all dropouts; where a chain has none, one comes before its last layer."""
    found = [module for module in net.modules() if isinstance(module, nn.Dropout)]
    for module in found:
        module.p = value
    if found or not isinstance(net, nn.Sequential):
        return None
    parts = list(net.children())
    return nn.Sequential(*parts[:-1], nn.Sequential(nn.Dropout(value), parts[-1]))


CHANGES: dict[str, Callable[..., nn.Module | None]] = {
    "bias": _bias,
    "normal": _drawn(lambda weight, std: nn.init.normal_(weight, 0.0, std)),
    "constant": _drawn(lambda weight, value: nn.init.constant_(weight, value)),
    "uniform": _drawn(lambda weight, low, high: nn.init.uniform_(weight, low, high)),
    "he": _drawn(nn.init.kaiming_normal_),
    "glorot": _drawn(nn.init.xavier_uniform_),
    "xavier": _drawn(nn.init.xavier_normal_),
    "scale": _scaled,
    "freeze": _frozen,
    "softmax": _softmax,
    "output": _with_output,
    "norm_momentum": _norm_momentum,
    "weight_init": _proposed,
    "activation": _activations,
    "remove_softmax": _without_softmax,
    "group_norm": _group_norm,
    "dropout": _dropout,
}
