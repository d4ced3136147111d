"""Loops under Accelerate: its optimizers tell of accumulation, loss scale and skipped steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from otoscope.callbacks import Gradients, attach
from otoscope.store import Series
from torch.nn import functional

from tests.callbacks.fits import data, recorded
from tests.callbacks.shapes import Memory, smooth, square


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Accelerate keeps its state for the process."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def train(
    where: Path | None, accumulate: int, *, scaler: Any = None, gain: float = 1.0
) -> tuple[Any, Any, list[Any]]:
    torch.manual_seed(0)
    model = smooth()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    optimizer: Any = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    if scaler is not None:
        accelerator.scaler = scaler
    loader = torch.utils.data.DataLoader(data(160), 16)
    net, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    recorder = None
    if where is not None:
        recorder = attach(
            accelerator.unwrap_model(net),
            optimizer,
            spool=where,
            strict=True,
            verdict=False,
            probes=[Gradients(every=1)],
        )
    memory = Memory()

    def loss_of(batch: Any) -> torch.Tensor:
        return gain * functional.cross_entropy(model(batch[0]), batch[1])

    for batch in loader:
        with accelerator.accumulate(net):
            memory.add(model, batch)
            loss = loss_of(batch)
            accelerator.backward(loss)
            if accelerator.sync_gradients and scaler is None:
                accelerator.clip_grad_norm_(net.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            if recorder is not None:
                recorder.step(loss, len(batch[0]))
    if recorder is not None:
        recorder.finish()
    return recorder, model, memory.again(model, loss_of)


def both(where: Path, accumulate: int, **options: Any) -> tuple[Series, list[Any]]:
    made = options.pop("scaler", lambda: None)
    _, bare, _ = train(None, accumulate, scaler=made(), **options)
    recorder, model, again = train(where, accumulate, scaler=made(), **options)
    for key, value in bare.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    return recorded(where, recorder.run_id).read(recorder.run_id, "train"), again


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_window_is_one_step_with_whole_gradients_before_clipping(
    accumulate: int, tmp_path: Path
) -> None:
    series, rows = both(tmp_path, accumulate)
    # ten batches: of four a window, the last holds two, and Accelerate divides by four there too
    windows = [rows[start : start + accumulate] for start in range(0, 10, accumulate)]
    means = [
        {name: torch.stack([g[name] for _, g in window]).mean(0) for name in window[0][1]}
        for window in windows
    ]
    norms = np.array([math.sqrt(square(grads)) for grads in means])
    assert list(series.steps) == list(range(1, len(windows) + 1))
    assert series.column("samples").tolist() == [16.0 * len(window) for window in windows]
    losses = [np.mean([loss for loss, _ in window]) for window in windows]
    np.testing.assert_allclose(series.column("loss"), losses, rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(series.column("grad_sq")), norms, rtol=1e-5)
    # what the clipping saw of a partial window was n/A of it
    seen = norms * [len(window) / accumulate for window in windows]
    clipped = np.minimum(1, 0.1 / seen)
    assert clipped.min() < 0.9
    np.testing.assert_allclose(series.column("clip_factor"), clipped, rtol=1e-3)
    assert (series.column("lr/0.0") == np.float32(0.1)).all()


def test_a_step_that_its_scaler_let_out_is_skipped_and_its_scale_taken_out(tmp_path: Path) -> None:
    def scaler() -> Any:
        return torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=100)

    series, rows = both(tmp_path, 1, scaler=scaler, gain=64.0)
    skipped = series.column("skipped")
    assert 0 < skipped.sum() < 10 and skipped[0] == 1
    assert series.column("loss_scale")[:2].tolist() == [2.0**127, 2.0**126]
    for place, (loss, grads) in enumerate(rows):
        assert series.column("loss")[place] == pytest.approx(loss, rel=1e-5)
        if skipped[place]:
            assert series.column("non_finite")[place] > 0
        else:
            norm = math.sqrt(square(grads))
            assert math.sqrt(series.column("grad_sq")[place]) == pytest.approx(norm, rel=1e-4)
            assert series.column("clip_factor")[place] == pytest.approx(1.0, rel=1e-4)
