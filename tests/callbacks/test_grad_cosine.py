"""The cosine of consecutive gradients: exact, before clipping, and at most one copy of a gradient."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Gradients, Otoscope, attach
from otoscope.callbacks.probes.pairs import GradientPairs
from otoscope.callbacks.probes.probe import Training
from otoscope.callbacks.probes.tap import GradientTap
from torch import Tensor, nn
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, fit, package, recorded

NAME = PACKAGES[0]


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b) / (a.norm() * b.norm()))


def wanted(gradients: list[Tensor], steps: list[int]) -> list[float]:
    """Return what every recorded step should hold: pairs begin with samples 1, 5, 9, …"""
    found = []
    for sample, step in enumerate(steps, start=1):
        second = sample % 4 == 2 and steps[sample - 2] == step - 1
        found.append(cosine(gradients[step - 2], gradients[step - 1]) if second else math.nan)
    return found


class Remembering:
    """Holds the gradient of every step, as it was before anything clipped it."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def take(self, module: Any) -> None:
        found = [p.grad for p in module.parameters() if p.grad is not None]
        self.gradients.append(torch.cat([g.detach().reshape(-1).clone() for g in found]).double())


def net() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))


def lightning_net(memory: Remembering, **options: Any) -> Any:
    base: Any = package(NAME).LightningModule

    class Net(base):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return functional.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.5)

    class Callback(package(NAME).Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            memory.take(module)

    return Net(), Callback()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
        {"accumulate_grad_batches": 4},  # of six batches: the last window is partial
    ],
    ids=["plain", "clipped-by-value", "accumulated"],
)
def test_in_lightning_it_is_the_cosine_of_the_unclipped_gradients_of_whole_steps(
    options: dict[str, Any], tmp_path: Path
) -> None:
    memory = Remembering()
    module, callback = lightning_net(memory)
    otoscope = Otoscope(probes=[Gradients(every=1)], spool=tmp_path, strict=True, verdict=False)
    fit(NAME, tmp_path, [callback, otoscope], net=module, validate=False, **options)
    run = str(otoscope.run_id)
    series = recorded(tmp_path, run).read(run, "gradients", ["grad_cosine"])
    want = wanted(memory.gradients, series.steps.tolist())
    assert len(want) == len(memory.gradients) >= 4
    assert sum(map(math.isfinite, want)) >= 1
    assert series.values[:, 0] == pytest.approx(want, abs=1e-6, nan_ok=True)


def plain(
    where: Path, *, steps: int, budget: float = 1.0, every: int | None = None, clears: bool = True
) -> tuple[Any, Remembering, nn.Module]:
    model, memory = net(), Remembering()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    recorder = attach(
        model,
        optimizer,
        probes=[Gradients(every=every)],
        spool=where,
        strict=True,
        verdict=False,
        budget=budget,
    )
    generator = torch.Generator().manual_seed(6)
    for _ in range(steps):
        x = torch.randn(16, 12, generator=generator)
        optimizer.zero_grad()
        # two backward passes into one gradient
        for part in (x[:8], x[8:]):
            loss = functional.cross_entropy(model(part), (part[:, 0] > 0).long())
            loss.backward()
        memory.take(model)
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        if clears:
            optimizer.zero_grad()
        recorder.step(loss, 16)
    recorder.finish()
    return recorder, memory, model


def test_in_a_loop_of_one_s_own_the_next_step_is_sampled_too(tmp_path: Path) -> None:
    recorder, memory, _ = plain(tmp_path, steps=12)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "gradients")
    want = wanted(memory.gradients, series.steps.tolist())
    assert sum(map(math.isfinite, want)) >= 1
    found = series.column("grad_cosine")
    assert found.tolist() == pytest.approx(want, abs=1e-6, nan_ok=True)


def test_a_look_long_behind_the_last_pair_begins_one() -> None:
    model, probe = net(), Gradients()
    tap = GradientTap(list(model.parameters()))
    probe.attach(Training(model, [torch.optim.SGD(model.parameters(), 0.5)], tap=tap))
    begins: list[int] = []
    for step in (1, 2, 50, 76, 77, 110, 150):
        tap.arm()
        probe.arm(step)
        model(torch.ones(4, 12)).square().sum().backward()
        tap.collect(list(model.parameters()))
        row = probe.sample(step)
        assert math.isfinite(row[-1]) == (step in (2, 77))
        if probe.hungry():
            begins.append(step)
    assert begins == [1, 76]
    assert all(count == 2 and at > 100 for at, count in probe.promised)


def test_no_gradient_is_kept_for_a_step_that_is_not_measured(tmp_path: Path) -> None:
    recorder, _, _ = plain(tmp_path, steps=14, every=3)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "gradients")
    assert series.column("grad_norm/0").size == 5
    assert not torch.tensor(series.column("grad_cosine")).isfinite().any()
    assert not recorder._tap.pairs.is_open


def test_a_gradient_whose_next_step_could_not_be_paid_is_let_go() -> None:
    pairs = GradientPairs()
    pairs.begin(4, keep=True)
    pairs.see(0, torch.ones(2))
    pairs.end(2.0)
    pairs.let_go(4)
    assert pairs.is_open  # its next step is still to come
    pairs.let_go(10)
    assert not pairs.is_open


def test_steps_too_long_for_a_valley_go_to_and_fro(tmp_path: Path) -> None:
    weights = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(weights.parameters(), 1.9)
    probes: Any = [Gradients(every=1)]
    recorder = attach(weights, optimizer, probes=probes, spool=tmp_path, verdict=False)
    for _ in range(14):
        optimizer.zero_grad()
        loss = 0.5 * (weights.weight * torch.tensor([[1.0, 0.001]])).square().sum()
        loss.backward()
        optimizer.step()
        recorder.step(loss, 1)
    recorder.finish()
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "gradients")
    found = torch.tensor(series.column("grad_cosine"))
    assert found[found.isfinite()].tolist() == pytest.approx([-1.0] * 4, abs=1e-3)


def test_one_copy_serves_one_pair_and_what_cannot_be_compared_is_not() -> None:
    pairs = GradientPairs()
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    for step, keep, gradient, want in (
        (1, True, a, math.nan),
        (2, True, b, math.sqrt(0.5)),  # the second of a pair is not the first of another
        (3, False, b, math.nan),
        (4, True, a, math.nan),
        (6, False, a, math.nan),  # one step was not measured
        (7, True, torch.tensor([math.inf, 1.0]), math.nan),
        (8, False, a, math.nan),
        (9, True, b.to_sparse(), math.nan),
        (10, False, b, math.nan),
        (11, True, b.half(), math.nan),
        (12, False, b.half(), 1.0),
    ):
        pairs.begin(step, keep=keep)
        pairs.see(0, gradient)
        square = float(gradient.to_dense().double().square().sum())
        assert float(pairs.end(square)) == pytest.approx(want, abs=1e-6, nan_ok=True), step
    assert not pairs.is_open
    pairs.begin(13, keep=True)
    pairs.see(0, a)
    pairs.end(1.0)
    pairs.let_go(13)
    assert pairs.is_open
    pairs.let_go(14)
    assert not pairs.is_open
