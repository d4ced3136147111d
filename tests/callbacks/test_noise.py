"""The noise probe in real fits: against a known answer, against brute force, and without a trace."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Noise, attach
from otoscope.callbacks.probes import ProbeOffError, Training
from otoscope.store import NoiseScaleEstimator, connect
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from . import fits
from .launching import Job
from .regressions import (
    SCALE,
    WINDOW,
    WINDOWS,
    Regression,
    assert_covers,
    assert_right,
    estimates,
    fit,
    rows,
)
from .test_shapes_precision import scaled

SAMPLES = 128 * WINDOW * WINDOWS


class Coupled(Regression):
    """A loss that is no mean over samples to the last bit: of a batch of another size it is scaled."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = super().training_step(batch, index)
        return loss * 1.01 if len(batch[0]) == 128 else loss


def test_half_batches_give_the_known_answer(tmp_path: Path) -> None:
    data = rows(SAMPLES + 128 * WINDOW)
    net = Coupled()
    series, _ = fit(tmp_path, data, 128, net=net)
    assert set(series.column("small")) == {64}
    assert set(series.column("big")) == {128}
    assert_covers(assert_right(estimates(series)))
    assert series.column("low")[-1] < SCALE < series.column("high")[-1]


def test_where_a_loss_is_a_mean_an_eighth_of_the_batch_gives_the_known_answer(
    tmp_path: Path,
) -> None:
    series, _ = fit(tmp_path, rows(SAMPLES + 128 * WINDOW), 128)
    small = series.column("small").tolist()
    assert small[0] == 64  # the first sample looks whether the loss is a mean
    assert small[1:15] == [16] * 14
    assert small[15] == 64  # and later ones whether it still is
    assert set(series.column("big")) == {128}
    assert_covers(assert_right(estimates(series)))


def test_windows_that_grow_during_the_run_are_never_taken_for_one_batch(tmp_path: Path) -> None:
    growing = GradientAccumulationScheduler({0: 1, 1: 4})
    series, _ = fit(tmp_path, rows(32 * 16), 32, callbacks=[growing], epochs=2)
    small, late = series.column("small"), series.steps > 16
    assert set(small[~late][1:]) == {4}
    assert late.sum() == 4
    assert set(small[late]) == {16}  # the batch itself is run, for the step's gradient is of four


def test_micro_batches_give_the_known_answer(tmp_path: Path) -> None:
    series, _ = fit(tmp_path, rows(SAMPLES), 64, accumulate_grad_batches=2)
    assert set(series.column("small")) == {64}
    assert set(series.column("big")) == {128}
    assert_covers(assert_right(estimates(series)))


def test_two_ranks_give_the_known_answer_alone_and_with_micro_batches(tmp_path: Path) -> None:
    with Job(tmp_path / "job") as job:
        job.start_ranks("noise_job.py", [], {"PYTHONPATH": str(Path(__file__).parents[2])})
        job.wait()
    found = []
    for parts in (1, 2):
        run = (job.folder / f"run-{parts}.txt").read_text()
        store = connect(job.folder / "spool" / run)
        series = store.read(run, "noise")
        assert set(series.column("small")) == {64 / parts}
        assert set(series.column("big")) == {128}
        found.append(assert_right(estimates(series), within=0.06))
        # one rank alone holds its own gradient, and the averaged one is recorded once
        alone = store.read(run, "noise", rank=1)
        assert np.isnan(alone.column("big_sq")).all()
        mean = (store.read(run, "noise", rank=0).column("small_sq") + alone.column("small_sq")) / 2
        np.testing.assert_allclose(series.column("small_sq"), mean, rtol=1e-6)
    assert_covers(assert_right(np.concatenate(found)))


