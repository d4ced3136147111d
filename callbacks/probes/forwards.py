"""The forward passes of a model's modules, looked at in sampled steps alone."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from ..guard import HookGuard
from .hooks import Look, StayingHook
from .probe import clock

GLOBAL_HOOKS = "Using `torch.compile.* when there are global hooks"


class Forwards:
    """Tells of every forward pass of some modules while it is on.

    Where the model runs eagerly two hooks for all modules are there in sampled steps, and none in
    the others: an unsampled step costs nothing, and the model can be copied, pickled and scripted
    at any time. In a compiled model hooks added after the first call are silently never called, so
    there they stay, and the looks must be ones that a graph can hold.

    Args:
        model: whose modules; others, and copies of these, are not told of.
        looks: what to call after the forward pass of a module, by its id.
        around: entered around the outermost forward pass, for what happens between modules.
        failed: told of an error of ours; nobody is told of forward passes after it.
        once: give up where something is compiled, instead of leaving hooks there for one step.
    """

    def __init__(
        self,
        model: nn.Module,
        looks: Mapping[int, Look],
        around: AbstractContextManager[Any] | None = None,
        failed: Callable[[Exception], None] = lambda error: None,
        *,
        once: bool = False,
    ) -> None:
        self.running: list[tuple[str, nn.Module]] = []
        """Path and module of the forward passes that are under way, the innermost last."""
        self.passes = 0
        """Forward passes that were told of; each costs `seconds_of_a_pass` beside its look."""
        self.stays = False
        """Whether the hooks stay, as in a compiled model."""
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._model = model
        self._looks = looks
        self.around = around
        self._failed = failed
        self.guarded = HookGuard(self._give_up)
        self._once = once
        self._inside = False
        self._thread = 0
        self._on: list[Any] = []
        self._staying: list[Any] = []
        if is_compiled(model):
            self.stay()

    def on(self) -> None:
        """Begin to tell."""
        if something_is_compiled():
            self.stay()
            if self._once:
                return
        if not self.stays and not self._on:
            # a first call of a compiled model warns of them before it tells us that it is one
            keep_quiet()
            self._thread = get_ident()
            self._on = _listening(weakref.ref(self))
            # a recorder that was let go unfinished leaves no hook to every module behind
            self._remove = weakref.finalize(self, _remove, list(self._on))

    def off(self) -> None:
        """Stop, also in the middle of a forward pass that nobody told the end of (Ctrl-C)."""
        if self._on:
            self._remove()
        self._on = []
        self.running.clear()
        self._leave()

    def close(self) -> None:
        """Remove every hook."""
        self.off()
        for handle in self._staying:
            handle.remove()
        self._staying.clear()

    def stay(self) -> None:
        """Keep a hook at every module from now on."""
        if self.stays:
            return
        self.off()
        if self._once:
            return
        self.stays = True
        for module in self._model.modules():
            look = self._looks.get(id(module))
            if look is not None:
                self._staying.append(module.register_forward_hook(StayingHook(look)))

    def _is_ours(self, module: nn.Module) -> bool:
        known = id(module) in self._paths and get_ident() == self._thread
        return known and self._on != [] and is_real()

    def note_entry(self, module: nn.Module) -> None:
        """Note that a module's forward pass begins."""
        if type(module).__name__ == "OptimizedModule":
            # somebody compiles this model or another, and nothing is traced yet: hooks for all
            # modules would be traced in, and have it compiled once more when they are gone
            self.stay()
        if self._is_ours(module) and not _is_redirected(module):
            if not self.running:
                self._enter()
            self.running.append((self._paths[id(module)], module))
            self.passes += 1

    def note_exit(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Note that it has ended, and look at the module."""
        if not self._is_ours(module):
            return
        while self.running:
            _, last = self.running.pop()
            if last is module:
                break
        if not self.running:
            self._leave()
        look = self._looks.get(id(module))
        if look is not None:
            with torch._C.DisableTorchFunction():  # our own calls are none of the model's
                look(module, inputs, output)

    def _give_up(self, error: Exception) -> None:
        self.off()
        self._failed(error)

    def _enter(self) -> None:
        if self.around is not None and not self._inside:
            self._inside = True
            self.around.__enter__()

    def _leave(self) -> None:
        if self.around is not None and self._inside:
            self.around.__exit__(None, None, None)
            self._inside = False


def _listening(watched: weakref.ref[Forwards]) -> list[Any]:
    """Register the two hooks for all modules; they keep nothing alive."""

    def entered(module: nn.Module, inputs: Any) -> None:
        forwards = watched()
        if forwards is not None and not torch.compiler.is_compiling():
            with forwards.guarded:
                forwards.note_entry(module)

    def left(module: nn.Module, inputs: Any, output: Any) -> None:
        forwards = watched()
        if forwards is not None and not torch.compiler.is_compiling():
            with forwards.guarded:
                forwards.note_exit(module, inputs, output)

    return [
        register_module_forward_pre_hook(entered),
        # called after an exception too, so that what was entered is left
        register_module_forward_hook(left, always_call=True),
    ]


def keep_quiet() -> None:
    """Ignore torch's warning of hooks for all modules, also where the user has warnings raised.

    Where a filter already does so nothing is added: with each new one Python forgets which warnings
    of the user's it has shown already.
    """
    for action, message, category, module, _ in warnings.filters:
        pattern = getattr(message, "pattern", message)
        ours = pattern is None or pattern == GLOBAL_HOOKS
        if ours and issubclass(UserWarning, category) and module is None:
            if action == "ignore":
                return
            break
    warnings.filterwarnings("ignore", GLOBAL_HOOKS, UserWarning)


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()


@cache
def seconds_of_a_pass() -> float:
    """Return what a module's forward pass costs more while it is told of, measured once."""
    module, x = nn.Identity(), torch.zeros(1)

    def look(*told: Any) -> None:  # a look reads the clock twice
        clock()
        clock()

    forwards = Forwards(module, {id(module): look})

    @contextmanager
    def listening() -> Iterator[None]:
        forwards.on()
        try:
            yield
        finally:
            forwards.off()

    return extra_seconds(lambda: module(x), listening())


def extra_seconds(work: Callable[[], object], around: AbstractContextManager[Any]) -> float:
    """Return how much longer a piece of work takes inside a context: the best of ten times 20."""

    def timed() -> float:
        begun = clock()
        for _ in range(20):
            work()
        return (clock() - begun) / 20

    without = min(timed() for _ in range(10))
    with around:
        return max(0.0, min(timed() for _ in range(10)) - without)


def is_compiled(model: nn.Module) -> bool:
    """Tell whether torch.compile runs the model or a part of it.

    >>> is_compiled(nn.Linear(1, 1)), is_compiled(nn.Sequential(torch.compile(nn.Linear(1, 1))))
    (False, True)
    """
    if getattr(model, "_compiler_ctx", None):  # a LightningModule that was compiled as a whole
        return True
    for module in model.modules():
        if type(module).__name__ == "OptimizedModule":
            return True
        if getattr(module, "_compiled_call_impl", None) is not None:
            return True
        own = (getattr(type(module), "forward", None), *vars(module).values())
        if any(callable(value) and hasattr(value, "_torchdynamo_orig_callable") for value in own):
            return True
    return False


def something_is_compiled() -> bool:
    """Tell whether torch.compile has compiled anything in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and bool(dynamo.counters["frames"])


def _is_redirected(module: nn.Module) -> bool:
    """Tell whether Lightning leads a whole training_step through the module's forward, as in DDP.

    What is called there is the loss, which on one device no forward pass holds.
    """
    return getattr(vars(module).get("forward"), "__name__", "") == "wrapped_forward"


def is_real() -> bool:
    """Tell whether tensors hold the values of a training step that is computed once.

    Not in the backward pass, where gradient checkpointing runs the forward again, nor while
    somebody traces, exports, fakes or transforms (vmap, grad) a function that calls the model.
    """
    return (
        torch._C._current_graph_task_id() == -1
        and torch._C._get_tracing_state() is None
        and torch._C._functorch.peek_interpreter_stack() is None  # type: ignore[attr-defined]
        and torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is None
    )
