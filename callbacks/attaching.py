"""Attaching a recorder to a plain training loop."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import torch

from ..store import ConfigError
from ..store.keys import checked_run_id
from .accelerate import AcceleratedLoop, is_accelerated, unwrapped
from .at_exit import AtExit
from .describing import batch_size_of
from .options import Options
from .probes.probe import Probe
from .recorder import Origin, Recorder
from .scaling import Scale, has_shrunk, scale_now, shown_scale
from .shards import is_sharded
from .stepping import LossFn


class PlainLoop:
    """The steps of a loop that tells of itself by calling `recorder.step`, and of its scaler."""

    complete = True
    accumulates = False

    def __init__(self, scaler: Any = None) -> None:
        self.scaler = scaler

    def scale(self) -> Scale:
        """Return the loss scale of the coming step."""
        return scale_now(self.scaler)

    def whole(self, parts: int) -> float:
        """Return what undoes a partial window: nothing is known of windows."""
        return 1.0

    def skipped(self, stepped: bool) -> bool:
        """Tell whether the scaler let the step out."""
        return self.scaler is not None and not stepped


class LoopRecorder(Recorder):
    """The recorder of a plain training loop; a `with` statement ends it, and notes an exception."""

    loop: PlainLoop | AcceleratedLoop = PlainLoop()
    _parts = 0
    _at_exit: AtExit | None = None

    def step(
        self,
        loss: Any,
        batch_size: int | None = None,
        batch: Any = None,
        *,
        complete: bool | None = None,
    ) -> None:
        """Record a step; call after `optimizer.step()`.

        Args:
            loss: the step's loss, a tensor or a number.
            batch_size: samples in it; None counts the batch.
            batch: what `loss_fn(model, batch)` takes; needed for curvature alone.
            complete: False for a micro-batch after which no optimizer stepped: its loss and its
                samples count into the step to come. An optimizer of Accelerate tells by itself.
        """
        if self.finished:
            return
        begun, whole = time.perf_counter(), True
        with self._border:
            whole = self.loop.complete if complete is None else complete
            tensor = loss if isinstance(loss, torch.Tensor) else torch.tensor(float(loss))
            samples = (batch_size_of(batch) if batch_size is None else int(batch_size)) or 0
            if whole and self._is_plain and self.note(tensor, samples, math.nan, math.nan, begun):
                if not self.is_calm(begun):
                    self.before_step()
                return
            self.forward_done(tensor, samples, batch)
        with self._border:
            self._parts += 1
            if whole:
                parts, self._parts = self._parts, 0
                self._close_step(parts)

    @property
    def _is_plain(self) -> bool:
        """Whether the step has one loss and no scale."""
        return not self._parts and self.loop.scaler is None

    def _close_step(self, parts: int) -> None:
        scaler = self.loop.scaler
        self.undo(self.loop.whole(parts) / self.gradient_scale)
        self.end_step(
            loss_scale=shown_scale(scaler, self.gradient_scale),
            skipped=self.loop.skipped(self.stepped) or has_shrunk(scaler, self.gradient_scale),
        )
        self.before_step()

    def before_step(self) -> None:
        """Decide what the coming step measures, and note the scale that its loss will have."""
        super().before_step()
        with self.guard("loss scale"):
            self.gradient_scale = self.loop.scale()

    def validate(self, metrics: Mapping[str, Any], *, epoch: float = math.nan) -> None:
        """Record the user's own validation metrics, at the count of steps done."""
        with self._border:
            super().validate(metrics, epoch=epoch)
            self.restart_clock()  # nobody tells when the validation began

    def finish(self, reason: str = "end of training") -> None:
        """End the recording: remove every hook, send what is left, print the verdict."""
        with self._border:
            self._forget_exit()
        with self._border:
            super().finish(reason)

    def fail(self, error: BaseException) -> None:
        """Note the user's exception and let go of everything."""
        with self._border:
            self._forget_exit()
        with self._border:
            super().fail(error)

    def end_with_process(self) -> None:
        """End the recording when the process ends, should nobody do so before."""
        self._at_exit = AtExit(self._exited)

    def _exited(self, error: BaseException | None) -> None:
        with self._border:
            if error is None:
                self.finish("the process ended")
            else:
                self.fail(error)

    def _forget_exit(self) -> None:
        if self._at_exit is not None:
            self._at_exit.close()

    def __enter__(self) -> LoopRecorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._border:
            if error is None:
                self.finish()
            else:
                self.fail(error)