def by_hand(
    data: TensorDataset, sizes: list[int], weights: torch.Tensor | None = None
) -> np.ndarray:
    """Return the mean gradient of each micro-batch of a regression, float64[n, d]."""
    weights = Regression().weights.detach().double() if weights is None else weights
    x, y = (tensor.double() for tensor in data.tensors)
    each = x * (x @ weights - y)[:, None]
    return torch.stack([part.mean(0) for part in each.split(sizes)]).numpy()


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_partial_windows_and_uneven_last_batches_count_as_what_they_are(
    tmp_path: Path, clip: float | None
) -> None:
    # two whole windows of four, and one of a whole and a smaller micro-batch
    data, sizes = rows(8 * 9 + 5), [8] * 9 + [5]
    series, _ = fit(tmp_path, data, 8, accumulate_grad_batches=4, gradient_clip_val=clip)
    found = by_hand(data, sizes)
    windows = (found[:4], found[4:8], found[8:])
    small = [np.mean((w**2).sum(1)) for w in windows]
    big = [(w.mean(0) ** 2).sum() for w in windows]
    np.testing.assert_allclose(series.column("small_sq"), small, rtol=1e-5)
    np.testing.assert_allclose(series.column("big_sq"), big, rtol=1e-5)
    harmonic = 2 / (1 / 8 + 1 / 5)
    np.testing.assert_allclose(series.column("small"), [8, 8, harmonic], rtol=1e-6)
    np.testing.assert_allclose(series.column("big"), [32, 32, 2 * harmonic], rtol=1e-6)


def test_halves_of_an_odd_batch_leave_one_sample_out(tmp_path: Path) -> None:
    data = rows(21)
    series, _ = fit(tmp_path, data, 21, epochs=12)
    assert set(series.column("small")) == {10}
    first, second = by_hand(TensorDataset(*(t[:20] for t in data.tensors)), [10, 10])
    np.testing.assert_allclose(
        series.column("small_sq")[-1], (first @ first + second @ second) / 2, rtol=1e-5
    )
    mean = (first + second) / 2
    np.testing.assert_allclose(series.column("big_sq")[-1], mean @ mean, rtol=1e-5)


def test_an_odd_last_batch_among_even_ones_is_run_in_halves(tmp_path: Path) -> None:
    data, sizes = rows(64 * 3 + 5), [64, 64, 64, 5]
    series, _ = fit(tmp_path, data, 64, epochs=6)
    halves = by_hand(TensorDataset(*(t[192:196] for t in data.tensors)), [2, 2])
    at = [i for i, step in enumerate(series.steps.tolist()) if step % len(sizes) == 0]
    assert len(at) >= 3
    assert set(series.column("small")[at]) == {2}
    expected = np.mean((halves**2).sum(1))
    np.testing.assert_allclose(series.column("small_sq")[at], expected, rtol=1e-5)
    others = np.delete(series.column("small"), at)
    assert others[0] == 32 and set(others[1:]) <= {8, 32}
    assert (others == 8).sum() >= 8, "an odd batch says nothing about the even ones"


class Moving(Regression):
    """A regression that learns, fast."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_halves_are_run_at_the_weights_that_the_step_began_with(tmp_path: Path) -> None:
    data = rows(20)
    series, _ = fit(tmp_path, data, 20, net=Moving(), epochs=30)
    weights = Moving().weights.detach().double()
    for step in range(1, int(series.steps[-1]) + 1):
        first, second = by_hand(data, [10, 10], weights)
        mean = (first + second) / 2
        if step in series.steps:
            found = series.column("big_sq")[series.steps == step]
            np.testing.assert_allclose(found, mean @ mean, rtol=1e-4)
            found = series.column("small_sq")[series.steps == step]
            piece = by_hand(TensorDataset(*(t[:2] for t in data.tensors)), [2], weights)[0]
            halves = (first @ first + second @ second) / 2
            expected = halves if step == series.steps[0] else piece @ piece
            if series.steps.tolist().index(step) % 16 != 15:
                np.testing.assert_allclose(found, expected, rtol=1e-4)
        weights -= 0.1 * torch.from_numpy(mean)
    assert len(series) >= 3


class Dropping(Regression):
    """Half of the weights are dropped, others for each batch."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        kept = functional.dropout(self.weights, 0.5)
        return (batch[0] @ kept - batch[1]).square().mean() / 2


