"""Following a training loop step by step: what a step left, what the next one measures."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..store import ConfigError, Sink
from ..store.schemas import Json
from .account import SPARE
from .budget import Budget
from .guard import Guard
from .journal import Journal
from .layers import trained_parameters
from .ledger import Row, Told
from .noting import Noting
from .options import Options
from .probes.probe import AFTERMATH, COUNTERS, Training
from .probes.tap import GradientTap
from .probes.throughput import Step, Throughput
from .sampling import Sampling
from .schedule import Schedules
from .sender import Sender
from .shards import shares
from .trigger import Trigger
from .waiting import Waiting

log = logging.getLogger("otoscope")

CROWDED_AFTER = 100
"""Steps after which a run is told that its budget leaves no room for probes."""

LossFn = Callable[[torch.nn.Module, Any], torch.Tensor]


class Stepping(Noting):
    """The half of a recorder that lies on the path of the training step.

    `before_step` … `end_step` for every step; nothing here waits, and no error leaves it.
    """

    gradient_scale: float | torch.Tensor = 1.0
    """The loss scale that gradients hold as they are accumulated; whoever listens to them sets it."""
    compares_clipping = False
    """Whether only the gradients of the step itself tell what clipping has done to them."""
    sender: Sender

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        options: Options,
        *,
        loss_fn: LossFn | None = None,
        why_no_loss: str = "no loss_fn was given",
        world_size: int = 1,
        rank: int = 0,
        one_node: bool = True,
        sharded: bool = False,
        precision: str = "32-true",
        listen: bool = True,
        accumulates: bool = False,
        guard: Guard | None = None,
        sink: Callable[[], Sink] | None = None,
    ) -> None:
        super().__init__()
        self.options = options
        self.rank = rank
        self._one_node = one_node
        self.guard = guard or Guard(options.strict)
        self._border = self.guard("recorder")
        self._waiting_border = self.guard("wait for other ranks")
        self.finished = False
        self._first = 0
        self._journal = Journal(
            lambda: self.overhead,
            rank,
            pace=self._pace,
            closed=self._closed,
            seen=self._saw,
        )
        self._model = model
        self._optimizers = list(optimizers)
        self._listen = listen
        self._sink = sink
        # behind the all-reduce every rank holds the same gradients, unless each holds a shard
        measures = rank == 0 or sharded
        self._tap = GradientTap(trained_parameters(self._optimizers) if measures else [])
        self._training = Training(
            model,
            self._optimizers,
            rank=rank,
            world_size=world_size,
            sharded=sharded,
            loss_fn=loss_fn,
            why_no_loss=why_no_loss,
            precision=precision,
            task=options.task,
            accumulates=accumulates,
            parts=lambda: self._parts_done,
            batches=lambda: list(self._sampling.batches),
            tap=self._tap,
            counters=lambda: {name: getattr(self.sender, name) for name in COUNTERS},
            note=lambda text: self._journal.event("note", {"text": text}),
        )
        if sharded:
            self._tap.shares = shares(self._tap.parameters, world_size)
        waits = world_size > 1 and not sharded
        self._tap.averaged = waits
        self._waiting = Waiting(trained_parameters(self._optimizers)) if waits else None
        self._alone = not waits
        self._budget = Budget(options.budget)
        self._sampling = Sampling(
            self._training,
            self._budget,
            self.guard,
            tell=self._journal.event,
            enlist=self._journal.enlist,
            framed=self._journal.frame,
        )
        self._throughput = Throughput()
        self._trigger = Trigger()
        self._schedules = Schedules(0)
        self._handles: list[Any] = []
        self._losses: list[float | torch.Tensor] = []
        self._samples = 0
        self._sizes: list[int] = []
        self._parts_done: list[int] = []
        self._closed_now = 0
        self._sender_seconds = 0.0

    @property
    def begun(self) -> bool:
        """Whether it is known which run this is, and frames are sent."""
        return self._journal.is_open

    @property
    def run_id(self) -> str:
        """The run's id; empty before it begins, and on another rank until rank 0 has told it."""
        return self.sender.run if self.begun and (not self.rank or self.sender.identified) else ""

    def _pace(self) -> float:
        self._budget.catch_up()
        return self._budget.step_seconds

    @property
    def steps(self) -> int:
        """Steps done so far, counted over the attempts of the run."""
        return self._journal.step

    def before_step(self) -> None:
        """Decide what the coming step measures; call before its first forward pass."""
        begun = time.perf_counter()
        with self._border:
            self._enter()
            self._journal.turn(begun)
            if self._closed_now:
                now = time.perf_counter()
                self._share(now - begun)
                begun = now
            self._sampling.arm(self._journal.step + 1)
            self._calm_down()
        self._spent += time.perf_counter() - begun

    def _share(self, seconds: float) -> None:
        """Spread what steps that leave together have cost, here and in the sender, over those to come."""
        # the sender counts too: what its thread computes, this one mostly waits for
        sender = self.sender.cpu_seconds
        self._owed += seconds + sender - self._sender_seconds
        self._sender_seconds, self._closed_now = sender, 0

    def undo(self, factor: float | torch.Tensor) -> None:
        """Set what the gradients of this step must be multiplied by: see `GradientTap.factor`."""
        self._tap.factor = factor

    @property
    def waits(self) -> bool:
        """Whether the wait for other ranks is measured."""
        return self._waiting is not None

    @property
    def measures_gradients(self) -> bool:
        """Whether this step's gradients are to be measured."""
        return self._tap.armed or self._tap.exact

    def gradients_ready(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        factor: float | torch.Tensor = 1.0,
        arriving: float | torch.Tensor | None = None,
        clip: float | None = None,
    ) -> None:
        """Take an optimizer's gradients: complete, and not yet clipped.

        `factor` undoes a loss scale and a partial accumulation window; `clip` is the largest norm
        that the clipping lets pass. `arriving` is the factor of gradients as they came out of the
        backward passes, where a loss scale has been taken out since.
        """
        self._tap.factor, self._tap.arriving = factor, arriving
        if self._tap.armed:
            parameters = trained_parameters([optimizer])
            self._tap.collect(parameters)
            if clip is not None:
                self._tap.clip(clip, parameters)

    def backward_ended(self) -> None:
        """Note that the ranks have averaged their gradients; an optimizer's step tells it too."""
        if self._waiting is not None:
            with self._waiting_border:
                self._waiting.backward_ended()

    def _waited(self) -> float | Callable[[], float]:
        if self._waiting is not None:
            with self._waiting_border:
                return self._waiting.close_step()
        return math.nan

    def batch_ready(self, batch: Any) -> None:
        """Take a micro-batch before its step, which may change it."""
        with self._border:
            step = self._journal.step + 1
            if self._sampling.is_looking(step):
                begun = time.perf_counter()
                self._sampling.keep_batch(batch, step)
                self._spent += time.perf_counter() - begun

    def forward_done(self, loss: torch.Tensor | None, samples: int, batch: Any = None) -> None:
        """Take one micro-batch: its loss (undivided), its count of samples, the batch itself."""
        self._samples += samples
        self._sizes.append(samples)
        if batch is not None:
            self._sampling.keep_batch(batch, self.steps + 1)
        if loss is not None:
            if loss.ndim and loss.numel() != 1:
                raise ConfigError(_no_number(loss))
            # on a device the copy waits in its queue; nobody may write into it meanwhile
            value = loss.item() if loss.is_cpu else loss.detach().clone()
            if type(value) is not float and loss.is_complex():
                raise ConfigError(_no_number(loss))
            self._losses.append(value)

    def pausing(self) -> None:
        """Tell that the steps pause, for a validation or a checkpoint."""
        with self.guard("recorder"):
            self._enter()
            self._journal.pause()

    def alive(self) -> None:
        """Tell that the run goes on although it makes no steps: call from a long validation."""
        with self.guard("recorder"):
            self._enter()
            self._journal.alive()

    def _before_stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        with self._border:
            with_closure = len(args) > 1 or kwargs.get("closure") is not None
            if not with_closure:  # which has yet to run backward
                self.backward_ended()

    def _on_stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        begun = time.perf_counter()
        self._stepped = True
        with self._border:
            # now, for a scheduler may step before the step ends
            self._lrs = self._throughput.lrs()
            if (self._listen or self.compares_clipping) and self._tap.armed:
                self._tap.stepped(trained_parameters([optimizer]), self.gradient_scale)
        self._spent += time.perf_counter() - begun

    @property
    def stepped(self) -> bool:
        """Whether some optimizer stepped since the last `end_step`."""
        return self._stepped

    def end_step(
        self,
        *,
        data_seconds: float = math.nan,
        loss_scale: float = math.nan,
        skipped: bool = False,
        epoch: float = math.nan,
        begun: float | None = None,
    ) -> None:
        """Close a step: sample what is due, and make its frames ready.

        `begun` is the reading of `time.perf_counter` since when the time is ours.
        """
        begun = time.perf_counter() if begun is None else begun
        with self._border:
            self._enter()
            losses, samples = self._losses, float(self._samples or math.nan)
            self._losses, self._samples, self._stepped = [], 0, False
            self._parts_done, self._sizes = self._sizes, []
            self._training.losses = losses
            self._journal.step += 1
            seconds = begun - self._last_end
            wait = math.nan if self._waiting is None else self._waited()
            told = [samples, seconds, data_seconds, wait, loss_scale, float(skipped)]
            self._record(losses, told, epoch, begun)

    def _record(
        self, losses: Sequence[float | torch.Tensor], told: list[Any], epoch: float, begun: float
    ) -> None:
        number, sampled, hooks = self._journal.step, 0.0, 0.0
        if self._sampling.has_work(number):
            frames, sampled = self._sampling.sample(number)
            hooks = self._sampling.hook_seconds
            self._journal.keep(frames)
        lrs, self._lrs = self._lrs or self._throughput.lrs(), []
        within = self.dispatch + self._spent + self._paid() + hooks - begun
        told += [within + time.perf_counter(), epoch]
        late: Sequence[torch.Tensor] = ()
        simple = self._waiting is None and not self._tap.armed and len(losses) == 1
        if simple and type(losses[0]) is float:
            values = self._throughput.plain(losses[0], lrs, told)
        else:
            values, late = self._throughput.row(Step(losses, *told), lrs)
            self._tap.disarm()
        end = time.perf_counter()
        fixed = AFTERMATH * max(0.0, within + end - sampled)
        self._budget.ended(end - self._last_end, fixed)
        self._journal.done(Row(number, time.time(), values, late, lrs))
        self._spent, self._last_end = 0.0, end

    def _closed(self, rows: Sequence[Row]) -> Told:
        """Take the steps that leave, and return the events they bring."""
        self._closed_now += len(rows)
        self._budget.catch_up()
        if self.rank:
            return {}
        told: dict[int, list[tuple[str, Mapping[str, Json]]]] = {}
        with self._border:  # an error of ours here must not cost the rows
            told = {row.step: found for row in rows if (found := self._changes(row))}
        crowded = self._first + CROWDED_AFTER
        if rows[0].step <= crowded <= rows[-1].step:
            found = self._budget.crowded()
            if found is not None:
                words, room = found
                log.warning("run %s: %s", self.run_id, words)
                note = {"text": words, "budget": room}
                told.setdefault(crowded, []).append(("note", note))
        return told

    def _saw(self, step: int, numbers: np.ndarray) -> None:
        """Look whether something happened that is worth a look at the model."""
        if self.rank == 0 and self._sampling.is_eager:
            with self._border:
                squares = numbers[:, self._throughput.grad_sq]
                norms = np.sqrt(squares[np.isfinite(squares)]).tolist()
                if self._trigger.observe(step, numbers[:, 0].tolist(), norms) is not None:
                    self._budget.hasten(self.steps)

    def _changes(self, row: Row) -> list[tuple[str, Mapping[str, Json]]]:
        """Return the `lr` events of a step."""
        told: list[tuple[str, Mapping[str, Json]]] = []
        for place, change in self._schedules.observe(row.step, row.lrs):
            optimizer, group = self._throughput.place(place)
            body = {"optimizer": optimizer, "group": group, "from": change.before}
            told.append(("lr", {**body, "to": change.after, "phase": change.phase}))
        return told

    def restart_clock(self) -> None:
        """Count the time of the coming step from now."""
        self._last_end = time.perf_counter()

    def idle(self, seconds: float) -> None:
        """Leave a pause (a validation) out of the time of the coming step."""
        self._last_end += seconds

    @property
    def overhead(self) -> dict[str, Any]:
        """What the recording has cost the training so far.

        `share` of the wall time, `seconds` in all, `probes`: seconds of each. "sender" is CPU time
        of the background thread, "throughput" what every step costs beside it, "start" what it took
        to begin.
        """
        budget = self._budget
        budget.catch_up()
        probes = {name: claim.seconds / SPARE for name, claim in budget.claims.items()}
        sender = min(self._sender_seconds, budget.fixed_seconds)
        probes |= {"throughput": budget.fixed_seconds - sender, "sender": sender}
        probes["start"] = budget.start_seconds
        return {"share": budget.overhead, "seconds": budget.spent, "probes": probes}


def _no_number(loss: torch.Tensor) -> str:
    return (
        f"the loss must be one real number, got {loss.dtype} of shape {tuple(loss.shape)}; "
        "give its mean to step(loss)"
    )
