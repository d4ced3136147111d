"""Functional activations and attention: calls of F.relu, x.tanh() and their kin in a forward pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

from ..guard import HookGuard
from ..measures.activations import activation_kind
from .attended import ATTENTIONS
from .forwards import extra_seconds

_SPELLINGS: dict[str, tuple[Any, ...]] = {
    "relu": (F.relu, torch.relu, Tensor.relu, F.relu_, torch.relu_, Tensor.relu_),
    "relu6": (F.relu6,),
    "gelu": (F.gelu,),
    "silu": (F.silu,),
    "mish": (F.mish,),
    "elu": (F.elu,),
    "selu": (F.selu, torch.selu),
    "hardtanh": (F.hardtanh,),
    "hardsigmoid": (F.hardsigmoid,),
    "softplus": (F.softplus,),
    "tanh": (torch.tanh, Tensor.tanh),
    "sigmoid": (torch.sigmoid, Tensor.sigmoid),
    "clamp": (
        torch.clamp,
        Tensor.clamp,
        torch.clip,
        Tensor.clip,
        torch.clamp_min,
        Tensor.clamp_min,
    ),
}
KINDS = {function: kind for kind, functions in _SPELLINGS.items() for function in functions}
PARTS = ("tanh", "sigmoid", "softplus", "clamp")
"""What activations are made of: in a module of its own without weights they are a part of it."""
CLAMPS = {(0.0, None): "relu", (0.0, 6.0): "relu6", (-1.0, 1.0): "hardtanh"}
MOST = 256
"""Call sites that are told apart in one model."""

_BETWEEN = (__name__, "torch.nn.functional", "torch.overrides", "torch._jit_internal")
"""Modules whose frames lie between the call and us."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an activation: where it stands, what went in, what came out."""

    site: str
    kind: str
    inputs: Tensor
    output: Tensor
    low: float | None = None
    high: float | None = None


Attend = Callable[[tuple[str, nn.Module], Any, tuple[Any, ...], dict[str, Any]], None]
"""Called with path and module of the innermost forward pass, function, arguments and keywords."""


class FunctionalCalls(TorchFunctionMode):
    """Tells of activations that are called as functions, named by the innermost running module.

    Two calls on one line of code are two sites, a call in a loop is one: `block.relu()`,
    `block.relu()#2`. Entered around a forward pass of a sampled step; it sees nothing of what
    torch.compile has compiled.

    Args:
        running: returns path and module of the innermost forward pass, or None.
        tell: called with every activation.
        failed: told of an error of ours.
        attend: called with every call of attention, before it is known what can be read of it.
    """

    def __init__(
        self,
        running: Callable[[], tuple[str, nn.Module] | None],
        tell: Callable[[Call], None],
        failed: Callable[[Exception], None] = lambda error: None,
        attend: Attend = lambda running, func, args, kwargs: None,
    ) -> None:
        super().__init__()
        self.calls = 0
        """Calls of torch functions that went through here."""
        self._running = running
        self._tell = tell
        self._attend = attend
        self._guarded = HookGuard(failed)
        self._sites: dict[tuple[str, str, CodeType, int], str] = {}
        self._names: set[str] = set()

    def __exit__(self, *told: Any) -> None:
        # leaving takes the uppermost mode: not that of somebody who entered one in a forward pass
        # and leaves it later
        if self not in (stack := _get_current_function_mode_stack()):
            return
        above = stack[stack.index(self) + 1 :]
        for _ in range(len(above) + 1):
            _pop_mode()
        for mode in above:
            _push_mode(mode)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        self.calls += 1
        kind = KINDS.get(func)
        if kind is not None or func in ATTENTIONS:
            # modes of the user's need not see us
            with self._guarded, torch._C.DisableTorchFunction():
                running = self._running()
                if running is not None and kind is None:
                    self._attend(running, func, args, kwargs)
                elif running is not None and kind is not None and args:
                    self._look(kind, running, args, kwargs, output)
        return output

    def _look(
        self, kind: str, running: tuple[str, nn.Module], args: Any, kwargs: Any, output: Any
    ) -> None:
        path, module = running
        inputs = args[0]
        if not (isinstance(inputs, Tensor) and isinstance(output, Tensor)) or inputs.ndim < 2:
            return
        if activation_kind(module) is not None or isinstance(module, nn.modules.loss._Loss):
            return  # the module's own hook tells of it; a loss has no units
        if kind in PARTS and next(module.parameters(), None) is None:
            return
        low, high = _bounds(kind, args, kwargs)
        if kind == "clamp":
            kind = CLAMPS.get((low, high), "") if low is not None else ""
        if not kind or (kind == "softplus" and (*args[1:2], kwargs.get("beta", 1))[0] != 1):
            return
        if output is inputs and kind not in ("relu", "relu6"):
            return  # in place: what went in is gone, and the output does not tell it
        site = self._site(path, kind)
        if site is not None:
            self._tell(Call(site, kind, inputs, output, low, high))

    def _site(self, path: str, kind: str) -> str | None:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_globals.get("__name__") in _BETWEEN:
            frame = frame.f_back
        key = (path, kind, frame.f_code, frame.f_lasti)
        if key not in self._sites:
            if len(self._sites) >= MOST:
                return None
            name = f"{path}.{kind}()" if path else f"{kind}()"
            number = 1
            while (name if number == 1 else f"{name}#{number}") in self._names:
                number += 1
            self._sites[key] = name if number == 1 else f"{name}#{number}"
            self._names.add(self._sites[key])
        return self._sites[key]


@cache
def seconds_of_a_call() -> float:
    """Return what a call of a torch function costs more while it is listened to, measured once."""
    x = torch.zeros(1)
    mode = FunctionalCalls(lambda: None, lambda call: None)
    return extra_seconds(lambda: x.add(1), mode)


def _bounds(kind: str, args: Any, kwargs: Any) -> tuple[float | None, float | None]:
    """Return the bounds that a call of hardtanh or clamp gives, None for what it leaves out."""
    if kind == "hardtanh":
        names, defaults = ("min_val", "max_val"), (-1.0, 1.0)
    elif kind == "clamp":
        names, defaults = ("min", "max"), (None, None)
    else:
        return None, None
    found = [
        args[place] if len(args) > place else kwargs.get(name, default)
        for place, (name, default) in enumerate(zip(names, defaults, strict=True), start=1)
    ]
    if any(isinstance(bound, Tensor) for bound in found):
        return None, None
    low, high = (None if bound is None else float(bound) for bound in found)
    return low, high