def test_dropout_draws_anew_for_each_half_and_each_step(tmp_path: Path) -> None:
    half = rows(10)
    data = TensorDataset(*(torch.cat([tensor, tensor]) for tensor in half.tensors))
    series, _ = fit(tmp_path, data, 20, net=Dropping(), epochs=16)
    # the halves hold the same samples, so all of their difference is dropout's
    assert (series.column("small_sq") > 1.01 * series.column("big_sq")).all()
    assert len(set(series.column("big_sq"))) == len(series)


def test_a_loss_scale_is_taken_out_and_skipped_steps_do_not_count(tmp_path: Path) -> None:
    plugin = scaled(2.0**40)
    data = rows(16 * 60)
    series, _ = fit(tmp_path, data, 8, accumulate_grad_batches=2, plugins=[plugin])
    plain, _ = fit(tmp_path, data, 8, accumulate_grad_batches=2)
    skipped = np.isnan(series.column("small_sq"))
    assert 0 < skipped.sum() < 40
    for name in ("small_sq", "big_sq"):
        expected = plain.column(name)[~skipped]
        # gradients in half precision
        np.testing.assert_allclose(series.column(name)[~skipped], expected, rtol=0.02)


class Normalized(Regression):
    """A classifier with batch norm, at fixed weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        del self.weights
        self.net = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return functional.cross_entropy(self.net(batch[0]), batch[1])


def test_with_batch_norm_the_scale_is_that_of_batches_of_that_size(tmp_path: Path) -> None:
    half = 16
    data, net = fits.data(1600), Normalized()
    series, _ = fit(tmp_path, data, 2 * half, net=net, epochs=10, shuffle=True)
    found = NoiseScaleEstimator(1.0)
    for name in series.values[:, :4]:
        found.update(*name.tolist())
    estimate = found.estimate()
    # brute force: gradients of many random batches of half the size
    x, y = data.tensors
    parameters = list(net.net.parameters())
    generator = torch.Generator().manual_seed(2)
    gradients = []
    for _ in range(1500):
        chosen = torch.randint(len(x), (half,), generator=generator)
        loss = functional.cross_entropy(net.net(x[chosen]), y[chosen])
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
    each = torch.stack(gradients).double()
    mean_sq = each.square().sum(1).mean().item()
    # without the bias that the mean of 1,500 has
    gradient_sq = (each.mean(0).square().sum().item() - mean_sq / 1500) / (1 - 1 / 1500)
    trace = half * (mean_sq - gradient_sq)
    assert estimate.low < trace / gradient_sq < estimate.high
    assert estimate.high / estimate.low < 1.5
    assert estimate.scale == pytest.approx(trace / gradient_sq, rel=0.1)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_run_ends_in_the_same_bits_with_and_without(tmp_path: Path, parts: int) -> None:
    from otoscope.callbacks import Otoscope

    ends = []
    for callbacks in ([], [Otoscope(probes=[Noise(every=2)], spool=tmp_path, verdict=False)]):
        trainer, net = fits.fit(
            "pytorch_lightning", tmp_path, callbacks, accumulate_grad_batches=parts
        )
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        ends.append((net.state_dict(), logged, fits.random_states()))
    (bare, bare_logged, bare_random), (seen, logged, random) = ends
    assert all(torch.equal(value, seen[name]) for name, value in bare.items())
    assert (bare_logged, bare_random) == (logged, random)


def loop(
    where: Path, *, parts: int = 1, batch_size: int | None = 6, loss_fn: Any = None, **options: Any
) -> tuple[Any, list[Any]]:
    """Train a plain loop, a generator and a discriminator wide; returns store's series and events."""
    torch.manual_seed(0)
    net = nn.ModuleDict(
        {"used": nn.Linear(4, 3), "frozen": nn.Linear(4, 3), "idle": nn.Linear(2, 2)}
    )
    net["frozen"].requires_grad_(False)
    optimizers = [
        torch.optim.SGD([*net["used"].parameters(), *net["frozen"].parameters()], 0.0),
        torch.optim.Adam(net["idle"].parameters(), 0.0),
    ]
    x = torch.randn(8, parts, 6, 4)
    probes = [Noise(every=1)]
    settings: dict[str, Any] = {"budget": 1.0, "strict": True, "verdict": False, "spool": where}
    with attach(net, optimizers, probes=probes, loss_fn=loss_fn, **settings, **options) as recorder:
        for step in x:
            for optimizer in optimizers:
                optimizer.zero_grad()
            for place, part in enumerate(step):
                loss = net["used"](part).square().mean() + net["frozen"](part).mean()
                (loss / parts).backward()
                if place == parts - 1:
                    for optimizer in optimizers:
                        optimizer.step()
                done = place == parts - 1
                recorder.step(loss, batch_size, batch=part, complete=done)
    store = connect(where / recorder.run_id)
    gradients = []
    for part in x.flatten(0, 1):
        loss = net["used"](part).square().mean()
        found = torch.autograd.grad(loss, list(net["used"].parameters()))
        gradients.append(torch.cat([g.flatten() for g in found]).double())
    return store.read(recorder.run_id, "noise"), [
        store.events(recorder.run_id),
        torch.stack(gradients).view(8, parts, -1).numpy(),
    ]


