"""The head probe: whether outputs are probabilities already, and which classes are never predicted."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...store import Column
from ..guard import HookGuard
from ..measures.batches import batch_parts
from ..measures.head import ROWS as COUNTED
from ..measures.head import (
    at_zero,
    class_counts,
    entropy,
    head_outputs,
    loss_as_logits,
    loss_as_probabilities,
    probability_rows,
    under_zero,
)
from .forwards import Forwards, is_compiled, is_real, seconds_of_a_pass
from .hooks import Look
from .initialization import predicted
from .probe import COLD, Probe, ProbeOffError, Training, clock

QUANTITIES = (
    "probability_rows",
    "as_logits",
    "as_probabilities",
    "predicted_entropy",
    "label_entropy",
    "never_predicted",
    "rows",
    "in_eval",
    "at_zero",
    "under_zero",
)
WINDOW, ENOUGH_ROWS = 8, 512
"""Samples over which predicted classes are counted; fewer where these hold so many rows: of the first
samples, whose weights were still as they were drawn, nothing shall be left for long."""
LATER = ((10, 2), (205, 6))
"""Looks at what is predicted when a net may no longer name one class alone; two by step 10, if the start
of dearer probes left none."""
YOUNG, SETTLED = 100, 190
"""Samples of the first `YOUNG` steps behind the first look are not counted any more `SETTLED` steps behind
it: the net was another one. The first look may come as late as step 10, the promised one at 205."""
FIRST_SAMPLES = 2
"""In so many steps in a row, from the third one; then rarely."""
CLASSES = 64
"""Classes whose shares are recorded one by one."""
EXACT, ROUNDED = 1e-3, 2e-2
"""How far a row of probabilities is from a sum of 1, in float32 and in half precision."""


class Head(Probe):
    """What the outermost forward pass gives, against the labels of the batch and the step's loss.

    `probability_rows`: share of rows that are non-negative and sum to 1. `as_logits`: the
    cross-entropy that the outputs have as logits, over the loss that the step had: where it is 1, the
    loss takes them for logits, whatever they are; `as_probabilities`: the same of the negative logarithm
    of what they give the labels. `predicted_entropy`, `label_entropy`: of the classes
    predicted, and of the labels, over the last samples (eight, or 512 rows), in nats; `never_predicted`: classes
    among the labels that no row of them was given to; `rows` in them. `in_eval`: share of the batch norms
    that a step of the training had in eval mode, nan without any. `at_zero`: share of the outputs that are
    exactly zero, where none is negative, as behind a ReLU; `under_zero`: share of negative targets, nan
    where they are classes. `class_share_<c>`: share of each class
    in all labels seen, of at most 64.
    """

    _forwards: Forwards | None = None

    def __init__(self, every: int | None = None) -> None:
        super().__init__(every=every)
        self.family = "head"
        self.weight = 0.2
        self.first = 3
        self.least = 10
        self.eager = True
        self.promised = LATER
        self.sees_batch = True

    def attach(self, training: Training) -> Sequence[Column]:
        if is_compiled(training.model):
            raise ProbeOffError("the model is compiled: what leaves it is not seen")
        self._training = training
        self._on = False
        self._output: Tensor | None = None
        self._error: Exception | None = None
        self._guarded = HookGuard(self._failed)
        self._counts: deque[tuple[Tensor, Tensor]] = deque()
        self._rows: deque[int] = deque()
        self._steps: deque[int] = deque()
        self._began = -1
        self._all: Tensor | None = None
        self._classes = self._samples = 0
        self._new = False
        self._pass_seconds = seconds_of_a_pass()
        self._norms = [
            module
            for module in training.model.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
        ]
        looks: dict[int, Look] = {id(module): self._look for module in training.model.modules()}
        self._forwards = Forwards(training.model, looks, failed=self._failed, once=True)
        return self._columns()

    def _columns(self) -> list[Column]:
        shares = [f"class_share_{place}" for place in range(self._classes)]
        return [Column.of(name) for name in (*QUANTITIES, *shares)]

    def arm(self, step: int) -> None:
        self._output = self._error = None
        self._on = True
        assert self._forwards is not None
        self._forwards.passes = 0
        self._forwards.on()

    def _look(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if not self._on or self._forwards is None or self._forwards.running:
            return  # only the outermost is the head's
        begun = clock()
        with self._guarded:
            if is_real() and torch.is_grad_enabled():
                found = predicted(output)
                self._output = self._output if found is None else found.detach()
        self.hook_seconds += clock() - begun

    def _failed(self, error: Exception) -> None:
        self._on = False
        self._error = error

    def sample(self, step: int) -> Tensor | list[float]:
        if self._error is not None:
            raise self._error
        assert self._forwards is not None
        self.hook_seconds += self._forwards.passes * self._pass_seconds * COLD
        batches = self._training.batches()
        if not batches:
            raise ProbeOffError(
                "no batch was handed over; in a loop of your own give it to "
                "recorder.step(loss, batch=batch)"
            )
        output, self._output = self._output, None
        self._samples += 1
        with torch.no_grad():
            found = None if output is None else head_outputs(output, batch_parts(batches[-1]))
            mode = math.nan
            if self._norms:
                mode = sum(not norm.training for norm in self._norms) / len(self._norms)
            if output is None or found is None:
                nothing = dict.fromkeys(QUANTITIES, math.nan) | {"in_eval": mode}
                return [*nothing.values(), *[math.nan] * self._classes]
            half = output.dtype in (torch.float16, torch.bfloat16)
            share = probability_rows(found, ROUNDED if half else EXACT)
            taken = [loss_as_logits(found), loss_as_probabilities(found)]
            numbers = [share, *map(self._ratio, taken)]
            counted = self._predicted(found, step)
            one = torch.full_like(share, mode)
            reached = [at_zero(found), under_zero(found)]
            return torch.stack([*numbers, *counted[:4], one, *reached, *counted[4:]]).float()

    def _ratio(self, loss: Tensor) -> Tensor:
        losses = self._training.losses
        if not losses:
            return torch.full_like(loss, math.nan)
        last = losses[-1]
        return loss / (
            last.to(loss.device).float() if isinstance(last, Tensor) else last or math.nan
        )

    def _forget_the_start(self, step: int) -> None:
        """Let go of what was counted in the first steps, if that was long ago."""
        self._began = step if self._began < 0 else self._began
        if step >= self._began + SETTLED:
            while self._steps and self._steps[0] < self._began + YOUNG:
                self._let_go()

    def _let_go(self) -> None:
        for counted in (self._steps, self._rows, self._counts):
            counted.popleft()

    def _predicted(self, found: Any, step: int) -> list[Tensor]:
        self._forget_the_start(step)
        nothing = torch.full((), math.nan, device=found.rows.device)
        if found.classes < 2:
            return [nothing] * (4 + self._classes)
        counts = class_counts(found)
        if self._all is None or len(self._all) != found.classes:
            while self._steps:
                self._let_go()
            self._all = torch.zeros_like(counts[1])
            self._classes = found.classes if found.classes <= CLASSES else 0
            self._new = True
        self._steps.append(step)
        self._counts.append(counts)
        self._rows.append(min(len(found.rows), COUNTED))
        while len(self._rows) > WINDOW or sum(self._rows) - self._rows[0] >= ENOUGH_ROWS:
            self._let_go()
        self._all = self._all + counts[1]
        guessed = torch.stack([given for given, _ in self._counts]).sum(0)
        labels = torch.stack([told for _, told in self._counts]).sum(0)
        never = ((labels > 0) & (guessed == 0)).sum().float()
        shares = (self._all / self._all.sum())[: self._classes]
        return [entropy(guessed), entropy(labels), never, labels.sum(), *shares.unbind()]

    def changed(self) -> Sequence[Column] | None:
        new, self._new = self._new, False
        return self._columns() if new else None

    def hungry(self) -> bool:
        return self._samples < FIRST_SAMPLES

    def disarm(self) -> None:
        self._on = False
        self._output = None
        if self._forwards is not None:
            self._forwards.off()

    def detach(self) -> None:
        self.disarm()
        if self._forwards is not None:
            self._forwards.close()
        self._forwards = None
