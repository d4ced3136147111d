"""The Lightning callback: `Otoscope(...)`, a thin layer over the recorder, for both Trainers."""

from __future__ import annotations

import importlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..store import ConfigError, MissingExtraError, Sink
from .describing import batch_size_of
from .guard import Guard, log
from .norms import all_finite
from .options import Options
from .recorder import LossFn, Origin, Recorder

PACKAGES = ("pytorch_lightning", "lightning.pytorch")


def callback_bases() -> tuple[type, ...]:
    """Return the Callback classes of whichever packages are imported, else of the first there is.

    The two packages hold different classes of the same name, and libraries use either.
    """
    names = [name for name in PACKAGES if name in sys.modules]
    for name in names or PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        if name not in names:
            names.append(name)
            break
    bases = [sys.modules[name].Callback for name in names if hasattr(sys.modules[name], "Callback")]
    if not bases:
        raise MissingExtraError(
            "neither pytorch_lightning nor lightning is installed; install one with "
            "`pip install 'otoscope[lightning]'`, or use otoscope.callbacks.attach in a plain loop"
        )
    return tuple(dict.fromkeys(bases))


_BASES = callback_bases()


class Otoscope(*_BASES):  # type: ignore[misc]
    """Looks into a Lightning training run: add it to `Trainer(callbacks=[Otoscope()])`.

    Args:
        run: display name; None takes the model's class name.
        url: address of a Redis server; None takes `$OTOSCOPE_URL`, else the server that
            `otoscope up` started, else the run is recorded to disk.
        budget: largest share of the wall time that everything here may cost, in (0, 1].
        probes: "default", "all", or a list of probe objects.
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

    state_key = "Otoscope"  # type: ignore[assignment]  # a property in Lightning

    def __new__(cls, *args: Any, **kwargs: Any) -> Otoscope:
        # the other package may have been imported since; its Trainer wants its own Callback
        return object.__new__(_class_now(cls))

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
        self.sink: Callable[[], Sink] | None = None
        """Where to write to instead of what `url` names; for tests."""
        self._clear()

    def _clear(self) -> None:
        self._resumed: dict[str, Any] | None = None
        self._guard = Guard(self.options.strict)
        self._micro = 0
        self._ended = math.nan
        self._data = 0.0
        self._manual: list[Any] = []
        self._expected = False
        self._paused = math.nan
        self._saved: list[tuple[int, bool]] = []
        self._known_paths: set[str] = set()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.options, self.run_id, self.overhead)

    # -- a fit begins ---------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            others = [c for c in trainer.callbacks if isinstance(c, Otoscope)]
            if len(others) > 1:
                raise ConfigError(
                    f"a Trainer takes one Otoscope callback, got {len(others)}; both would measure "
                    "the same run and pay for it twice: keep one"
                )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.fast_dev_run or trainer.global_rank != 0 or not trainer.optimizers:
            log.debug("not recorded: fast_dev_run, a rank other than 0, or no optimizer")
            return
        with self._guard("recorder"):
            loss_fn, why = _loss_of(trainer, pl_module)
            recorder = Recorder(
                pl_module,
                trainer.optimizers,
                self.options,
                loss_fn=loss_fn,
                why_no_loss=why,
                listen=False,
                guard=self._guard,
                sink=self.sink,
            )
            recorder.hook()
            self.recorder = recorder

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        with self._guard("recorder"):
            recorder.begin(
                self._origin(), max_steps=_max_steps(trainer), meta=_meta(trainer, pl_module)
            )
            self.run_id = recorder.run_id
            self._resumed = None
            self._known_paths = {path for path in _checkpoint_paths(trainer) if path}
        self._ended = time.perf_counter()

    def _origin(self) -> Origin:
        state = self._resumed
        if not state:
            return Origin()
        return Origin(
            str(state["run_id"]),
            int(state["attempt"]) + 1,
            int(state["step"]),
            from_attempt=int(state["attempt"]),
        )

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self.recorder is not None:
            self._look_for_checkpoints(trainer)
            with self._guard("recorder"):
                self.recorder.event("epoch", {"n": int(trainer.current_epoch)})
                self.recorder.restart_clock()
            self._ended = time.perf_counter()

    # -- a step ---------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        self._data += time.perf_counter() - self._ended
        if self._micro == 0:
            if self._saved:
                self._look_for_checkpoints(trainer)
            recorder.before_step()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        if self.recorder is not None and not pl_module.automatic_optimization:
            with self._guard("recorder"):
                self._manual.append(loss.detach())

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        self._expected = True
        if recorder.measures_gradients:
            with self._guard("gradient norm"):
                whole = 1.0
                if pl_module.automatic_optimization:
                    whole = trainer.accumulate_grad_batches / (self._micro + 1)
                recorder.gradients_ready(
                    optimizer,
                    factor=whole / _scale_left(trainer, optimizer),
                    clip=_clip_norm(trainer, pl_module),
                )

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        recorder = self.recorder
        if recorder is None:
            return
        begun = time.perf_counter()
        with self._guard("recorder"):
            loss = self._loss(trainer, pl_module, outputs)
            recorder.forward_done(loss, batch_size_of(batch) or 0, batch)
        self._micro += 1
        if self._expected or recorder.stepped:
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            recorder.end_step(
                data_seconds=self._data,
                loss_scale=math.nan if scaler is None else _scale_of(scaler),
                skipped=scaler is not None and self._expected and not recorder.stepped,
                epoch=float(trainer.current_epoch),
                begun=begun,
            )
            self._micro, self._data, self._expected = 0, 0.0, False
        self._ended = time.perf_counter()

    def _loss(self, trainer: Any, pl_module: Any, outputs: Any) -> Any:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if not pl_module.automatic_optimization:
            manual, self._manual = self._manual, []
            return loss if loss is not None else sum(manual) if manual else None
        # Lightning divides by A in every micro-batch, in a partial last window too
        parts = trainer.accumulate_grad_batches
        return loss if loss is None or parts == 1 else loss * parts

    # -- validation and checkpoints -------------------------------------------------------------

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        recorder = self.recorder
        if recorder is None or trainer.sanity_checking:
            return
        recorder.validate(trainer.callback_metrics, epoch=float(trainer.current_epoch))
        pause = time.perf_counter() - self._paused
        if pause > 0:
            recorder.idle(pause)
            self._ended += pause

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Any) -> None:
        if self.recorder is not None:
            with self._guard("checkpoint"):
                finite = all_finite(list(pl_module.parameters()))
                self._saved.append((self.recorder.steps, finite))

    def _look_for_checkpoints(self, trainer: Any) -> None:
        """Tell of checkpoints written since the last look; only now their paths are known."""
        recorder, saved = self.recorder, self._saved
        if recorder is None or not saved:
            return
        self._saved = []
        with self._guard("checkpoint"):
            paths = [path for path in _checkpoint_paths(trainer) if path]
            new = [path for path in dict.fromkeys(paths) if path not in self._known_paths]
            # a file that is written over keeps its name
            for path in new or paths[:1]:
                recorder.checkpoint(path, finite=saved[-1][1])
            self._known_paths |= set(paths)

    def state_dict(self) -> dict[str, Any]:
        recorder = self.recorder
        if recorder is None or not recorder.begun:
            return {}
        # plain Python values only: one numpy number makes the user's checkpoint unloadable
        return {
            "run_id": str(recorder.run_id),
            "attempt": int(recorder.sender.attempt),
            "step": int(recorder.steps),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        known = {"run_id": str, "attempt": int, "step": int}
        if all(isinstance(state_dict.get(key), kind) for key, kind in known.items()):
            self._resumed = dict(state_dict)

    # -- a fit ends -----------------------------------------------------------------------------

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._look_for_checkpoints(trainer)
        reason = "stopped early" if _stopped_early(trainer) else "end of training"
        self._end(lambda recorder: recorder.finish(reason))

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._look_for_checkpoints(trainer)
        self._end(lambda recorder: recorder.fail(exception))

    def teardown(self, trainer: Any, pl_module: Any, stage: str | None = None) -> None:
        self._end(lambda recorder: recorder.finish())

    def _end(self, how: Any) -> None:
        recorder, self.recorder = self.recorder, None
        if recorder is not None:
            with self._guard("recorder"):
                how(recorder)
                self.overhead = recorder.overhead
        self._clear()


def _loss_of(trainer: Any, pl_module: Any) -> tuple[LossFn | None, str]:
    try:
        from .undisturbed import lightning_loss
    except ImportError as error:
        return None, f"no loss to run again: {error}"
    return lightning_loss(trainer, pl_module)


def _meta(trainer: Any, pl_module: Any) -> dict[str, Any]:
    loader = getattr(trainer, "train_dataloader", None)
    sampler_size = getattr(loader, "batch_size", None)
    try:
        samples = len(loader.dataset)  # type: ignore[union-attr]
    except (TypeError, AttributeError, NotImplementedError):
        samples = None
    algorithm = trainer.gradient_clip_algorithm
    clips = trainer.gradient_clip_val is not None
    return {
        "precision": str(trainer.precision),
        "training_samples": samples,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": str(getattr(algorithm, "value", algorithm or "norm"))
        if clips
        else None,
        "accumulate_grad_batches": int(trainer.accumulate_grad_batches),
        "batch_size": sampler_size if isinstance(sampler_size, int) else None,
        "world_size": int(trainer.world_size),
        "classes": _classes(pl_module),
    }


def _classes(pl_module: Any) -> int | None:
    found = getattr(pl_module, "num_classes", None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _max_steps(trainer: Any) -> int | None:
    """Return the optimizer steps that the fit will take, None where nobody knows."""
    asked = trainer.max_steps if trainer.max_steps and trainer.max_steps > 0 else None
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs is None or epochs < 0 or not math.isfinite(batches):
        return asked
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * epochs
    return steps if asked is None else min(asked, steps)


def _clip_norm(trainer: Any, pl_module: Any) -> float | None:
    if not pl_module.automatic_optimization or not trainer.gradient_clip_val:
        return None
    algorithm = trainer.gradient_clip_algorithm
    by_norm = str(getattr(algorithm, "value", algorithm or "norm")) == "norm"
    return float(trainer.gradient_clip_val) if by_norm else None


def _scale_of(scaler: Any) -> Any:
    scale = getattr(scaler, "_scale", None)
    return math.nan if scale is None else float(scale) if scale.device.type == "cpu" else math.nan


def _scale_left(trainer: Any, optimizer: Any) -> Any:
    """Return the loss scale that is still in the gradients: fused optimizers undo it themselves."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return 1.0
    scale = getattr(scaler, "_scale", None)
    return 1.0 if scale is None else scale


def _checkpoint_paths(trainer: Any) -> list[str]:
    paths: list[str] = []
    for callback in trainer.checkpoint_callbacks:
        for name in ("_last_checkpoint_saved", "last_model_path", "best_model_path"):
            path = getattr(callback, name, "")
            if isinstance(path, str) and path:
                paths.append(path)
    return paths


def _stopped_early(trainer: Any) -> bool:
    return bool(trainer.should_stop) and not trainer.fit_loop._is_fit_loop_done()


def _class_now(cls: type) -> type:
    """Return the class with the Callback of every package that is imported by now among its bases."""
    missing = tuple(base for base in callback_bases() if not issubclass(cls, base))
    if not missing:
        return cls
    key = (cls, missing)
    if key not in _CLASSES:
        _CLASSES[key] = type(cls.__name__, (cls, *missing), {"__doc__": cls.__doc__})
    return _CLASSES[key]


_CLASSES: dict[tuple[type, tuple[type, ...]], type] = {}


def _rebuild(options: Options, run_id: str | None, overhead: dict[str, Any]) -> Otoscope:
    callback = Otoscope()
    callback.options = options
    callback.run_id, callback.overhead = run_id, overhead
    callback._clear()
    return callback