def test_a_plain_loop_that_accumulates_tells_its_noise(tmp_path: Path) -> None:
    series, (_, gradients) = loop(tmp_path, parts=3)
    np.testing.assert_allclose(series.column("small_sq"), (gradients**2).sum(2).mean(1), rtol=1e-5)
    np.testing.assert_allclose(series.column("big_sq"), (gradients.mean(1) ** 2).sum(1), rtol=1e-5)
    assert set(series.column("small")) == {6}
    assert set(series.column("big")) == {18}


def why_off(events: list[Any]) -> list[str]:
    return [e.body["why"] for e in events if e.kind == "probe_off" and e.body["probe"] == "noise"]


def test_what_cannot_be_measured_is_off_and_says_why(tmp_path: Path) -> None:
    _, (events, _) = loop(tmp_path / "a")
    assert "gradients at one batch size" in why_off(events)[0]
    assert "no loss_fn was given" in why_off(events)[0]
    _, (events, _) = loop(tmp_path / "b", parts=2, batch_size=0)
    assert "how many samples a batch has is not known" in why_off(events)[0]
    _, (events, _) = loop(tmp_path / "c", parts=2, task="contrastive")
    assert "couples the samples" in why_off(events)[0]


def test_where_the_parameters_are_sharded_it_is_off() -> None:
    training = Training(nn.Linear(1, 1), [], world_size=2, sharded=True)
    assert not Noise().is_on(Training(nn.Linear(1, 1), [], rank=1, world_size=2, sharded=True))
    with pytest.raises(ProbeOffError, match="sharded"):
        Noise().attach(training)


def test_of_many_ranks_the_first_eight_measure() -> None:
    on = [Noise().is_on(Training(nn.Linear(1, 1), [], rank=r, world_size=64)) for r in range(64)]
    assert on == [True] * 8 + [False] * 56


def test_several_backward_passes_over_a_batch_cannot_be_told_apart(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with attach(net, optimizer, probes=[Noise(every=1)], spool=tmp_path, verdict=False) as recorder:
        for _ in range(4):
            for _ in range(2):
                net(torch.randn(3, 2)).square().mean().backward()
            optimizer.step()
            recorder.step(1.0, 3)
    events = connect(tmp_path / recorder.run_id).events(recorder.run_id)
    assert "2 backward passes over 1 batches" in why_off(events)[0]


class ByHand(Regression):
    """Steps its optimizer itself; may offer its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        loss = super().training_step(batch, index)
        self.manual_backward(loss)
        optimizer.step()
        return loss


class Offering(ByHand):
    def curvature_loss(self, batch: Any) -> torch.Tensor:
        return Regression.training_step(self, batch, 0)


def test_manual_optimization_is_measured_where_the_module_offers_its_loss(tmp_path: Path) -> None:
    data = rows(32 * 20)
    _, callback = fit(tmp_path, data, 32, net=ByHand())
    events = connect(tmp_path / "spool" / callback.run_id).events(callback.run_id)
    assert "curvature_loss" in why_off(events)[0]
    series, _ = fit(tmp_path, data, 32, net=Offering())
    automatic, _ = fit(tmp_path, data, 32)
    np.testing.assert_array_equal(series.column("big_sq"), automatic.column("big_sq"))
    assert math.isfinite(series.column("big_sq")[-1])
