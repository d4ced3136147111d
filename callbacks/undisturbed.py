"""Running a user's own loss without disturbing the run: nothing that it changes is left changed."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from ..store import OtoscopeError
from .collectives import CollectiveError, is_elsewhere, no_collectives
from .snapshot import RandomStates, Snapshot

__all__ = ["CollectiveError", "Look", "is_looking", "lightning_loss", "undisturbed"]

Loss = Callable[[nn.Module, Any], Tensor]


class Look:
    """One look at a module: what it changed so far can be put back before it ends."""

    def __init__(self, module: nn.Module):
        self._states, self._snapshot = RandomStates(module), Snapshot(module)

    def redraw(self, seed: int = 0) -> None:
        """Let python, numpy and torch draw the same numbers again from here."""
        self._states.seed(seed)

    def rewind(self, keep: Iterable[Tensor] = ()) -> None:
        """Put everything back but the parameters to keep, and draw the same numbers again.

        So a loss that counts, appends or draws is a function of the weights. No graph may be alive:
        what it holds is written to.
        """
        self._snapshot.restore({id(parameter) for parameter in keep})
        self._states.seed(0)

    def end(self) -> None:
        """Put everything back."""
        try:
            self._snapshot.restore()
        finally:
            self._states.restore()


_look: Look | None = None


def is_looking() -> bool:
    """Return whether Otoscope is running the model for itself: hooks of ours must do nothing then."""
    return _look is not None


@contextlib.contextmanager
def undisturbed(module: nn.Module) -> Iterator[Look]:
    """Run a module freely; on leaving, nothing of the run has changed.

    Put back are: module modes, parameters, buffers, metric states, lists and counters on the
    modules, and the random states of python, numpy and torch. While it lasts autocast is off, SDPA
    runs the math kernel (the others have no second derivative), compiled modules run eagerly,
    backward hooks are off, `is_looking()` is true, and any torch.distributed collective raises
    CollectiveError. `.grad` is the caller's care: use `torch.autograd.grad`. Nested uses are one.

    >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout())
    >>> before = torch.get_rng_state()
    >>> with undisturbed(net):
    ...     _ = net(torch.randn(8, 2))
    >>> torch.equal(before, torch.get_rng_state()), net[0].num_batches_tracked.item()
    (True, 0)
    """
    global _look
    if _look is not None:
        yield _look
        return
    look = _look = Look(module)
    try:
        with contextlib.ExitStack() as stack:
            for context in _surroundings(module):
                stack.enter_context(context)
            look.redraw()
            yield look
    finally:
        _look = None
        look.end()


def _surroundings(module: nn.Module) -> Iterator[contextlib.AbstractContextManager[Any]]:
    device = next((p.device.type for p in module.parameters()), "cpu")
    yield torch.inference_mode(False)
    yield torch.enable_grad()
    for kind in {device, "cpu"}:
        yield torch.autocast(kind, enabled=False)
    yield _no_own_autocast()
    yield _twice_checkpointed()
    yield sdpa_kernel(SDPBackend.MATH)
    if device == "cuda" and any(isinstance(m, nn.RNNBase) for m in module.modules()):
        yield torch.backends.cudnn.flags(enabled=False)  # cuDNN's RNN has no second derivative
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import costs seconds
        yield torch.compiler.set_stance("force_eager")
    yield _no_backward_hooks(module)
    yield no_collectives()


@contextlib.contextmanager
def _no_own_autocast() -> Iterator[None]:
    """Let an autocast that the loss enters itself do nothing: bfloat16 rounds a scan to nonsense."""
    held, ours = torch.autocast.__enter__, threading.get_ident()

    def enter(self: torch.autocast) -> torch.autocast:
        if is_elsewhere(ours):  # a validation in the background goes on as it was
            return held(self)
        enabled, self._enabled = self._enabled, False
        try:
            return held(self)
        finally:
            self._enabled = enabled

    torch.autocast.__enter__ = enter
    try:
        yield
    finally:
        torch.autocast.__enter__ = held


@contextlib.contextmanager
def _twice_checkpointed() -> Iterator[None]:
    """Run reentrant checkpoints as the others: they have a gradient within autograd.grad, and a second."""
    held = CheckpointFunction.__dict__.get("apply")

    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve)

    CheckpointFunction.apply = apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        if held is None:
            del CheckpointFunction.apply
        else:
            CheckpointFunction.apply = held  # type: ignore[method-assign]


@contextlib.contextmanager
def _no_backward_hooks(module: nn.Module) -> Iterator[None]:
    """`p.register_hook` hooks fire inside autograd.grad too (32 calls became 213 in one run).

    So do the backward hooks of modules.
    """
    found: list[Any] = [p._backward_hooks for p in module.parameters()]
    for part in module.modules():
        if not isinstance(part, torch.jit.ScriptModule):
            found += [part._backward_hooks, part._backward_pre_hooks]
    taken = [(hooks, dict(hooks)) for hooks in found if hooks]
    for hooks, _ in taken:
        hooks.clear()
    try:
        yield
    finally:
        for hooks, saved in taken:
            hooks.update(saved)


def lightning_loss(trainer: Any, module: Any) -> tuple[Loss | None, str]:
    """Return (loss_fn, "") that runs a LightningModule's own loss, or (None, why it cannot).

    `loss_fn(module, batch)` is `module.curvature_loss(batch)` where the module offers it, else
    `training_step` (a tensor, or a mapping with "loss"). Under manual optimization training_step
    would step the optimizers, so only `curvature_loss` serves. `log` and `print` do nothing and the
    loggers are dummies while it runs.
    """
    if callable(getattr(module, "curvature_loss", None)):
        return _quietly(trainer, _offered_loss), ""
    if not module.automatic_optimization:
        return None, (
            "manual optimization: its training_step would step the optimizers; "
            "offer curvature_loss(batch) on the module"
        )
    names = list(inspect.signature(module.training_step).parameters)
    if "dataloader_iter" in names:
        return None, "training_step takes the data loader's iterator; offer curvature_loss(batch)"

    def training_loss(pl_module: Any, batch: Any) -> Tensor:
        output = pl_module.training_step(*_arguments(pl_module.training_step, trainer, batch))
        if isinstance(output, Tensor):
            return output
        if isinstance(output, dict) and isinstance(output.get("loss"), Tensor):
            return output["loss"]
        raise TypeError(
            f"training_step gave {type(output).__name__}; a tensor or a dict with 'loss' is needed"
        )

    return _quietly(trainer, training_loss), ""


def _offered_loss(module: Any, batch: Any) -> Tensor:
    return module.curvature_loss(batch)


def _arguments(step: Callable[..., Any], trainer: Any, batch: Any) -> list[Any]:
    """The arguments that Lightning would pass: (batch), (batch, batch_idx), (…, dataloader_idx)."""
    fit_loop = getattr(trainer, "fit_loop", None)
    index = max(0, int(getattr(fit_loop, "batch_idx", 0) or 0))
    given = [batch, index, 0]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(step).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return given[:2]
    return given[: max(1, sum(p.kind in kinds for p in parameters))]


def _quietly(trainer: Any, loss: Loss) -> Loss:
    def loss_fn(module: nn.Module, batch: Any) -> Tensor:
        with undisturbed(module), _no_logging(trainer, module):
            return loss(module, batch)

    return loss_fn


@contextlib.contextmanager
def _no_logging(trainer: Any, module: nn.Module) -> Iterator[None]:
    silenced = [m for m in module.modules() if hasattr(m, "log_dict") and hasattr(m, "log")]
    names = ("log", "log_dict", "print")
    saved = [
        (vars(m), {name: vars(m)[name] for name in names if name in vars(m)}) for m in silenced
    ]
    for held, _ in saved:
        held.update(dict.fromkeys(names, _nothing))
    loggers = list(getattr(trainer, "loggers", ()) or ())
    if loggers:
        trainer.loggers = [_dummy_logger(trainer)]
    stops = getattr(
        trainer, "should_stop", None
    )  # a step may ask for it where the loss is too high
    try:
        yield
    finally:
        if loggers:
            trainer.loggers = loggers
        if stops is not None:
            trainer.should_stop = stops
        for held, own in saved:
            for name in names:
                held.pop(name, None)
            held.update(own)


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    return None


def _dummy_logger(trainer: Any) -> Any:
    """Lightning's own logger that logs nothing, from whichever package the trainer is of."""
    for cls in type(trainer).__mro__:
        root = cls.__module__.partition(".trainer")[0]
        module = sys.modules.get(f"{root}.loggers.logger")
        if module is not None and hasattr(module, "DummyLogger"):
            return module.DummyLogger()
    raise OtoscopeError(
        f"the loggers of {type(trainer).__module__}.{type(trainer).__name__} cannot be silenced; "
        "a Trainer of pytorch_lightning or lightning.pytorch is needed"
    )
