"""What ranks share beside the run: steps to sample at, shards, the wait for the slowest."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from otoscope.callbacks.budget import Budget
from otoscope.callbacks.claim import aligned
from otoscope.callbacks.probes.probe import Training
from otoscope.callbacks.probes.throughput import Step, Throughput
from otoscope.callbacks.shards import local, shares
from otoscope.callbacks.waiting import LEARNT_AFTER, Waiting
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def test_ranks_of_unequal_pace_sample_at_steps_in_common() -> None:
    sampled = []
    for step_seconds in (0.0075, 0.0125):  # a sample pays for itself in 5 steps, or in 3
        budget = Budget(0.02)
        budget.claim("shards", aligned=True)
        steps = []
        for step in range(1, 3001):
            if budget.due(step):
                steps.append(step)
                budget.paid("shards", 0.0007, step)
            budget.stepped(step_seconds, 0.0)
        sampled.append(set(steps))
    fast, slow = sampled
    assert fast != slow
    common = len(fast & slow)
    assert common > 100
    assert common >= 0.9 * min(len(fast), len(slow))
    assert [aligned(step, 1) for step in (1, 2, 3)] == [2, 3, 4]


class Shard:
    """What torch tells of a DTensor, without a process group."""

    def __init__(self, mesh: tuple[int, ...], kinds: str) -> None:
        self.device_mesh = self
        self.mesh = mesh
        self.placements = [self.Placement(kind) for kind in kinds]

    def size(self, axis: int | None = None) -> int:
        return int(np.prod(self.mesh)) if axis is None else self.mesh[axis]

    class Placement:
        def __init__(self, kind: str) -> None:
            self.kind = kind

        def is_partial(self) -> bool:
            return self.kind == "P"

        def is_replicate(self) -> bool:
            return self.kind == "R"


def test_what_several_ranks_hold_alike_counts_once_over_all_of_them() -> None:
    tensors = [
        Shard((8,), "S"),  # one shard a rank
        Shard((2, 4), "RS"),  # hybrid: two copies of four shards
        Shard((4,), "S"),  # a mesh of half of the ranks, and another like it
        Shard((8,), "R"),
        torch.ones(2),  # left out of the sharding
        Shard((8,), "P"),
    ]
    found = shares(tensors, 8)  # type: ignore[arg-type]
    assert found[:5] == [1.0, 0.5, 0.5, 0.125, 0.125]
    assert np.isnan(found[5])
    assert local(torch.ones(3, requires_grad=True)).requires_grad is False


def test_the_wait_is_measured_from_the_gradient_that_comes_last() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    waiting = Waiting(list(net.parameters()))

    def step(module: nn.Module, x: torch.Tensor, pause: float = 0.0) -> float:
        module(x).sum().backward()
        time.sleep(pause)  # what the other ranks take
        waiting.backward_ended()
        waiting.backward_ended()  # an optimizer tells it again
        seconds = waiting.close_step()
        assert isinstance(seconds, float)
        return seconds

    x = torch.ones(4, 2)
    for _ in range(LEARNT_AFTER):
        step(net, x)
    first = [parameter._backward_hooks for parameter in net[0].parameters()]
    last = [parameter._backward_hooks for parameter in net[2].parameters()]
    assert any(first)
    assert not any(last)  # they come first in a backward pass, and are let go
    assert step(net, x, 0.02) >= 0.02
    assert np.isnan(step(net[2], torch.ones(4, 3)))  # nobody listens there any more
    assert step(net[2], torch.ones(4, 3), 0.02) >= 0.02
    waiting.close()
    assert not any(parameter._backward_hooks for parameter in net.parameters())


def test_what_a_forward_pass_takes_to_make_buffers_alike_is_waiting_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(wrapper: object) -> str:
        time.sleep(0.02)  # the slowest rank comes
        return "synced"

    monkeypatch.setattr(DistributedDataParallel, "_sync_buffers", slow)
    net = nn.Linear(2, 1)
    waiting, other = Waiting(list(net.parameters())), Waiting([])
    wrapper = object.__new__(DistributedDataParallel)

    def step(grad: bool) -> float:
        with torch.set_grad_enabled(grad):
            assert wrapper._sync_buffers() == "synced"
        net(torch.ones(4, 2)).sum().backward()
        waiting.backward_ended()
        seconds = waiting.close_step()
        assert isinstance(seconds, float)
        return seconds

    assert step(grad=True) >= 0.02
    assert step(grad=False) < 0.02  # a validation's forward pass is no part of a step
    waiting.close()
    assert DistributedDataParallel._sync_buffers is not slow
    kept = DistributedDataParallel._sync_buffers
    other.close()
    assert DistributedDataParallel._sync_buffers is slow
    assert kept(wrapper) == "synced"  # whoever kept it can go on with it


class Event:
    """What torch tells of an event on a GPU's stream; the clock is the test's own."""

    now = 0.0
    through = True

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = math.nan

    def record(self) -> None:
        self.at = Event.now

    def query(self) -> bool:
        return Event.through

    def elapsed_time(self, end: Event) -> float:
        return end.at - self.at


def test_on_a_gpu_the_wait_is_read_once_the_device_is_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    net = nn.Linear(2, 1)
    waiting = Waiting(list(net.parameters()))
    waiting._on_device = True
    net(torch.ones(1, 2)).sum().backward()
    Event.now += 30.0  # milliseconds, as events tell them
    waiting.backward_ended()
    seconds = waiting.close_step()
    assert callable(seconds)
    monkeypatch.setattr(Event, "through", False)
    assert math.isnan(seconds())
    monkeypatch.setattr(Event, "through", True)
    assert seconds() == pytest.approx(0.030)


def test_waits_that_are_known_later_come_into_the_rows_that_they_belong_to() -> None:
    net = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    throughput = Throughput()
    columns = throughput.attach(Training(net, [optimizer], world_size=2))
    place = [column.name for column in columns].index("wait_seconds")
    rows = []
    for i in range(3):
        on_device = i != 1  # the loss of the second step is a number already
        losses = [torch.tensor(1.0)] if on_device else [1.0]
        later = Step(losses, wait_seconds=(lambda i=i: i / 10) if on_device else 0.7)
        row, late = throughput.row(later, [0.1])
        rows.append((np.array(row, np.float32), late))
    for values, late in rows:
        if late:
            throughput.fill(values, [tensor.numpy() for tensor in late])
    assert [round(float(values[place]), 3) for values, _ in rows] == [0.0, 0.7, 0.2]
