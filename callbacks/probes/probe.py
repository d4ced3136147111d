"""The probe: a quantity that is sampled while the run trains, at a price that it measures itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...store import Column, Schema
from ..guard import HookGuard
from .hooks import StayingHook

if TYPE_CHECKING:
    import torch

    from .tap import GradientTap

clock = time.thread_time
"""Measures what our own work costs: CPU seconds of the thread. Wall time would charge us for the
time slices that other processes take (8 ms of them against 20 µs of work, on a loaded machine)."""

COLD = 2.5
"""Between matrix products the caches are cold: how much longer a call takes there than in a loop."""

AFTERMATH = 1.15
"""What our seconds cost the training in all: our code pushes its data out of the caches, and the lines
after ours run slower. `benchmarks/steps.py` compares both."""

COUNTERS = ("queue_frames", "spooled_frames", "dropped_frames", "sent_frames", "late_frames")


@dataclass(slots=True)
class Training:
    """What a probe may know of the training that it looks into.

    `model` is the raw module (never a DDP wrapper). `loss_fn(model, batch) -> Tensor` runs the
    user's own loss, undisturbed, or is None where there is none to run (then probes that run the
    model are off, with `why_no_loss`). `batches()` are the last batches that were trained on,
    at most four, the newest last; they are referenced for one sample and never kept.
    """

    model: torch.nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    rank: int = 0
    world_size: int = 1
    sharded: bool = False
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None
    why_no_loss: str = "no loss_fn was given"
    batches: Callable[[], list[Any]] = lambda: []
    precision: str = "32-true"
    task: str = "supervised"
    """The profile that the user named."""
    accumulates: bool = False
    """Whether it is known that a step has several micro-batches."""
    parts: Callable[[], list[int]] = list
    """Samples in each micro-batch of the step that is being sampled; 0 where it is not known."""
    tap: GradientTap | None = None
    """Squared gradient norms of the step, where it is measured."""
    counters: Callable[[], dict[str, int]] = lambda: dict.fromkeys(COUNTERS, 0)
    """The sender's counts of frames."""
    losses: Sequence[float | torch.Tensor] = ()
    """Of the micro-batches of the step that has just ended, for who samples it."""
    note: Callable[[str], None] = lambda text: None
    """Tells the reader of the run something in words, as an event of the step."""


@dataclass(slots=True)
class Cost:
    """What a probe has cost so far, in seconds of wall time."""

    samples: int = 0
    seconds: float = 0.0
    recent: float = math.nan
    """Seconds of one sample: a running mean that leans to the last samples."""

    def add(self, seconds: float) -> None:
        self.samples += 1
        self.seconds += seconds
        self.recent = seconds if math.isnan(self.recent) else 0.7 * self.recent + 0.3 * seconds


class ProbeOffError(Exception):
    """Raised by a probe that cannot work in this run; the message says why, for the event."""


@dataclass
class Probe:
    """Base of all probes; anyone can write one.

    A subclass sets `family`, returns its columns from `attach`, and one number a column from
    `sample` (a sequence of floats, or one float32 tensor on any device, which the recorder copies
    without waiting). Raise ProbeOffError to be switched off for a reason that the page shows.

    `dear` probes run the model: rank 0 only, their first sample at `first` steps, never two of
    them in one step, and their batches are kept at hand only for the step that samples.
    """

    family: str = field(default="", init=False)
    dear: bool = field(default=False, init=False)
    first: int = field(default=1, init=False)
    guess: float = field(default=60.0, init=False)
    """What a dear probe's first sample is thought to cost, in steps: is the run long enough for it?"""
    eager: bool = field(default=False, init=False)
    """Whether it looks at once where something happened, although it is cheap."""
    promised: tuple[tuple[int, int], ...] = field(default=(), init=False)
    """(step, samples) of the run from which on it looks although the budget may be in debt, where cheap."""
    least: int = field(default=1, init=False)
    """Fewest steps between two samples that the budget may choose."""
    sees_batch: bool = field(default=False, init=False)
    """Whether `Training.batches()` shall hold the batch of a step that it samples."""
    every: int | None = None
    """Steps between samples; None lets the budget decide."""
    cost: Cost = field(default_factory=Cost, init=False)
    weight: float = field(default=1.0, init=False)
    """Its part of the budget, against the other probes'."""
    hook_seconds: float = field(default=0.0, init=False)
    """Time that its hooks took inside the step; the recorder reads it and sets it back."""
    watch_error: Exception | None = field(default=None, init=False, repr=False)
    """What went wrong in a hook of `watch`; the recorder asks before it samples."""
    _watches: list[Any] = field(default_factory=list, init=False, repr=False)

    def on_every_rank(self, training: Training) -> bool:
        """Tell whether every rank samples, at the same steps, so that the ranks add up.

        Else it is rank 0 alone: what all ranks hold alike is recorded once.
        """
        return False

    def is_on(self, training: Training) -> bool:
        """Tell whether it samples on this rank."""
        return training.rank == 0 or (not self.dear and self.on_every_rank(training))

    @property
    def name(self) -> str:
        """What the page calls it: the class name in lower case."""
        return type(self).__name__.lower()

    def attach(self, training: Training) -> Sequence[Column]:
        """Hook into the training and return the columns of the family."""
        raise NotImplementedError

    def arm(self, step: int) -> None:
        """Get ready before the forward pass of a step that will be sampled."""

    def sample(self, step: int) -> torch.Tensor | Sequence[float]:
        """Return the values of the step, after its optimizer stepped, in the columns' order."""
        raise NotImplementedError

    def price(self, samples: int) -> float:
        """Return what a first sample may cost, in micro-batches of so many samples each."""
        return self.guess

    def changed(self) -> Sequence[Column] | None:
        """Return the columns where a sample has others than the one before, else None."""
        return None

    def watch(self, module: torch.nn.Module, look: Callable[..., object]) -> None:
        """Call `look(module, inputs, output)` after each forward pass of a module, from `arm` on.

        Until the sample is taken; then the hook is removed. Without gradients, and never in the
        recomputation of a checkpointed block. What `look` raises never reaches the training: it
        counts as an error of the sample. In a compiled model it is not called.
        """
        from .forwards import is_real  # which reads our clock

        def looking(*told: object) -> None:
            begun = clock()
            with guarded:
                if is_real():
                    with torch.no_grad():
                        look(*told)
            self.hook_seconds += clock() - begun

        import torch

        guarded = HookGuard(self._watch_failed)

        self._watches.append(module.register_forward_hook(StayingHook(looking)))

    def _watch_failed(self, error: Exception) -> None:
        self.watch_error = self.watch_error or error

    def unwatch(self) -> None:
        """Remove the hooks of `watch`; the recorder does so after every sample."""
        for handle in self._watches:
            handle.remove()
        self._watches.clear()
        self.watch_error = None

    def hungry(self) -> bool:
        """Tell whether the very next step should be sampled too, where the budget allows."""
        return False

    def disarm(self) -> None:
        """Stop looking, after a sampled step or one that ended early."""

    def detach(self) -> None:
        """Remove every hook."""

    def schema(self, columns: Sequence[Column]) -> Schema:
        """Return the schema of the family."""
        return Schema(self.family, tuple(columns))
