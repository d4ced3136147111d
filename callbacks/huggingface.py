"""The callback for Hugging Face's Trainer: `OtoscopeCallback(...)`, a thin layer over the recorder."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..store import ConfigError, MissingExtraError, Sink
from .accelerate import unwrapped
from .at_exit import AtExit
from .describing import batch_size_of
from .guard import Guard, log
from .huggingface_trainer import (
    STATE,
    inside,
    loss_again,
    loss_in,
    meta_of,
    origin_of,
    precision_of,
)
from .options import Options
from .probes.forwards import keep_quiet
from .probes.hooks import StayingHook
from .recorder import Recorder
from .scaling import Scale, has_shrunk, scale_now, shown_scale
from .undisturbed import is_looking

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingExtraError(
        "otoscope.callbacks.huggingface needs transformers; install it with "
        "`pip install transformers accelerate`, or use otoscope.callbacks.attach in a plain loop"
    ) from error

NO_LOSS = (
    "the model's output holds no loss (label smoothing, or a loss function of the Trainer), so the "
    "loss of the steps is not recorded, and what needs it is not judged; tell it with note_loss"
)


class OtoscopeCallback(TrainerCallback):
    """Looks into a run of Hugging Face's Trainer: `Trainer(..., callbacks=[OtoscopeCallback()])`.

    The keywords are those of `Otoscope`, and so is what it offers after `train`: `run_id`,
    `overhead`. Where the model's output holds the loss, the curvature can be measured too.
    Resuming from a checkpoint goes on with the same run.

    Raises ConfigError where a value cannot be used. Nothing starts before `train`.

    >>> OtoscopeCallback(budget=0.05, tags=["baseline"]).options.budget
    0.05
    """

    def __init__(
        self,
        run: str | None = None,
        *,
        url: str | None = None,
        budget: float = 0.02,
        probes: str | Sequence[Any] = "default",
        tags: Sequence[str] = (),
        notes: str = "",
        spool: Any = None,
        task: str = "supervised",
        strict: bool = False,
        verdict: bool = True,
    ) -> None:
        tags = tags if isinstance(tags, str) else tuple(tags)
        self.options = Options(run, url, budget, probes, tags, notes, spool, task, strict, verdict)
        self.run_id: str | None = None
        self.overhead: dict[str, Any] = {}
        self.recorder: Recorder | None = None
        self.sink: Callable[[], Sink] | None = None
        """Where to write to instead of what `url` names; for tests."""
        self._clear()

    def _clear(self) -> None:
        self._guard = Guard(self.options.strict)
        self._border, self._loss_border = self._guard("recorder"), self._guard("loss")
        self._handles: list[Any] = []
        self._model: Any = None
        self._optimizer: Any = None
        self._ranks = 1
        self._losses: list[torch.Tensor] = []
        self._noted: list[torch.Tensor] = []
        self._by_items = False
        self._samples = 0
        self._batch: Any = None
        self._scale: Scale = 1.0
        self._ended = math.nan
        self._data = 0.0
        self._told = False
        self._at_exit: AtExit | None = None

    # -- a training begins ------------------------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hook into model and optimizer, and begin or go on with a run."""
        with self._border:  # the training before raised: nobody tells a callback of that
            self._end(lambda recorder: recorder.fail(RuntimeError("the training was cut off")))
        model, optimizer = kwargs.get("model"), kwargs.get("optimizer")
        if not isinstance(model, nn.Module) or optimizer is None:
            log.debug("not recorded: no model or no optimizer")
            return
        self._refuse_another(model)
        with self._border:
            self._model, self._optimizer, self._ranks = model, optimizer, int(args.world_size)
            recorder = Recorder(
                model,
                [unwrapped(optimizer)],
                self.options,
                loss_fn=loss_again,
                world_size=int(args.world_size),
                rank=int(args.process_index),
                one_node=int(args.world_size) <= max(1, torch.cuda.device_count()),
                sharded=bool(getattr(args, "fsdp", None) or getattr(args, "deepspeed", None)),
                precision=precision_of(args),
                accumulates=int(args.gradient_accumulation_steps) > 1,
                guard=self._guard,
                sink=self.sink,
            )
            recorder.hook()
            self.recorder = recorder
            self._listen(bool(args.torch_compile))
            recorder.begin(
                origin_of(state),
                max_steps=int(state.max_steps) if state.max_steps > 0 else None,
                meta=meta_of(args, kwargs.get("train_dataloader")),
            )
            self.run_id = recorder.run_id
            kept = Path(args.output_dir).glob("checkpoint-*")
            for folder in sorted(kept, key=lambda one: (len(one.name), one.name)):
                recorder.files.add(str(folder))
            self._at_exit = AtExit(self._exited)
        with self._border:
            if self.recorder is not None and not self.recorder.begun:  # it was logged why
                self._end(lambda recorder: recorder.finish())
        self._ended = time.perf_counter()

    def _refuse_another(self, model: nn.Module) -> None:
        looks = [getattr(hook, "look", None) for hook in model._forward_hooks.values()]
        others = [getattr(look, "__self__", None) for look in looks]
        for other in others:
            if isinstance(other, OtoscopeCallback):
                why = ConfigError(
                    "a Trainer takes one OtoscopeCallback, got another; both would measure the "
                    "same run and pay for it twice: keep one"
                )
                other._end(partial(Recorder.fail, error=why))
                raise why

    def _listen(self, compiled: bool) -> None:
        """Hear of every forward pass of the model; in a compiled one the wrapper alone tells."""
        if not compiled:
            self._hear(self._model)
            return

        def found(module: nn.Module, inputs: Any, given: Any, output: Any) -> None:
            inner = getattr(module, "_orig_mod", None)
            if inner is None:
                return
            with self._loss_border:
                if inside(inner) is self._model:
                    finder.remove()
                    self._hear(module)
                    self._forward(module, inputs, given, output)

        keep_quiet()
        finder = nn.modules.module.register_module_forward_hook(found, with_kwargs=True)
        # torch's handle leaves this mark behind, and torch.compile takes it for a hook for ever
        marks: Any = nn.modules.module._global_forward_hooks_with_kwargs
        finder.extra_dict_ref = (*finder.extra_dict_ref, weakref.ref(marks))
        self._handles.append(finder)

    def _hear(self, module: nn.Module) -> None:
        hook = StayingHook(self._forward)
        self._handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def _forward(self, module: nn.Module, inputs: Any, given: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        with self._loss_border:
            if is_looking() or not (module.training and torch.is_grad_enabled()):
                return  # a look of ours, or an evaluation
            self._samples += batch_size_of(given) or batch_size_of(inputs) or 0
            self._batch = dict(given) if not inputs else None
            self._by_items = given.get("num_items_in_batch") is not None
            loss = loss_in(output)
            if loss is not None:
                self._losses.append(loss.detach())

    def note_loss(self, loss: torch.Tensor) -> None:
        """Tell the loss of a micro-batch that the Trainer takes itself.

        Call it with what `compute_loss` returns, from a Trainer of your own that overrides it:
        with `label_smoothing_factor` the model's output holds no loss.
        """
        if self.recorder is not None and not is_looking() and torch.is_grad_enabled():
            with self._loss_border:
                self._noted.append(loss.detach())

    # -- a step -----------------------------------------------------------------------------------

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell of the epoch."""
        if self.recorder is not None:
            with self._border:
                self.recorder.event("epoch", {"n": int(state.epoch or 0)})

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Decide what the step measures."""
        recorder = self.recorder
        if recorder is not None:
            now = time.perf_counter()
            self._data = now - self._ended
            with self._border:
                if recorder.is_calm(now) and self._scaler is None:
                    return
                recorder.before_step()
                recorder.gradient_scale = self._scale = scale_now(self._scaler)

    @property
    def _scaler(self) -> Any:
        return getattr(self._optimizer, "scaler", None)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the step."""
        recorder = self.recorder
        if recorder is None:
            return
        begun, noted, epoch, scaler = time.perf_counter(), False, math.nan, None
        with self._border:
            epoch, scaler = float(state.epoch or 0.0), self._scaler
            loss = self._loss(args)
            if scaler is None:
                noted = recorder.note(loss, self._samples, self._data, epoch, begun)
            if not noted:
                recorder.forward_done(loss, self._samples, self._batch)
                recorder.undo(1.0 / self._scale)
        self._samples, self._batch = 0, None
        with self._border:
            if not noted:
                recorder.end_step(
                    data_seconds=self._data,
                    loss_scale=shown_scale(scaler, self._scale),
                    skipped=scaler is not None
                    and (not recorder.stepped or has_shrunk(scaler, self._scale)),
                    epoch=epoch,
                    begun=begun,
                )
        with self._guard("state"):
            # plain values: what is put here is saved with the Trainer's own state
            state.stateful_callbacks[STATE] = {"args": {}, "attributes": self._state()}
        self._ended = time.perf_counter()

    def _loss(self, args: Any) -> torch.Tensor | None:
        """Return the loss of the step from those of its micro-batches, as the Trainer adds them."""
        losses, noted = self._losses, self._noted
        self._losses, self._noted = [], []
        if not losses and not noted:
            if not self._told and self.recorder is not None:
                self._told = True
                log.warning(NO_LOSS)
                self.recorder.event("note", {"text": NO_LOSS})
            return None
        total = torch.stack([loss.float() for loss in noted or losses]).sum()
        if not self._by_items:
            return total / len(noted or losses)
        # each was divided by the items of the whole window; over all ranks where they are counted,
        # which the Trainer makes up for behind the model
        across = args.average_tokens_across_devices and not noted
        return total * self._ranks if across else total

    def _state(self) -> dict[str, Any]:
        recorder = self.recorder
        if recorder is None or not recorder.begun or recorder.rank:
            return {}
        return {
            "run_id": str(recorder.run_id),
            "attempt": int(recorder.sender.attempt),
            "step": int(recorder.steps),
        }

    # -- beside the steps -------------------------------------------------------------------------

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell that the run goes on in a long evaluation."""
        if self.recorder is not None:
            with self._border:
                self.recorder.alive()

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Record the metrics of an evaluation."""
        if self.recorder is not None:
            with self._border:
                self.recorder.validate(dict(metrics or {}), epoch=float(state.epoch or 0.0))
                self._resume_clock()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave out of the wait for data what the Trainer's loggers took: they come before us."""
        self._ended = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell of a checkpoint."""
        if self.recorder is not None:
            with self._border:
                self.recorder.checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
                self._resume_clock()

    def _resume_clock(self) -> None:
        assert self.recorder is not None
        self.recorder.restart_clock()
        self._ended = time.perf_counter()

    # -- a training ends --------------------------------------------------------------------------

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the recording and print the verdict."""
        with self._border:
            early = state.global_step < state.max_steps
            reason = "stopped early" if early else "end of training"
            self._end(lambda recorder: recorder.finish(reason))

    def _exited(self, error: BaseException | None) -> None:
        # the Trainer tells nobody of an exception
        cut = RuntimeError("the process ended before the training did")
        self._end(lambda recorder: recorder.fail(error or cut))

    def _end(self, how: Callable[[Recorder], None]) -> None:
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            border = self._border
            with border:
                if self._at_exit is not None:
                    self._at_exit.close()
                for handle in self._handles:
                    handle.remove()
            with border:
                how(recorder)
            with border:
                recorder.finish()  # does nothing, unless the way before failed
                self.overhead = recorder.overhead
        self._clear()
