"""Attaching a recorder to a plain training loop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch

from ..store import ConfigError
from .describing import batch_size_of
from .options import Options
from .probes.probe import Probe
from .recorder import LossFn, Origin, Recorder


class LoopRecorder(Recorder):
    """The recorder of a plain training loop; a `with` statement ends it, and notes an exception."""

    def step(self, loss: Any, batch_size: int | None = None, batch: Any = None) -> None:
        """Record a step; call after `optimizer.step()`.

        Args:
            loss: the step's loss, a tensor or a number.
            batch_size: samples in the step, over all its micro-batches; None counts the batch.
            batch: what `loss_fn(model, batch)` takes; needed for curvature alone.
        """
        if self.finished:
            return
        with self.guard("recorder"):
            tensor = loss if isinstance(loss, torch.Tensor) else torch.tensor(float(loss))
            samples = batch_size_of(batch) if batch_size is None else int(batch_size)
            self.forward_done(tensor, samples or 0, batch)
        self.end_step()
        self.before_step()

    def __enter__(self) -> LoopRecorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.fail(error)


def _rank() -> int:
    distributed = torch.distributed
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if ready else 0


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
    probes: str | Sequence[Probe] = "default",
    tags: Sequence[str] = (),
    notes: str = "",
    spool: str | os.PathLike[str] | None = None,
    task: str = "supervised",
    strict: bool = False,
    verdict: bool = True,
    max_steps: int | None = None,
) -> LoopRecorder:
    """Look into a plain PyTorch loop; call before the first forward pass.

    Call `recorder.step(loss, batch_size)` after every `optimizer.step()` and `recorder.finish()`
    at the end, or use it in a `with` statement, which also notes an exception.

    Args:
        model: the raw module.
        optimizer: the optimizer, or several.
        loss_fn: `loss_fn(model, batch) -> Tensor`; with it and `step(…, batch=batch)` the
            curvature can be measured.
        max_steps: length of the run, where it is known.

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
    recorder = LoopRecorder(model, optimizers, options, loss_fn=loss_fn)
    if _rank() != 0:  # one rank records
        recorder.finished = True
        return recorder
    recorder.hook()
    recorder.begin(Origin(), max_steps=max_steps, meta={"config": {"loop": "own"}})
    recorder.before_step()
    return recorder
