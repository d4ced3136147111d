"""Fits that clip, scale their loss or compute in half precision: recorded is what a gradient is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Gradients, Otoscope, attach
from otoscope.store import ConfigError
from torch.nn import functional

from tests.callbacks.fits import data, fit, package, recorded
from tests.callbacks.shapes import NAME, Memory, both, remembering, smooth, square


def scaled(init_scale: float) -> Any:
    """Return Lightning's plugin of 16-mixed with a scaler for the CPU."""
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=4)
    plugins = package(f"{NAME}.plugins")
    return plugins.MixedPrecision("16-mixed", device="cpu", scaler=scaler)


def half(net: Any) -> Callable[[Any], torch.Tensor]:
    def loss_of(batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.half, cache_enabled=False):
            return net.loss_of(batch)

    return loss_of


def test_clipping_by_value_is_told_as_what_it_left_of_the_norm(tmp_path: Path) -> None:
    options = {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}
    told = both(tmp_path, remembering, **options)
    rows = told.net.memory.again(told.net, told.net.loss_of)
    whole = [square(grads) for _, grads in rows]
    left = [square([g.clamp(-0.01, 0.01) for g in grads.values()]) for _, grads in rows]
    np.testing.assert_allclose(told.column("loss"), [loss for loss, _ in rows], rtol=1e-5)
    np.testing.assert_allclose(told.column("grad_sq"), whole, rtol=1e-5)
    expected = [math.sqrt(a / b) for a, b in zip(left, whole, strict=True)]
    assert max(expected) < 0.9
    np.testing.assert_allclose(told.column("clip_factor"), expected, rtol=1e-4)


def test_a_clipping_of_the_users_own_is_told_too(tmp_path: Path) -> None:
    def make() -> Any:
        net = remembering()
        net.configure_gradient_clipping = lambda *args, **options: [
            p.grad.mul_(0.25) for p in net.parameters()
        ]
        return net

    told = both(tmp_path, make)
    rows = told.net.memory.again(told.net, told.net.loss_of)
    np.testing.assert_allclose(told.column("grad_sq"), [square(g) for _, g in rows], rtol=1e-5)
    np.testing.assert_allclose(told.column("clip_factor"), 0.25, rtol=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_loss_scale_is_taken_out_and_a_skipped_step_is_one(fused: bool, tmp_path: Path) -> None:
    def make() -> Any:
        return remembering(lambda net: torch.optim.Adam(net.parameters(), 0.01, fused=fused))

    first = 2.0**24  # overflows in half precision: the scaler skips until its scale fits
    told = both(tmp_path, make, plugins=lambda: [scaled(first)], max_epochs=3)
    rows = told.net.memory.again(told.net, half(told.net))
    skipped = told.column("skipped")
    scales = told.column("loss_scale")
    assert skipped[0] == 1 and skipped[-1] == 0 and len(skipped) == 18
    assert scales[:2] == [first, first / 2]
    assert any(b == 2 * a for a, b in itertools.pairwise(scales))
    np.testing.assert_allclose(told.column("loss"), [loss for loss, _ in rows], rtol=1e-3)
    measured = told.column("grad_sq")
    for place, (_, grads) in enumerate(rows):
        if skipped[place]:
            assert not math.isfinite(measured[place])
        else:
            assert measured[place] == pytest.approx(square(grads), rel=0.05)
    assert all(
        (bad > 0) == (skip == 1)
        for bad, skip in zip(told.column("non_finite"), skipped, strict=True)
    )


def test_a_fit_that_goes_on_in_the_middle_of_an_epoch_takes_the_loss_scale_out_at_once(
    tmp_path: Path,
) -> None:
    scale = 1024.0
    first, second = (
        Otoscope(spool=tmp_path, strict=True, verdict=False, probes=[Gradients(every=1)])
        for _ in range(2)
    )
    saving = package(NAME).callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1
    )
    options: dict[str, Any] = {"enable_checkpointing": True, "validate": False}
    fit(NAME, tmp_path, [first, saving], plugins=[scaled(scale)], **options)
    path = str(tmp_path / "step=4.ckpt")
    fit(NAME, tmp_path, [second], ckpt_path=path, plugins=[scaled(scale)], **options)
    run = str(second.run_id)
    told = recorded(tmp_path, run).read(run, "train", attempt=2)
    assert list(told.steps) == list(range(5, 13))
    assert told.column("epoch").tolist() == [0.0] * 2 + [1.0] * 6
    assert min(told.column("loss_scale")) >= scale
    norms = told.column("grad_sq")
    assert norms.max() < 100 * norms.min(), "none of them is a million times as large"


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_is_measured_as_it_was_computed(precision: str, tmp_path: Path) -> None:
    told = both(tmp_path, remembering, precision=precision)

    def loss_of(batch: Any) -> torch.Tensor:
        mixed = precision == "bf16-mixed"
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed, cache_enabled=False):
            return told.net.loss_of(batch)

    rows = told.net.memory.again(told.net, loss_of)
    np.testing.assert_allclose(told.column("loss"), [loss for loss, _ in rows], rtol=1e-2)
    np.testing.assert_allclose(told.column("grad_sq"), [square(g) for _, g in rows], rtol=1e-2)
    layers = told.read("gradients")
    weights = [
        float(w["net.0.weight"].double().square().sum()) for w, _ in told.net.memory.micro[1:]
    ]
    np.testing.assert_allclose(layers.column("weight_sq/net.0")[:-1], weights, rtol=1e-4)
    assert told.store.meta(told.run).precision == precision


