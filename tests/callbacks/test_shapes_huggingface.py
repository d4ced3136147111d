"""Hugging Face's Trainer: what is recorded is what the Trainer computed, and the run stays its own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Activations, Gradients
from otoscope.callbacks.huggingface import OtoscopeCallback
from otoscope.store import ConfigError, Store
from torch import nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from tests.callbacks.fits import random_states, recorded, seed


class Tokens(Dataset[dict[str, torch.Tensor]]):
    """Forty rows of eight tokens, some of which are masked out of the loss."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(row)
        tokens = torch.randint(0, 50, (8,), generator=generator)
        labels = tokens.clone()
        labels[: row % 5] = -100
        return {"input_ids": tokens, "labels": labels}


def gpt2() -> Any:
    config = GPT2Config(
        vocab_size=50, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config)


class Plain(nn.Module):
    """A net that takes its loss itself and knows nothing of the items of a window."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 8), nn.Linear(8, 50)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = torch.relu(self.head(self.embed(input_ids)))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}


def train(
    where: Path,
    callbacks: list[Any],
    make: Any = gpt2,
    resume: Any = None,
    cls: type[Trainer] = Trainer,
    **options: Any,
) -> Trainer:
    seed()
    settings: dict[str, Any] = {
        "output_dir": str(where / "out"),
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 3,  # ten batches: the last window of an epoch holds one
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "max_grad_norm": 0.2,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
    }
    arguments = TrainingArguments(**{**settings, **options})
    data: Any = Tokens()
    trainer = cls(make(), arguments, train_dataset=data, eval_dataset=data, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def watched(where: Path, **options: Any) -> OtoscopeCallback:
    settings: dict[str, Any] = {"spool": where, "strict": True, "verdict": False}
    return OtoscopeCallback(**{**settings, **options})


def every(where: Path, **options: Any) -> OtoscopeCallback:
    probes = [Gradients(every=1), Activations(every=1)]
    return watched(where, probes=probes, **options)


def store_of(where: Path, callback: OtoscopeCallback) -> tuple[Store, str]:
    run = str(callback.run_id)
    return recorded(where, run), run


def logged(trainer: Trainer, name: str) -> list[float]:
    return [row[name] for row in trainer.state.log_history if name in row]


class SlowLogger(TrainerCallback):
    """A logger that takes its time, as one does that sends over a network."""

    def on_log(self, *told: Any, **more: Any) -> None:
        time.sleep(0.02)


def test_a_slow_logger_is_no_waiting_for_data(tmp_path: Path) -> None:
    callback = OtoscopeCallback(spool=tmp_path / "spool", strict=True, verdict=False)
    train(tmp_path, [SlowLogger(), callback])
    run = str(callback.run_id)
    waits = recorded(tmp_path / "spool", run).read(run, "train").column("data_seconds@0")
    assert len(waits) == 8 and np.median(waits) < 0.01


@pytest.mark.parametrize("make", [gpt2, Plain], ids=["by-items", "by-batches"])
def test_loss_and_gradients_are_those_that_the_trainer_logs(make: Any, tmp_path: Path) -> None:
    bare = train(tmp_path, [], make)
    states = random_states()
    callback = every(tmp_path)
    trainer = train(tmp_path, [callback], make)

    assert random_states() == states
    left: Any = bare.model
    right: Any = trainer.model
    for key, value in left.state_dict().items():
        assert torch.equal(value, right.state_dict()[key]), key
    store, run = store_of(tmp_path, callback)
    series = store.read(run, "train")
    assert list(series.steps) == list(range(1, 9))
    np.testing.assert_allclose(series.column("loss"), logged(trainer, "loss"), rtol=1e-5)
    norms = logged(trainer, "grad_norm")  # before clipping
    np.testing.assert_allclose(np.sqrt(series.column("grad_sq")), norms, rtol=1e-4)
    expected = [min(1.0, 0.2 / norm) for norm in norms]
    assert min(expected) < 0.95
    np.testing.assert_allclose(series.column("clip_factor"), expected, rtol=1e-3)
    rates = logged(trainer, "learning_rate")
    np.testing.assert_allclose(series.column("lr/0.0"), rates, rtol=1e-5)
    assert series.column("samples").tolist() == [12, 12, 12, 4] * 2
    assert series.column("epoch")[-1] == 2
    assert len(store.read(run, "gradients")) == 8
    assert all(not hook for m in right.modules() for hook in (m._forward_hooks,))
    meta = store.meta(run)
    assert (meta.max_steps, meta.accumulate_grad_batches, meta.training_samples) == (8, 3, 40)
    assert meta.gradient_clip_val == pytest.approx(0.2)
    ended = meta.ended
    assert ended is not None and ended["reason"] == "end of training"


def test_activations_of_a_model_of_transformers_are_found(tmp_path: Path) -> None:
    callback = every(tmp_path)
    train(tmp_path, [callback])
    store, run = store_of(tmp_path, callback)
    names = [n for n in store.read(run, "activations").columns if n.startswith("saturated/")]
    assert names == ["saturated/transformer.h.0.mlp.act", "saturated/transformer.h.1.mlp.act"]
    called = every(tmp_path)
    train(tmp_path, [called], Plain)
    store, run = store_of(tmp_path, called)
    names = [n for n in store.read(run, "activations").columns if n.startswith("saturated/")]
    assert names == ["saturated/relu()"]


def test_evaluations_and_checkpoints_are_told_at_their_steps(tmp_path: Path) -> None:
    callback = watched(tmp_path)
    options = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    trainer = train(tmp_path, [callback], **options)
    store, run = store_of(tmp_path, callback)
    series = store.read(run, "validation")
    assert list(series.steps) == [4, 8]
    np.testing.assert_allclose(series.column("eval_loss"), logged(trainer, "eval_loss"), rtol=1e-6)
    saved = [(e.step, e.body) for e in store.events(run) if e.kind == "checkpoint"]
    assert [step for step, _ in saved] == [4, 8]
    assert all(Path(body["path"]).is_dir() and body["finite"] for _, body in saved)
    assert [e.step for e in store.events(run) if e.kind == "epoch"] == [0, 4]


def test_checkpoints_that_the_trainer_rotates_away_are_told(tmp_path: Path) -> None:
    callback = watched(tmp_path)
    train(tmp_path, [callback], save_strategy="steps", save_steps=3, save_total_limit=1)
    store, run = store_of(tmp_path, callback)
    told = [event.body for event in store.events(run) if event.kind == "checkpoint"]
    left = {Path(body["path"]).name for body in told} - {
        Path(path).name for body in told for path in body.get("gone", [])
    }
    assert left == {path.name for path in (tmp_path / "out").glob("checkpoint-*")}
    assert len(told) > len(left) > 0


def test_a_resumed_training_goes_on_with_its_run(tmp_path: Path) -> None:
    first, second = watched(tmp_path), watched(tmp_path)
    train(tmp_path, [first], save_strategy="steps", save_steps=3)
    where = tmp_path / "out" / "checkpoint-3"
    state = json.loads((where / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["Otoscope"]["attributes"]["step"] == 3
    train(tmp_path, [second], resume=str(where))
    assert second.run_id == first.run_id
    store, run = store_of(tmp_path, first)
    assert list(store.read(run, "train", attempt=2).steps) == [4, 5, 6, 7, 8]
    assert list(store.read(run, "train").steps) == list(range(1, 9))
    resumed = [e.body for e in store.events(run) if e.kind == "resumed"]
    assert resumed == [{"from_attempt": 1, "from_step": 3}]
    # and without Otoscope, also where the states of callbacks are asked for
    trainer = train(tmp_path, [], resume=str(where), restore_callback_states_from_checkpoint=True)
    assert trainer.state.global_step == 8


def test_curvature_is_measured_on_the_models_own_loss(tmp_path: Path) -> None:
    from otoscope.callbacks import Curvature

    bare: Any = train(tmp_path, [], num_train_epochs=6).model
    callback = watched(tmp_path, probes=[Curvature(every=2)])
    net: Any = train(tmp_path, [callback], num_train_epochs=6).model
    for key, value in bare.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key
    store, run = store_of(tmp_path, callback)
    series = store.read(run, "curvature")
    assert list(series.steps) == [20, 22, 24]
    assert (series.column("lambda_1") > 0).all()


def test_a_loss_that_the_trainer_takes_itself_is_said_to_be_missing(tmp_path: Path) -> None:
    callback = watched(tmp_path)
    train(tmp_path, [callback], label_smoothing_factor=0.1)
    store, run = store_of(tmp_path, callback)
    assert all(math.isnan(loss) for loss in store.read(run, "train").column("loss"))
    notes = [e.body["text"] for e in store.events(run) if e.kind == "note"]
    assert len(notes) == 1 and "holds no loss" in notes[0]


@pytest.mark.parametrize("make", [gpt2, Plain], ids=["by-items", "by-batches"])
def test_a_loss_that_is_told_is_the_one_that_the_trainer_logs(make: Any, tmp_path: Path) -> None:
    callback = watched(tmp_path)

    class Telling(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss: Any = super().compute_loss(*args, **kwargs)
            callback.note_loss(loss[0] if isinstance(loss, tuple) else loss)
            return loss

    smoothing = 0.1 if make is gpt2 else 0.0
    trainer = train(tmp_path, [callback], make, cls=Telling, label_smoothing_factor=smoothing)
    store, run = store_of(tmp_path, callback)
    found = store.read(run, "train").column("loss")
    np.testing.assert_allclose(found, logged(trainer, "loss"), rtol=1e-5)
    assert not [e for e in store.events(run) if e.kind == "note" and "loss" in e.body["text"]]


def test_a_compiled_model_is_recorded_like_any_other(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    callback = every(tmp_path)
    try:
        options = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
        trainer = train(tmp_path, [callback], Plain, **options)
    finally:
        torch._dynamo.reset()
        counters.clear()
    store, run = store_of(tmp_path, callback)
    series = store.read(run, "train")
    np.testing.assert_allclose(series.column("loss"), logged(trainer, "loss"), rtol=1e-5)
    assert not nn.modules.module._has_any_global_hook()
    columns = store.read(run, "activations")
    assert (columns.column("numel/head") == np.array([3, 3, 3, 1] * 2) * 4 * 8 * 50).all()


def test_two_callbacks_in_one_trainer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes one OtoscopeCallback"):
        train(tmp_path, [watched(tmp_path), watched(tmp_path)])


class Fails(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise ZeroDivisionError("the user's own")


def test_a_training_that_raised_is_ended_by_the_next(tmp_path: Path) -> None:
    callback = watched(tmp_path)
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        train(tmp_path, [callback, Fails()])
    first = str(callback.run_id)
    train(tmp_path, [callback])
    assert callback.run_id != first
    assert not [t for t in threading.enumerate() if t.name == "otoscope-sender"]
    ended = recorded(tmp_path, first).meta(first).ended
    assert ended is not None and ended["how"] == "failed"
    assert list(recorded(tmp_path, first).read(first, "train").steps) == [1, 2, 3]


def test_a_process_that_dies_of_an_exception_tells_of_it(tmp_path: Path) -> None:
    program = f"""
        from pathlib import Path
        from tests.callbacks.test_shapes_huggingface import Fails, Plain, train, watched
        where = Path(r"{tmp_path}")
        train(where, [watched(where, run="dying"), Fails()], Plain)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and "the user's own" in done.stderr
    (run,) = [path.name for path in tmp_path.iterdir() if path.name.startswith("dying-")]
    store = recorded(tmp_path, run)
    last = store.events(run)[-1]
    assert (last.kind, last.body["type"]) == ("exception", "ZeroDivisionError")
    assert list(store.read(run, "train").steps) == [1, 2, 3]


