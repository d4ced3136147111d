"""No error of ours reaches the training, whichever function it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Activations, Gradients, Otoscope, attach
from otoscope.callbacks.attaching import LoopRecorder
from otoscope.callbacks.probes import Curvature, Noise, System
from otoscope.callbacks.probes.head import Head
from otoscope.callbacks.probes.inputs import Inputs
from otoscope.callbacks.probes.modes import Modes
from otoscope.callbacks.probes.replicas import Replicas
from otoscope.callbacks.probes.symmetry import Symmetry
from torch import nn
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, fit, package, seed
from tests.callbacks.planting import Planter

QUIET_STEPS = 20
"""Steps without an error after which no function is left; what is rarest comes at every tenth."""
PUTS_BACK = ("/callbacks/undisturbed.py", "/callbacks/snapshot.py")
"""What puts the run's own state back: where that fails, the state is another one."""


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(12, 16), nn.LayerNorm(16), nn.Dropout(0.2)
        self.act, self.last = nn.ReLU(), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.act(self.norm(self.first(x))))
        mixed, _ = self.attention(x[:, None], x[:, None], x[:, None])
        return self.last(functional.gelu(x + mixed[:, 0]))


def probes() -> list[Any]:
    return [
        *(kind(every=1) for kind in (Gradients, Activations, Inputs, Head, Symmetry, Modes)),
        *(kind(every=1) for kind in (System, Replicas)),
        Noise(every=1, per_example=True),
        Curvature(every=4, first=1, samples=4),
    ]


@pytest.fixture(autouse=True)
def everything_happens_soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the probes on, however often they fail; let rows and news leave within a few steps."""
    for name in ("sampling.LIMIT", "probes.running._FAILURES", "probes.examples._FAILURES"):
        monkeypatch.setattr(f"otoscope.callbacks.{name}", 10**6)
    monkeypatch.setattr("otoscope.callbacks.ledger.TOGETHER", 4)
    monkeypatch.setattr("otoscope.callbacks.journal.TELL_SECONDS", 0.0)
    yield


def loss_of(model: nn.Module, batch: Any) -> torch.Tensor:
    return functional.cross_entropy(model(batch[0]), batch[1])


def loop(spool: Path | None, planter: Planter, steps: int | None) -> tuple[Any, int, Any]:
    """Train a plain loop until no error is left to plant, or so many steps."""
    seed()
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    recorder: Any = None
    if spool is not None:
        recorder = attach(
            model,
            optimizer,
            loss_fn=loss_of,
            probes=probes(),
            budget=1.0,
            spool=spool,
            verdict=False,
        )
    step = quiet = 0
    while quiet < QUIET_STEPS if steps is None else step < steps:
        before = len(planter.planted)
        if spool is not None:
            planter.arm()
        batch = torch.randn(8, 12), torch.randint(0, 3, (8,))
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(loss, 8, batch)
        planter.disarm()
        step += 1
        quiet = quiet + 1 if len(planter.planted) == before else 0
    if recorder is not None:
        recorder.finish()
    return model, step, recorder


def test_an_error_in_any_function_of_a_step_never_reaches_a_plain_loop(tmp_path: Path) -> None:
    planter = Planter(PUTS_BACK)
    watched, steps, recorder = loop(tmp_path, planter, None)
    bare, _, _ = loop(None, Planter(), steps)
    for key, value in bare.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key
    assert len(planter.planted) > 200, planter.planted
    assert sum(recorder.guard.failures.values()) > 100
    assert not any(module._forward_hooks for module in watched.modules())
    assert not torch.overrides._get_current_function_mode_stack()


def test_an_error_in_any_function_of_a_step_never_reaches_a_trainer(tmp_path: Path) -> None:
    planter = Planter(PUTS_BACK)

    class Planting(package(PACKAGES[0]).Callback):  # type: ignore[misc]
        quiet = before = 0

        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            self.quiet = self.quiet + 1 if len(planter.planted) == self.before else 0
            self.before = len(planter.planted)
            trainer.should_stop = self.quiet >= QUIET_STEPS
            planter.arm()

        def on_train_end(self, *args: Any) -> None:
            planter.disarm()

    callback = Otoscope(
        probes=[Gradients(every=1), System(every=1)], budget=1.0, spool=tmp_path, verdict=False
    )
    options = {"validate": False, "max_epochs": -1}
    trainer, watched = fit(PACKAGES[0], tmp_path, [Planting(), callback], **options)
    options["max_steps"] = trainer.global_step
    _, bare = fit(PACKAGES[0], tmp_path, [], **options)
    for key, value in bare.state_dict().items():
        assert torch.equal(value, watched.state_dict()[key]), key
    assert len(planter.planted) > 80, planter.planted


@pytest.mark.parametrize("part", ["beginning", "end"])
def test_an_error_in_any_function_of_the_rest_never_reaches_a_plain_loop(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planter = Planter()
    hook = LoopRecorder.hook

    def armed(self: LoopRecorder) -> None:
        if part == "beginning":
            planter.arm()
        hook(self)

    monkeypatch.setattr(LoopRecorder, "hook", armed)
    planted = -1
    while len(planter.planted) > planted:
        planted = len(planter.planted)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        recorder = attach(model, optimizer, probes=[System()], spool=tmp_path, verdict=False)
        planter.disarm()
        for _ in range(2):
            loss = model(torch.ones(4, 2)).square().mean()
            loss.backward()
            optimizer.step()
            recorder.step(loss, 4)
        if part == "end":
            planter.arm()
        recorder.finish()
        planter.disarm()
        if hasattr(recorder, "sender"):
            recorder.sender.close()  # the error may have been in there
    assert planted > 30, planter.planted