def manual(clip: float | None) -> Callable[[Any, Any], None]:
    def step(net: Any, batch: Any) -> None:
        optimizer = net.optimizers()
        optimizer.zero_grad()
        net.manual_backward(net.loss_of(batch))
        if clip is not None:
            net.clip_gradients(optimizer, clip, "norm")
        optimizer.step()

    return step


def test_a_loss_scale_is_taken_out_of_a_manual_loop(tmp_path: Path) -> None:
    told = both(tmp_path, lambda: remembering(step=manual(None)), plugins=lambda: [scaled(1024.0)])
    rows = told.net.memory.again(told.net, half(told.net))
    np.testing.assert_allclose(told.column("loss"), [loss for loss, _ in rows], rtol=1e-3)
    np.testing.assert_allclose(told.column("grad_sq"), [square(g) for _, g in rows], rtol=0.02)
    np.testing.assert_allclose(told.column("clip_factor"), 1.0, rtol=1e-3)
    assert told.column("loss_scale")[:2] == [1024.0, 1024.0]


def test_gradients_of_a_manual_loop_are_measured_before_its_clipping(tmp_path: Path) -> None:
    told = both(tmp_path, lambda: remembering(step=manual(0.05)))
    rows = told.net.memory.again(told.net, told.net.loss_of)
    norms = [math.sqrt(square(grads)) for _, grads in rows]
    assert min(norms) > 0.05
    np.testing.assert_allclose(np.sqrt(told.column("grad_sq")), norms, rtol=1e-5)
    np.testing.assert_allclose(told.column("clip_factor"), [0.05 / n for n in norms], rtol=1e-3)


def scaler_loop(where: Path | None) -> tuple[Any, list[Any], Any]:
    """A plain loop with a scaler that clips; returns (recorder, expected rows, model)."""
    torch.manual_seed(0)
    model = smooth()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    recorder = None
    if where is not None:
        recorder = attach(
            model,
            optimizer,
            scaler=scaler,
            spool=where,
            strict=True,
            verdict=False,
            probes=[Gradients(every=1)],
        )
    memory, x_y = Memory(), data(160).tensors

    def loss_of(batch: Any) -> torch.Tensor:
        with torch.autocast("cpu", torch.half, cache_enabled=False):
            return functional.cross_entropy(model(batch[0]), batch[1])

    for start in range(0, 160, 8):
        batch = tuple(rows[start : start + 8] for rows in x_y)
        memory.add(model, batch)
        optimizer.zero_grad()
        loss = loss_of(batch)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        if recorder is not None:
            recorder.step(loss, 8)
    if recorder is not None:
        recorder.finish()
    return recorder, memory.again(model, loss_of), model


def test_a_plain_loop_names_its_scaler(tmp_path: Path) -> None:
    _, _, bare = scaler_loop(None)
    recorder, rows, model = scaler_loop(tmp_path)
    for key, value in bare.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "train")
    skipped = series.column("skipped")
    assert skipped[0] == 1 and skipped[-1] == 0
    assert series.column("loss_scale")[:2].tolist() == [2.0**24, 2.0**23]
    for place, (loss, grads) in enumerate(rows):
        assert series.column("loss")[place] == pytest.approx(loss, rel=1e-3)
        if not skipped[place]:
            norm = math.sqrt(square(grads))
            assert math.sqrt(series.column("grad_sq")[place]) == pytest.approx(norm, rel=0.03)
            clip = min(1.0, 0.1 / norm)
            assert series.column("clip_factor")[place] == pytest.approx(clip, rel=0.03)


def test_a_scaler_that_is_none_is_refused() -> None:
    model = smooth()
    optimizer: Any = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ConfigError, match=r"scaler must be the loop's torch\.amp\.GradScaler"):
        attach(model, optimizer, scaler=optimizer)
