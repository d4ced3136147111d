"""Attaching a recorder to a plain training loop."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from ..store import ConfigError
from .options import Options
from .probes.probe import Probe
from .recorder import LossFn, Origin, Recorder


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
) -> Recorder:
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
    recorder = Recorder(model, optimizers, options, loss_fn=loss_fn)
    recorder.hook()
    recorder.begin(Origin(), max_steps=max_steps)
    recorder.before_step()
    return recorder
