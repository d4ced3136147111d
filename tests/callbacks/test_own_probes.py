"""A reader's own probes: `watch` looks at a module and never gets in the way of the training."""

from __future__ import annotations

import copy
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Gradients, Probe, System, Training, attach
from otoscope.callbacks.options import Options
from otoscope.callbacks.sampling import chosen_probes, default_probes
from otoscope.store import Column, ConfigError
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.callbacks.fits import recorded


class Peak(Probe):
    """The largest output of the first linear layer, and how often it was looked at."""

    def __init__(self, every: int | None = 2, fails: bool = False) -> None:
        super().__init__(every=every)
        self.family, self.fails = "peaks", fails

    def attach(self, training: Training) -> list[Column]:
        self.module = next(m for m in training.model.modules() if isinstance(m, nn.Linear))
        return [Column.of("peak"), Column.of("calls")]

    def arm(self, step: int) -> None:
        self.peak, self.calls = torch.tensor(0.0), 0
        self.watch(self.module, self.look)

    def look(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        assert not torch.is_grad_enabled()
        if self.fails:
            raise RuntimeError("planted in look")
        self.peak, self.calls = output.abs().max(), self.calls + 1

    def sample(self, step: int) -> list[float]:
        return [float(self.peak), float(self.calls)]


class Block(nn.Module):
    def __init__(self, recomputes: bool = False) -> None:
        super().__init__()
        self.inner, self.recomputes = nn.Linear(4, 4), recomputes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.recomputes:
            return checkpoint(self.body, x, use_reentrant=False)  # type: ignore[return-value]
        return self.body(x)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).tanh()


def train(where: Path, probes: list[Any] | None, *, steps: int = 4, **options: Any) -> Any:
    torch.manual_seed(8)
    model = Block(**options)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder: Any = None
    if probes is not None:
        recorder = attach(model, optimizer, probes=probes, spool=where, verdict=False)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 4)).square().mean()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(loss, 8)
    if recorder is not None:
        recorder.finish()
    return model, recorder


@pytest.mark.parametrize("recomputes", [False, True])
def test_a_watched_module_is_looked_at_once_a_sampled_step_and_nothing_changes(
    recomputes: bool, tmp_path: Path
) -> None:
    bare, _ = train(tmp_path, None, recomputes=recomputes)
    model, recorder = train(tmp_path, [Peak()], recomputes=recomputes)
    for a, b in zip(bare.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "peaks")
    assert series.steps.tolist() == [1, 3]
    assert series.column("calls").tolist() == [1, 1]
    assert (series.column("peak") > 0).all()
    assert not any(module._forward_hooks for module in model.modules())


def test_what_it_raises_is_the_sample_s_affair_and_not_the_training_s(tmp_path: Path) -> None:
    bare, _ = train(tmp_path, None)
    model, recorder = train(tmp_path, [Peak(every=1, fails=True)])
    assert torch.equal(bare.inner.weight, model.inner.weight)
    store = recorded(tmp_path, recorder.run_id)
    off = [e.body for e in store.events(recorder.run_id) if e.kind == "probe_off"]
    assert [body["probe"] for body in off] == ["peak"]
    assert "planted in look" in str(off[0]["why"])
    assert len(store.read(recorder.run_id, "peaks")) == 0


def test_the_model_can_be_copied_and_pickled_while_it_is_watched() -> None:
    model, probe = Block(), Peak()
    probe.attach(Training(model, []))
    probe.arm(1)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        twin(torch.ones(2, 4))
    assert probe.calls == 0
    model(torch.ones(2, 4))
    assert probe.calls == 1
    probe.unwatch()


def test_a_list_of_probes_may_hold_a_set_and_what_replaces_a_part_of_it() -> None:
    own = Gradients(every=7)
    chosen = {probe.name: probe for probe in chosen_probes(["default", own, Peak()])}
    assert set(chosen) == {probe.name for probe in default_probes("default")} | {"peak"}
    assert chosen["gradients"].every == 7 and chosen["gradients"] is not own
    assert [probe.name for probe in chosen_probes([System()])] == ["system"]
    Options(probes=["default", own])
    for wrong in (["none"], [Peak], ["default", "default"]):
        with pytest.raises(ConfigError):
            Options(probes=wrong)  # type: ignore[arg-type]


class Unaffordable(Probe):
    def __init__(self) -> None:
        super().__init__()
        self.family, self.dear, self.first, self.guess = "unaffordable", True, 6, 1e6

    def attach(self, training: Training) -> list[Column]:
        return [Column.of("nothing")]

    def sample(self, step: int) -> list[float]:
        raise AssertionError("nobody could pay for this")


def test_no_batch_is_kept_for_a_probe_that_cannot_be_paid(tmp_path: Path) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    with attach(
        model, optimizer, probes=[Unaffordable()], spool=tmp_path, strict=True, verdict=False
    ) as recorder:
        for _ in range(12):
            batch = torch.randn(8, 4)
            alive.append(weakref.ref(batch))
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss, batch=batch)
            del loss, batch
            most = max(most, sum(ref() is not None for ref in alive))
        assert most == 4  # they were kept while it was about to sample
        assert not [ref for ref in alive if ref() is not None]