def test_two_ranks_are_one_run_with_the_loss_and_the_gradients_of_both(tmp_path: Path) -> None:
    program = tmp_path / "two_ranks.py"
    text = f"""
        import json
        from pathlib import Path
        from tests.callbacks.test_shapes_huggingface import every, logged, train

        where = Path(r"{tmp_path}")
        callback = every(where, run="both")
        trainer = train(where, [callback], per_device_train_batch_size=2, ddp_backend="gloo")
        if trainer.args.process_index == 0:
            told = [callback.run_id, logged(trainer, "loss"), logged(trainer, "grad_norm")]
            (where / "told.json").write_text(json.dumps(told))
    """
    program.write_text(textwrap.dedent(text))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *launcher, str(program)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run, losses, norms = json.loads((tmp_path / "told.json").read_text())
    store = recorded(tmp_path, run)
    series = store.read(run, "train")
    np.testing.assert_allclose(series.column("loss"), losses, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(series.column("grad_sq")), norms, rtol=1e-4)
    assert series.column("samples").tolist() == [12, 12, 12, 4] * 2
    assert (series.column("step_seconds@1") > 0).all()
    assert store.meta(run).world_size == 2


def test_without_transformers_the_error_names_the_install_command() -> None:
    program = """
        import sys
        sys.modules["transformers"] = None
        from otoscope.store import MissingExtraError
        try:
            import otoscope.callbacks.huggingface
        except MissingExtraError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "pip install transformers accelerate" in done.stdout, done.stderr
