"""The curvature probe where it cannot measure: it says why, lets go of everything, and the run goes on."""

from __future__ import annotations

import gc
import math
import sys
import weakref

import pytest
import torch
from otoscope.callbacks.probes.curvature import Curvature
from otoscope.callbacks.probes.probe import ProbeOffError
from otoscope.callbacks.undisturbed import CollectiveError
from otoscope.store import ConfigError
from torch import Tensor

from tests.callbacks.by_hand import Fit, cross_entropy


def test_sampling_changes_nothing_of_the_run():
    fit = Fit()
    for p in fit.model.parameters():
        p.grad = torch.ones_like(p)
    before = {k: v.clone() for k, v in fit.model.state_dict().items()}
    states = torch.get_rng_state()
    modes = [m.training for m in fit.model.modules()]

    fit.sample(Curvature(k=2))

    assert all(torch.equal(before[k], v) for k, v in fit.model.state_dict().items())
    assert torch.equal(states, torch.get_rng_state())
    assert modes == [m.training for m in fit.model.modules()]
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in fit.model.parameters())


def test_without_pyhessian_its_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyhessian", None)
    with pytest.raises(ProbeOffError, match=r"otoscope\[lightning\]"):
        Curvature(engine="pyhessian").attach(Fit().training())


@pytest.mark.parametrize(
    ("error", "samples"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 64),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 64),
        (MemoryError(), 64),
        (ValueError("expected two batches"), 128),
    ],
    ids=["device", "host", "python", "other"],
)
def test_the_first_failure_is_told_with_its_reason_and_too_little_memory_halves_the_samples(
    error, samples
):
    fit, notes = Fit(), []

    def failing(model, batch):
        raise error

    probe = Curvature()
    probe.attach(fit.training(failing, note=notes.append))
    assert math.isnan(probe.sample(20)[0])
    probe.sample(40)
    assert len(notes) == 1
    assert type(error).__name__ in notes[0]
    assert str(error) in notes[0]
    assert probe.samples == samples / (2 if samples == 64 else 1)


def test_a_gradient_that_is_not_finite_is_told():
    fit, notes = Fit(), []
    next(iter(fit.model.parameters())).data.fill_(math.nan)
    fit.sample(Curvature(), fit.training(note=notes.append))
    assert notes == [
        "curvature could not be measured: FloatingPointError: the loss or its gradient is not finite"
    ]


def test_graphs_of_a_failed_sample_are_gone():
    fit = Fit()
    seen: list[weakref.ref[Tensor]] = []

    def failing(model, batch):
        loss = cross_entropy(model, batch)
        seen.append(weakref.ref(loss))
        if len(seen) == 3:
            raise RuntimeError("in the third batch")
        return loss

    probe = Curvature()
    probe.attach(fit.training(failing))
    probe.sample(20)
    gc.collect()
    assert [ref() for ref in seen] == [None, None, None]


def test_a_loss_that_fails_gives_nan_and_the_third_time_switches_the_probe_off():
    fit = Fit()

    def broken(model, batch):
        raise RuntimeError("no second derivative here")

    probe = Curvature()
    probe.attach(fit.training(broken))
    assert math.isnan(probe.sample(20)[0])
    assert math.isnan(probe.sample(40)[0])
    with pytest.raises(ProbeOffError, match=r"3 times in a row.*no second derivative here"):
        probe.sample(60)


def test_a_success_between_starts_the_count_of_failures_anew():
    fit = Fit()
    fail = [True, True, False, True, True, True]

    def sometimes(model, batch):
        if fail[0]:
            raise RuntimeError("out of memory")
        return cross_entropy(model, batch)

    probe = Curvature()
    probe.attach(fit.training(sometimes))
    for expected in (True, True, False, True, True):
        assert math.isnan(probe.sample(20)[0]) == expected
        fail.pop(0)
    with pytest.raises(ProbeOffError):
        probe.sample(20)


def test_weights_that_are_not_finite_give_nan():
    fit = Fit()
    next(iter(fit.model.parameters())).data.fill_(math.nan)
    assert math.isnan(fit.sample(Curvature())["lambda_1"])


def test_a_collective_within_the_loss_switches_the_probe_off_at_once():
    def gathering(model, batch):
        raise CollectiveError("the loss calls torch.distributed.all_gather")

    probe = Curvature()
    probe.attach(Fit().training(gathering))
    with pytest.raises(ProbeOffError, match="all_gather"):
        probe.sample(20)


def test_where_it_cannot_work_it_says_why_from_the_start():
    fit = Fit()
    with pytest.raises(ProbeOffError, match="manual"):
        Curvature().attach(fit.training(None, why_no_loss="manual optimization"))
    with pytest.raises(ProbeOffError, match="sharded"):
        Curvature().attach(fit.training(sharded=True))
    fit.model.bfloat16()
    probe = Curvature()
    probe.attach(fit.training())
    with pytest.raises(ProbeOffError, match="bfloat16"):
        probe.sample(20)


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="k=0"):
        Curvature(k=0)
