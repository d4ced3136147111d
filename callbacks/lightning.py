"""The Lightning callback: `Otoscope(...)`, a thin layer over the recorder, for both Trainers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..store import ConfigError, Sink
from .bases import callback_bases, class_now
from .checkpoints import Checkpoints
from .describing import batch_size_of
from .dispatch import Dispatch
from .fetching import Fetching
from .guard import Guard, log
from .losses import Losses
from .norms import all_finite
from .options import Options
from .ranks import leave_token
from .recorder import Recorder
from .resuming import is_sound, origin_of, state_of
from .scaling import Scale, has_shrunk, scale_now, shown_scale
from .settings import Settings
from .trainer import (
    accumulates,
    clip_norm_of,
    clips_in_its_own_way,
    interrupted,
    is_sharded,
    loss_of,
    max_steps_of,
    meta_of,
    reason_of,
    scale_left,
)


class Otoscope(*callback_bases()):  # type: ignore[misc]
    """Looks into a Lightning training run: add it to `Trainer(callbacks=[Otoscope()])`.

    Args:
        run: display name; None takes the model's class name.
        url: address of a Redis server; None takes `$OTOSCOPE_URL`, else the server that
            `otoscope up` started, else the run is recorded to disk.
        budget: largest share of the wall time that everything here may cost, in (0, 1].
        probes: "default", "all", or a list of probe objects, in which "default" may stand too.
        tags: words to find the run by.
        notes: free text.
        spool: folder for what waits on disk; None is `./.otoscope`.
        task: profile of the rules: supervised, language-model, gan, reinforcement, contrastive
            or finetune.
        strict: raise our own errors instead of logging them; for tests.
        verdict: print three lines at the end of `fit`.

    After `fit`: `run_id`, and `overhead` as in `Recorder.overhead`.

    Raises ConfigError where a value cannot be used. Nothing starts before `fit`.

    >>> Otoscope(budget=0.05, tags=["baseline"]).options.budget
    0.05
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Otoscope:
        # the other package may have been imported since; its Trainer wants its own Callback
        return object.__new__(class_now(cls))

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
        self.options = Options(
            run,
            url,
            budget,
            probes,
            tags,
            notes,
            spool,
            task,
            strict,
            verdict,  # type: ignore[arg-type]
        )
        self.run_id: str | None = None
        self.overhead: dict[str, Any] = {}
        self.recorder: Recorder | None = None
        leave_token()  # Lightning may launch the other ranks, which must know where they belong
        self.sink: Callable[[], Sink] | None = None
        """Where to write to instead of what `url` names; for tests."""
        self._settled = False
        self._last: dict[str, Any] = {}
        self._clear()

    @property
    def state_key(self) -> str:
        """Name of our state in a checkpoint."""
        # until a Trainer has set us up each callback has a name of its own: of two in one Trainer
        # Lightning would say that they need a state_key, where we say that one is enough
        return "Otoscope" if self._settled else f"Otoscope at {id(self):x}"

    def _clear(self) -> None:
        self._resumed: dict[str, Any] | None = None
        self._guard = Guard(self.options.strict)
        self._border, self._norm_border = self._guard("recorder"), self._guard("gradient norm")
        self._micro = 0
        self._ended = math.nan
        self._fetching = Fetching()
        self._dispatch = Dispatch(self)
        self._losses = Losses()
        self._scaler: Any = None
        self._scale: Scale = 1.0
        self._is_plain = False
        """Whether a step has one loss and no scale: its optimizer's step tells all."""
        self._expected = False
        self._epoch = math.nan
        self._paused = math.nan
        self._checkpoints = Checkpoints()
        self._settings = Settings()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.options, self.run_id, self.overhead)

    # -- a fit begins ---------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str | None = None) -> None:
        self._settled = True
        if stage in (None, "fit"):
            with self._border:
                # another callback raised in its on_exception, so that nobody told us of the end
                self._end(lambda recorder: recorder.fail(RuntimeError("the fit was cut off")))
                self._last = {}
            others = [c for c in trainer.callbacks if isinstance(c, Otoscope)]
            if len(others) > 1:
                raise ConfigError(
                    f"a Trainer takes one Otoscope callback, got {len(others)}; both would measure "
                    "the same run and pay for it twice: keep one"
                )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.fast_dev_run or not trainer.optimizers:
            log.debug("not recorded: fast_dev_run, or no optimizer")
            return
        with self._border:
            loss_fn, why = loss_of(trainer, pl_module)
            recorder = Recorder(
                pl_module,
                trainer.optimizers,
                self.options,
                loss_fn=loss_fn,
                why_no_loss=why,
                world_size=int(trainer.world_size),
                rank=int(trainer.global_rank),
                one_node=int(trainer.num_nodes) == 1,
                sharded=is_sharded(trainer),
                precision=str(trainer.precision),
                # a manual loop clips before it tells us of its step, or never tells
                listen=not pl_module.automatic_optimization,
                accumulates=accumulates(trainer, pl_module),
                guard=self._guard,
                sink=self.sink,
            )
            recorder.compares_clipping = clips_in_its_own_way(trainer, pl_module)
            recorder.hook()
            self.recorder = recorder

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        with self._border:
            self._dispatch.leave_out(trainer, pl_module, waits=recorder.waits)
            self._dispatch.begin(trainer)
            recorder.begin(
                origin_of(self._resumed),
                max_steps=max_steps_of(trainer),
                meta=meta_of(trainer, pl_module),
                dispatch=self._dispatch.seconds,
            )
            self.run_id = recorder.run_id
            recorder.sender.is_over = interrupted(trainer)
            self._checkpoints.begin(trainer, recorder)
            self._settings.begin(trainer)
            self._fetching.begin(trainer.fit_loop.epoch_loop)
            self._begin_epoch(trainer, pl_module)  # in the middle of one nobody tells of its start
        self._resumed = None
        with self._border:
            if not recorder.begun:  # it was logged why
                self._end(Recorder.finish)
        self._ended = time.perf_counter()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self.recorder is not None:
            with self._border:
                self._look_for_checkpoints(trainer)
                self._dispatch.leave_out(trainer, pl_module, waits=self.recorder.waits)
                self._begin_epoch(trainer, pl_module)
                self.recorder.event("epoch", {"n": int(self._epoch)})
                self.recorder.restart_clock()
            self._ended = time.perf_counter()

    def _begin_epoch(self, trainer: Any, pl_module: Any) -> None:
        self._epoch = float(trainer.current_epoch)
        self._scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._is_plain = self._scaler is None and pl_module.automatic_optimization

    # -- a step ---------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        with self._border:
            now = time.perf_counter()
            if not self._fetching.hears:
                self._fetching.seconds += now - self._ended
            if self._micro == 0:
                self._settings.tell(trainer, recorder)
                if recorder.is_calm(now):  # most steps
                    return
                self._look_for_checkpoints(trainer)
                recorder.before_step()
                resting = not recorder.measures_gradients
                if self._dispatch.rest(resting):
                    recorder.dispatch = self._dispatch.seconds
                if self._scaler is not None:
                    self._scale = scale_now(self._scaler)  # it may change with the step
            recorder.batch_ready(batch)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        if self.recorder is not None and not pl_module.automatic_optimization:
            with self._border:
                self._losses.went_back(loss, self._scale)
                self.recorder.gradient_scale = self._scale

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self.recorder is not None:
            with self._border:
                self.recorder.backward_ended()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        self._expected = True
        with self._norm_border:
            if recorder.measures_gradients and pl_module.automatic_optimization:
                whole = trainer.accumulate_grad_batches / (self._micro + 1)
                recorder.gradients_ready(
                    optimizer,
                    factor=whole / scale_left(trainer, optimizer),
                    arriving=whole / self._scale,
                    clip=clip_norm_of(trainer, pl_module),
                )

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        begun = time.perf_counter()
        if self._is_plain and self._micro == 0 and trainer.accumulate_grad_batches == 1:
            with self._border:
                size = batch_size_of(batch) or 0
                loss = outputs.get("loss") if type(outputs) is dict else None
                if recorder.note(
                    loss, size, self._fetching.seconds, self._epoch, begun
                ):  # most steps
                    self._fetching.seconds, self._expected = 0.0, False
                    self._ended = time.perf_counter()
                    return
        with self._border:
            loss = self._losses.of(
                outputs,
                automatic=pl_module.automatic_optimization,
                parts=trainer.accumulate_grad_batches,
            )
            recorder.forward_done(loss, batch_size_of(batch) or 0)
        self._micro += 1
        with self._border:
            if self._expected or recorder.stepped:
                self._close_step(recorder, trainer, pl_module, begun)
        self._ended = time.perf_counter()

    def _close_step(self, recorder: Recorder, trainer: Any, pl_module: Any, begun: float) -> None:
        data, expected, scaler = self._fetching.seconds, self._expected, self._scaler
        if expected and recorder.stepped and self._is_plain:
            self._dispatch.allow_rest(trainer)
        self._micro, self._fetching.seconds, self._expected = 0, 0.0, False
        if not pl_module.automatic_optimization:
            recorder.undo(1.0 / recorder.gradient_scale)
            recorder.gradient_scale = 1.0
        shrunk = scaler is not None and has_shrunk(scaler, self._scale)
        recorder.end_step(
            data_seconds=data,
            loss_scale=shown_scale(scaler, self._scale),
            skipped=scaler is not None and expected and (not recorder.stepped or shrunk),
            epoch=self._epoch,
            begun=begun,
        )

    # -- validation and checkpoints -------------------------------------------------------------

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._paused = time.perf_counter()
        if self.recorder is not None:
            with self._border:
                self.recorder.pausing()

    def on_validation_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        if self.recorder is not None:
            with self._border:
                self.recorder.alive()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        recorder = self.recorder
        if recorder is None or trainer.sanity_checking:
            return
        with self._border:
            recorder.validate(trainer.callback_metrics, epoch=float(trainer.current_epoch))
            pause = time.perf_counter() - self._paused
            if pause > 0:
                recorder.idle(pause)
                self._ended += pause

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        if self.recorder is not None and not self.recorder.rank:
            with self._guard("checkpoint"):
                self.recorder.pausing()
                self._checkpoints.saved = all_finite(list(pl_module.parameters()))

    def _look_for_checkpoints(self, trainer: Any) -> None:
        if self.recorder is not None and self._checkpoints.saved is not None:
            with self._guard("checkpoint"):
                self._checkpoints.tell(trainer, self.recorder)

    def state_dict(self) -> dict[str, Any]:
        recorder = self.recorder
        with self._border:
            if recorder is not None and recorder.begun:
                self._last = state_of(recorder)
        return dict(self._last)  # after the fit too: `trainer.save_checkpoint` is then called

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if is_sound(state_dict):
            self._resumed = dict(state_dict)

    # -- a fit ends -----------------------------------------------------------------------------

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        with self._border:
            self._look_for_checkpoints(trainer)
            self._end(lambda recorder: recorder.finish(reason_of(trainer)))

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        with self._border:
            self._look_for_checkpoints(trainer)
            self._end(lambda recorder: recorder.fail(exception))

    def teardown(self, trainer: Any, pl_module: Any, stage: str | None = None) -> None:
        with self._border:
            self._end(lambda recorder: recorder.finish())

    def _end(self, how: Any) -> None:
        border = self._border
        with border:
            self.state_dict()
        recorder, self.recorder = self.recorder, None
        with border:
            self._fetching.close()
        if recorder is not None:
            with border:
                how(recorder)
            with border:
                recorder.finish()  # does nothing, unless the way before failed
                self.run_id = recorder.run_id or None  # another rank knows it only now
                self.overhead = recorder.overhead
        self._clear()


def _rebuild(options: Options, run_id: str | None, overhead: dict[str, Any]) -> Otoscope:
    callback = Otoscope()
    callback.options = options
    callback.run_id, callback.overhead = run_id, overhead
    callback._clear()
    return callback