def _place() -> dict[str, Any]:
    """Return this process's place among the ranks, as the recorder takes it."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return {}
    world = distributed.get_world_size()
    one_node = os.environ.get("LOCAL_WORLD_SIZE") == str(world)
    return {"rank": distributed.get_rank(), "world_size": world, "one_node": one_node}


def _check_that_it_trains(
    model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Refuse optimizers that step none of the model's parameters: all numbers would be of nothing."""
    own = {id(parameter) for parameter in model.parameters()}
    stepped = [p for item in optimizers for group in item.param_groups for p in group["params"]]
    if own and stepped and not own & {id(parameter) for parameter in stepped}:
        raise ConfigError(
            f"the optimizer steps {len(stepped)} parameters, and none of them is one of the "
            f"{len(own)} of this {type(model).__name__}; attach the model that it was made for "
            "(after moving or wrapping a model, make the optimizer anew)"
        )


def attach(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    *,
    loss_fn: LossFn | None = None,
    run: str | None = None,
    url: str | None = None,
    budget: float = 0.02,
    probes: str | Sequence[Probe | str] = "default",
    tags: Sequence[str] = (),
    notes: str = "",
    spool: str | os.PathLike[str] | None = None,
    task: str = "supervised",
    strict: bool = False,
    verdict: bool = True,
    max_steps: int | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> LoopRecorder:
    """Look into a plain PyTorch loop; call before the first forward pass.

    Call `recorder.step(loss, batch_size)` after every `optimizer.step()` and `recorder.finish()`
    at the end, or use it in a `with` statement, which also notes an exception.

    Args:
        model: the module; every rank of a distributed run attaches its own, at the same place.
        optimizer: the optimizer, or several; those that Accelerate prepared serve as well.
        loss_fn: `loss_fn(model, batch) -> Tensor`; with it and `step(…, batch=batch)` the
            curvature can be measured.
        max_steps: length of the run, where it is known.
        scaler: the loop's GradScaler, so that its scale is taken out of the gradients and the
            steps that it skips are known.

    The other keywords are those of `Otoscope`. Raises ConfigError where a value cannot be used.

    >>> import tempfile
    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with attach(model, optimizer, spool=tempfile.mkdtemp(), verdict=False) as recorder:
    ...     loss = model(torch.ones(4, 2)).square().mean()
    ...     loss.backward()
    ...     optimizer.step()
    ...     recorder.step(loss, batch_size=4)
    >>> recorder.steps
    1
    """
    if not isinstance(model, torch.nn.Module):
        raise ConfigError(f"attach takes a torch module, got {type(model).__name__}")
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
    for item in optimizers:
        if not isinstance(item, torch.optim.Optimizer):
            raise ConfigError(
                f"attach takes an optimizer of torch.optim, or a list, got {type(item).__name__}"
            )
    if not optimizers:
        raise ConfigError("attach needs at least one optimizer, got an empty list")
    loop: PlainLoop | AcceleratedLoop = PlainLoop(scaler)
    if is_accelerated(optimizers[0]):
        loop = AcceleratedLoop(optimizers[0])
    optimizers = [unwrapped(item) for item in optimizers]
    if isinstance(model, torch.nn.parallel.DistributedDataParallel):
        model = model.module
    _check_that_it_trains(model, optimizers)
    if loss_fn is not None and not callable(loss_fn):
        raise ConfigError(f"loss_fn must be loss_fn(model, batch) -> Tensor, got {loss_fn!r}")
    if max_steps is not None and (not isinstance(max_steps, int) or max_steps < 1):
        raise ConfigError(f"max_steps must be a positive whole number or None, got {max_steps!r}")
    words = tags if isinstance(tags, str) else tuple(tags)
    options = Options(
        run,
        url,
        budget,
        probes,
        words,
        notes,
        spool,
        task,
        strict,
        verdict,  # type: ignore[arg-type]
    )
    if scaler is not None and not hasattr(scaler, "unscale_"):
        raise ConfigError(
            f"scaler must be the loop's torch.amp.GradScaler or None, got {type(scaler).__name__}"
        )
    if given := os.environ.get("OTOSCOPE_RUN_ID"):
        checked_run_id(given)
    place = _place()
    recorder = LoopRecorder(
        model,
        optimizers,
        options,
        loss_fn=loss_fn,
        sharded=is_sharded(model),
        accumulates=loop.accumulates,
        **place,
    )
    recorder.loop = loop
    recorder.hook()
    with recorder.guard("recorder"):
        recorder.begin(Origin(), max_steps=max_steps, meta={"config": {"loop": "own"}})
        recorder.before_step()
        recorder.end_with_process()
    with recorder.guard("recorder"):
        if not recorder.begun:  # it was logged why
            recorder.finish()
    return recorder
