"""The tap: squared norms of each parameter's gradient, before anything clips it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..guard import HookGuard
from ..norms import squared_norms, stacked
from .pairs import GradientPairs
from .probe import clock

if TYPE_CHECKING:
    from torch import nn


class GradientTap:
    """Collects, in armed steps, the squared gradient norm of every trained parameter.

    Two ways lead here: `collect(parameters)` where somebody tells us that the gradients are
    complete and not yet clipped (Lightning's automatic optimization), or `listen()`, hooks that
    fire as each gradient is accumulated (every other loop; the last micro-batch of a step wins,
    for `.grad` is a running sum). What an optimizer has used is kept: another loss's backward pass
    may write into its parameters afterwards, as a generator's does into the discriminator.

    Where ranks average their gradients (`averaged`), a hook sees this rank's own one; then the
    backward pass is waited for, and the averaging that DDP puts behind it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.armed = False
        self._guarded = HookGuard(self._failed)
        self.factor: float | torch.Tensor = 1.0
        """What a gradient must be multiplied by: 1/loss scale, and A/n in a partial window."""
        self.shares: Sequence[float] | None = None
        """How much of each parameter's square counts where the ranks hold shards and are added up."""
        self.averaged = False
        self.exact = False
        """Whether the coming step's squares are taken exactly, for a difference; who asks unasks."""
        self.arriving: float | torch.Tensor | None = None
        """What a gradient must be multiplied by as it arrives, where that is not `factor`."""
        self.pairs = GradientPairs()
        self._came: list[int] = []
        self.seconds = 0.0
        """Time spent in the armed step."""
        self.clip_factor = math.nan
        self._place = {id(p): i for i, p in enumerate(self.parameters)}
        self._squares: list[float | torch.Tensor | None] = [None] * len(self.parameters)
        self._used: list[float | torch.Tensor | None] | None = None
        self._before = self._after = 0.0
        self._handles: list[Any] = []
        self._listening = False
        self._heard: set[int] = set()

    def arm(self) -> None:
        """Begin a step that is measured."""
        self.armed = True
        self.factor = 1.0
        self.arriving = None
        self.seconds = 0.0
        self.clip_factor = math.nan
        self._squares = [None] * len(self.parameters)
        self._used = None
        self._before = self._after = 0.0
        self._came = []  # of a backward pass that broke, whose end nobody told
        if self._listening:
            self.listen()  # to what was unfrozen since

    def disarm(self) -> None:
        """End it, measured or not."""
        self.armed = False

    def collect(self, parameters: Sequence[nn.Parameter]) -> None:
        """Take the gradients of some parameters as they are now."""
        begun = clock()
        self._meet(parameters)
        with_grad = [p for p in parameters if p.grad is not None and id(p) in self._place]
        grads = [p.grad for p in with_grad if p.grad is not None]
        squares = squared_norms(grads, exact=self.exact)
        for parameter, square in zip(with_grad, squares, strict=True):
            self._squares[self._place[id(parameter)]] = square
        for parameter, gradient in zip(with_grad, grads, strict=True):
            self._pair(self._place[id(parameter)], gradient)
        self.seconds += clock() - begun

    def _pair(self, place: int, gradient: torch.Tensor) -> None:
        # behind its optimizer's step a gradient is another loss's
        if self._used is None or self._used[place] is None:
            self.pairs.see(place, gradient)

    def _meet(self, parameters: Sequence[nn.Parameter]) -> None:
        """Take in parameters of a group that was added in the middle of the run."""
        if not self.parameters or self.shares is not None:  # nothing is measured here, or in shares
            return
        for parameter in parameters:
            if id(parameter) not in self._place:
                self._place[id(parameter)] = len(self.parameters)
                self.parameters.append(parameter)
                self._squares.append(None)
                if self._used is not None:
                    self._used.append(None)

    def clip(self, largest: float, parameters: Sequence[nn.Parameter], scale: float = 1.0) -> None:
        """Work out what clipping to a norm does to the gradients just collected.

        `scale` is what separates them from what the clipping sees. Left unknown on a device that
        we would have to wait for.
        """
        squares = [s for p in parameters if (s := self.square_of(p)) is not None]
        if squares and all(isinstance(square, float) for square in squares):
            norm = math.sqrt(sum(squares)) * scale  # type: ignore[arg-type]
            # as torch.nn.utils.clip_grad_norm_ does
            self.clip_factor = min(1.0, largest / (norm + 1e-6)) if norm == norm else math.nan

    def stepped(self, parameters: Sequence[nn.Parameter], scale: float | torch.Tensor = 1) -> None:
        """Keep what an optimizer has just used, and compare it with what it was before clipping.

        `scale` is the loss scale that the gradients held as they were accumulated; by now it is
        out of them.
        """
        begun = clock()
        self._meet(parameters)
        used: list[float | torch.Tensor | None] = self._used or [None] * len(self.parameters)
        self._used = used
        for parameter in parameters:
            place = self._place.get(id(parameter))
            if place is not None and self._squares[place] is not None:
                used[place] = self._squares[place]
        with_grad = [p for p in parameters if p.grad is not None]
        before = [s for p in with_grad if (s := self.square_of(p)) is not None]
        after = squared_norms([p.grad for p in with_grad if p.grad is not None])
        numbers = [s for s in (*before, *after) if isinstance(s, float)]
        if before and len(numbers) == len(before) + len(after) == 2 * len(before):
            # over all optimizers of the step
            self._before += sum(numbers[: len(before)]) / float(scale) ** 2
            self._after += sum(numbers[len(before) :])
            self.clip_factor = math.sqrt(self._after / self._before) if self._before else 1.0
        self.seconds += clock() - begun

    def listen(self) -> None:
        """Hook into the accumulation of every gradient; idle while not armed."""
        self._listening = True
        for place, parameter in enumerate(self.parameters):
            if parameter.requires_grad and place not in self._heard:
                self._heard.add(place)
                hook = self._hook(place)
                self._handles.append(parameter.register_post_accumulate_grad_hook(hook))

    def _hook(self, place: int):
        def accumulated(parameter: torch.Tensor) -> None:
            if self.armed and parameter.grad is not None:
                begun = clock()
                with self._guarded:
                    if self.averaged:
                        self._wait_for_average(place)
                    else:
                        self._take(place, parameter.grad)
                self.seconds += clock() - begun

        return accumulated

    def _wait_for_average(self, place: int) -> None:
        first = not self._came
        self._came.append(place)
        if first:
            # called back at the end of the backward pass; called back again from there, it comes
            # behind DDP, which asks for the same once all gradients are there
            at_the_end(self._ask_again)

    def _ask_again(self) -> None:
        with self._guarded:
            at_the_end(self._take_averages)

    def _take_averages(self) -> None:
        places, self._came = self._came, []
        with self._guarded:
            self.collect([self.parameters[place] for place in places])

    def _take(self, place: int, gradient: torch.Tensor) -> None:
        self._squares[place] = squared_norms([gradient], exact=self.exact)[0]
        self._pair(place, gradient)

    def _failed(self, error: Exception) -> None:
        self.armed = False
        self.error = error

    error: Exception | None = None
    """What went wrong in a hook; the recorder asks at the end of the step."""

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._squares = [None] * len(self.parameters)
        self._used = None

    @property
    def measured(self) -> bool:
        """Whether this step's gradients were seen."""
        return any(square is not None for square in self._seen)

    @property
    def _seen(self) -> list[float | torch.Tensor | None]:
        # where no optimizer stepped, a loss scaler has skipped the step
        return self._squares if self._used is None else self._used

    def squares(self) -> torch.Tensor:
        """Return float64[parameters that had a gradient], corrected by `factor`."""
        places = [place for place, square in enumerate(self._seen) if square is not None]
        found = [square for square in self._seen if square is not None]
        device = next((s.device for s in found if isinstance(s, torch.Tensor)), torch.device("cpu"))
        squares = stacked(found, device) * self.factor**2
        if self.shares is None:
            return squares
        return squares * stacked([self.shares[place] for place in places], device)

    def square_of(self, parameter: torch.Tensor) -> float | torch.Tensor | None:
        """Return one parameter's squared norm, uncorrected; None where it had no gradient."""
        place = self._place.get(id(parameter))
        return None if place is None else self._seen[place]


def at_the_end(call: Callable[[], None]) -> None:
    """Have something called when the backward pass that is under way has ended."""
    engine: Any = torch.autograd.Variable._execution_engine  # type: ignore[attr-defined]
    engine.queue_callback(call)
