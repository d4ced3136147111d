"""The gradient tap where a backward pass ends otherwise than it should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from otoscope.callbacks.probes.tap import GradientTap
from torch import nn


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of memory")


def test_averaged_gradients_are_measured_again_after_a_backward_pass_that_broke() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    tap = GradientTap(list(net.parameters()))
    tap.averaged = True
    tap.listen()
    tap.arm()
    with pytest.raises(RuntimeError, match="out of memory"):  # a loop may go on behind it
        net[1](Broken.apply(net[0](torch.ones(3, 2)))).sum().backward()
    net.zero_grad()
    tap.arm()
    net(torch.ones(3, 2)).sum().backward()
    assert tap.measured
    expected = [float(p.grad.square().sum()) for p in net.parameters() if p.grad is not None]
    torch.testing.assert_close(tap.squares().float(), torch.tensor(expected), rtol=1e-5, atol=0)
    tap.close()
