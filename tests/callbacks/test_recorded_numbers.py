"""What is recorded, held against references that each test computes by itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Activations, Gradients, Otoscope, Recorder, attach
from otoscope.store import Series
from torch import nn
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, data, fit, module, package, recorded


class Loop:
    """A plain loop over small batches, with what it recorded and what it saw itself."""

    def __init__(self, where: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.where, self.model, self.optimizer = where, model, optimizer
        self.losses: list[float] = []

    def run(
        self, probes: list[Any], steps: int, batch: int = 16, see: Any = None, clip: Any = None
    ):
        rows = data(batch * steps).tensors
        with attach(
            self.model,
            self.optimizer,
            probes=probes,
            spool=self.where,
            strict=True,
            budget=1.0,
            verdict=False,
        ) as recorder:
            for start in range(0, batch * steps, batch):
                x, y = (tensor[start : start + batch] for tensor in rows)
                self.optimizer.zero_grad()
                before = [p.detach().clone() for p in self.model.parameters()]
                loss = functional.cross_entropy(self.model(x), y)
                loss.backward()
                grads = [p.grad.clone() for p in self.model.parameters() if p.grad is not None]
                if clip is not None:
                    nn.utils.clip_grad_norm_(self.model.parameters(), clip)
                self.optimizer.step()
                if see is not None:
                    see(before, grads, x)
                recorder.step(loss, batch)
                self.losses.append(loss.item())
        return recorder

    def read(self, recorder: Recorder, family: str) -> Series:
        return recorded(self.where, recorder.run_id).read(recorder.run_id, family)


def two_layers() -> Any:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3), nn.LayerNorm(3))


def squares(tensors: list[torch.Tensor]) -> list[float]:
    return [float(tensor.double().square().sum()) for tensor in tensors]


def test_layer_norms_are_those_of_gradient_weights_and_true_step(tmp_path: Path) -> None:
    model = two_layers()
    loop = Loop(tmp_path, model, torch.optim.Adam(model.parameters(), 0.01))
    seen: list[tuple[list[float], list[float], list[float]]] = []

    def see(before: list[torch.Tensor], grads: list[torch.Tensor], x: torch.Tensor) -> None:
        after = [p.detach().clone() for p in model.parameters()]
        updates = [a - b for a, b in zip(after, before, strict=True)]
        seen.append((squares(grads), squares(after), squares(updates)))

    recorder = loop.run([Gradients(every=1)], 5, see=see)

    series = loop.read(recorder, "gradients")
    assert list(series.steps) == [1, 2, 3, 4, 5]
    # parameters in order: 0.weight, 0.bias, 2.weight, 2.bias, 3.weight, 3.bias
    covered = {"0": [0], "2": [2], "3": [4, 5]}
    for layer, places in covered.items():
        for column, which in (("grad_sq", 0), ("weight_sq", 1), ("update_sq", 2)):
            expected = [sum(step[which][i] for i in places) for step in seen]
            np.testing.assert_allclose(series.column(f"{column}/{layer}"), expected, rtol=1e-5)
    assert series.column("numel/0")[0] == 96 and series.column("numel/3")[0] == 6
    columns = recorded(tmp_path, recorder.run_id).home.schemas(recorder.run_id).values()
    groups = {
        c.layer: c.group for s in columns if s.family == "gradients" for c in s.columns if c.layer
    }
    assert groups == {"0": "weight", "2": "weight", "3": "other"}


def test_adam_ratio_is_the_root_of_mean_squares_over_mean_second_moment(tmp_path: Path) -> None:
    model = two_layers()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, betas=(0.9, 0.95))
    loop = Loop(tmp_path, model, optimizer)
    expected: list[float] = []

    def see(before: list[torch.Tensor], grads: list[torch.Tensor], x: torch.Tensor) -> None:
        state = optimizer.state[model[0].weight]
        second = state["exp_avg_sq"].double() / (1 - 0.95 ** int(state["step"]))
        expected.append(math.sqrt(grads[0].double().square().mean() / second.mean()))

    recorder = loop.run([Gradients(every=1)], 5, see=see)
    series = loop.read(recorder, "gradients")
    np.testing.assert_allclose(series.column("adam_ratio/0"), expected, rtol=1e-4)


def test_train_holds_loss_lr_norm_and_samples_of_every_step(tmp_path: Path) -> None:
    model = two_layers()
    loop = Loop(tmp_path, model, torch.optim.SGD(model.parameters(), 0.25))
    norms: list[float] = []
    recorder = loop.run(
        [Gradients(every=1)], 6, see=lambda before, grads, x: norms.append(sum(squares(grads)))
    )
    series = loop.read(recorder, "train")
    np.testing.assert_allclose(series.column("loss"), loop.losses, rtol=1e-6)
    np.testing.assert_allclose(series.column("grad_sq"), norms, rtol=1e-5)
    assert (series.column("lr/0.0") == np.float32(0.25)).all()
    assert (series.column("samples") == 16).all()
    assert (series.column("non_finite") == 0).all()
    assert (series.column("step_seconds@0") > 0).all()
    assert np.isnan(series.column("epoch")).all()


def test_gradients_are_measured_before_clipping_in_a_plain_loop(tmp_path: Path) -> None:
    model = two_layers()
    loop = Loop(tmp_path, model, torch.optim.SGD(model.parameters(), 0.25))
    norms: list[float] = []
    recorder = loop.run(
        [Gradients(every=1)],
        4,
        clip=0.01,
        see=lambda before, grads, x: norms.append(sum(squares(grads))),
    )
    series = loop.read(recorder, "train")
    assert min(norms) > 0.01**2
    np.testing.assert_allclose(series.column("grad_sq"), norms, rtol=1e-5)
    expected = [0.01 / (math.sqrt(norm) + 1e-6) for norm in norms]
    np.testing.assert_allclose(series.column("clip_factor"), expected, rtol=1e-3)


def test_non_finite_counts_loss_and_gradients(tmp_path: Path) -> None:
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.randn(16, 12)
    with attach(
        model, optimizer, probes=[Gradients(every=1)], spool=tmp_path, strict=True, verdict=False
    ) as recorder:
        for factor in (1.0, math.inf, 1e25):
            optimizer.zero_grad()
            loss = model[:1](x).sum() * factor
            loss.backward()
            recorder.step(loss, 16)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "train")
    # the loss and both tensors of the first layer; a norm of 1e27 overflows a float32 square only
    assert list(series.column("non_finite")) == [0, 3, 0]


@pytest.mark.parametrize("batch", [24, 128])
def test_saturated_and_dead_units_are_those_of_a_direct_count(batch: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 10), nn.Tanh(), nn.Linear(10, 3)
    )
    with torch.no_grad():
        model[0].bias[:7] = -100.0  # seven units that never fire
        model[2].weight.mul_(6)
    loop = Loop(tmp_path, model, torch.optim.SGD(model.parameters(), 0.0))
    zeros: list[float] = []
    tails: list[float] = []
    rows: list[torch.Tensor] = []

    def see(before: list[torch.Tensor], grads: list[torch.Tensor], x: torch.Tensor) -> None:
        with torch.no_grad():
            seen = x[::8] if batch >= 64 else x
            zeros.append(float((model[:1](seen) <= 0).float().mean()))
            tails.append(float((model[:3](seen).abs() > 2.18).float().mean()))
            rows.append(x)

    recorder = loop.run([Activations(every=1)], 30, batch=batch, see=see)

    series = loop.read(recorder, "activations")
    assert len(series) == 30
    np.testing.assert_allclose(series.column("saturated/1"), zeros, rtol=1e-4)
    np.testing.assert_allclose(series.column("saturated/3"), tails, rtol=1e-4)
    assert (series.column("units/1") == 40).all()
    samples = series.column("samples/1")
    window = math.ceil(512 / batch)
    assert np.isnan(series.column("dead/1")[: window - 1]).all()
    assert samples[window - 1] == samples[-1] == window * batch
    for place in range(window - 1, 30):
        seen = torch.cat(rows[place - window + 1 : place + 1])
        with torch.no_grad():
            dead = (model[:2](seen).amax(0) <= 0).float().mean()
        assert series.column("dead/1")[place] == pytest.approx(float(dead))
    assert series.column("dead/1")[-1] >= 7 / 40


def test_output_moments_are_those_of_a_direct_sum(tmp_path: Path) -> None:
    model = two_layers()
    loop = Loop(tmp_path, model, torch.optim.SGD(model.parameters(), 0.0))
    outputs: list[torch.Tensor] = []

    def see(before: list[torch.Tensor], grads: list[torch.Tensor], x: torch.Tensor) -> None:
        outputs.append(functional.linear(x, model[0].weight, model[0].bias).detach().double())

    recorder = loop.run([Activations(every=1)], 3, see=see)
    series = loop.read(recorder, "activations")
    for name, expected in (
        ("numel", [float(y.numel()) for y in outputs]),
        ("sum_sq", [float(y.square().sum()) for y in outputs]),
        ("absmax", [float(y.abs().max()) for y in outputs]),
        ("mean", [float(y.mean()) for y in outputs]),
    ):
        np.testing.assert_allclose(series.column(f"{name}/0"), expected, rtol=1e-4)
    assert (series.column("non_finite/0") == 0).all()


def test_units_of_a_convolution_are_its_channels(tmp_path: Path) -> None:
    model: Any = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 3))
    with torch.no_grad():
        model[0].bias[2] = -100.0
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with attach(
        model, optimizer, probes=[Activations(every=1)], spool=tmp_path, strict=True, verdict=False
    ) as recorder:
        loss = model(torch.randn(512, 1, 4, 4)).square().mean()
        loss.backward()
        optimizer.step()
        recorder.step(loss, 512)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "activations")
    assert series.column("units/1")[0] == 6
    assert series.column("dead/1")[0] == pytest.approx(1 / 6)


@pytest.mark.parametrize("name", PACKAGES)
def test_accumulated_steps_hold_undivided_loss_and_whole_gradients(
    name: str, tmp_path: Path
) -> None:
    """Six batches in windows of four: the second window is a partial one of two."""
    package(name)
    batches: list[Any] = []

    def loss_of(net: Any, batch: Any) -> torch.Tensor:
        return functional.cross_entropy(net.net[4](net.net[0](batch[0])), batch[1])

    def step(net: Any, batch: Any) -> torch.Tensor:
        batches.append(batch)
        return loss_of(net, batch)

    net = module(name, step, lr=0.0)
    callback = Otoscope(spool=tmp_path, strict=True, probes=[Gradients(every=1)], verdict=False)
    fit(
        name, tmp_path, [callback], net=net, accumulate_grad_batches=4, max_epochs=1, validate=False
    )

    losses, norms = [], []
    for window in (batches[:4], batches[4:]):
        net.zero_grad()
        mean = sum(loss_of(net, batch) for batch in window) / len(window)
        assert isinstance(mean, torch.Tensor)
        mean.backward()
        losses.append(mean.item())
        norms.append(sum(squares([p.grad for p in net.parameters() if p.grad is not None])))
    assert callback.run_id is not None
    series = recorded(tmp_path, callback.run_id).read(callback.run_id, "train")
    np.testing.assert_allclose(series.column("loss"), losses, rtol=1e-5)
    np.testing.assert_allclose(series.column("grad_sq"), norms, rtol=1e-4)
    assert list(series.column("samples")) == [64, 32]


def test_validation_holds_the_users_metrics_at_the_steps_done(tmp_path: Path) -> None:
    seen: list[float] = []
    base = package(PACKAGES[0])

    class Spy(base.Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if not trainer.sanity_checking:
                seen.append(float(trainer.callback_metrics["val_loss"]))

    callback = Otoscope(spool=tmp_path, strict=True, verdict=False)
    fit(PACKAGES[0], tmp_path, [callback, Spy()], val_check_interval=3)
    assert callback.run_id is not None
    series = recorded(tmp_path, callback.run_id).read(callback.run_id, "validation")
    assert list(series.steps) == [3, 6, 9, 12]
    np.testing.assert_allclose(series.column("val_loss"), seen, rtol=1e-6)
    assert list(series.column("epoch")) == [0, 0, 1, 1]


def test_learning_rate_and_epoch_follow_the_schedule(tmp_path: Path) -> None:
    callback = Otoscope(spool=tmp_path, strict=True, verdict=False)
    fit(PACKAGES[0], tmp_path, [callback], max_epochs=4)
    assert callback.run_id is not None
    store = recorded(tmp_path, callback.run_id)
    series = store.read(callback.run_id, "train")
    np.testing.assert_allclose(series.column("lr/0.0"), [0.05] * 12 + [0.005] * 12, rtol=1e-6)
    assert list(series.column("epoch")) == [n for n in range(4) for _ in range(6)]
    changes = [(e.step, e.body) for e in store.events(callback.run_id) if e.kind == "lr"]
    assert [step for step, _ in changes] == [13]
    assert changes[0][1]["phase"] == "decay"
    assert changes[0][1]["to"] == pytest.approx(0.005)


def test_lightning_clipping_is_seen_from_before_it(tmp_path: Path) -> None:
    callback = Otoscope(spool=tmp_path, strict=True, probes=[Gradients(every=1)], verdict=False)
    fit(PACKAGES[0], tmp_path, [callback], gradient_clip_val=0.05)
    assert callback.run_id is not None
    store = recorded(tmp_path, callback.run_id)
    series = store.read(callback.run_id, "train")
    norm = np.sqrt(series.column("grad_sq"))
    assert (norm > 0.05).any()
    np.testing.assert_allclose(series.column("clip_factor"), np.minimum(1, 0.05 / norm), rtol=1e-3)
    assert store.meta(callback.run_id).gradient_clip_val == 0.05
