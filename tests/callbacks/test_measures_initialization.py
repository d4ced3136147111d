"""The initialization report, against variances, gradients and fans that are computed apart."""

from __future__ import annotations

import math
import random

import pytest
import torch
from otoscope.callbacks.measures import LayerInit, initialization_report
from otoscope.callbacks.measures.weights import identical_rows
from otoscope.store import ConfigError
from torch import Tensor, nn
from torch.nn import functional as F


def deep(draw: str, activation: nn.Module, depth: int = 6, width: int = 256) -> nn.Sequential:
    """A deep net without biases, drawn as He et al. or Glorot and Bengio say, or as torch does."""
    modules: list[nn.Module] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(depth):
            layer = nn.Linear(width, width, bias=False)
            if draw == "he":
                nn.init.kaiming_normal_(layer.weight)
            elif draw == "xavier":
                nn.init.xavier_normal_(layer.weight)
            modules += [layer, activation]
    return nn.Sequential(*modules)


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_layer(report: list[LayerInit]) -> dict[str, LayerInit]:
    return {row.layer: row for row in report}


@pytest.mark.parametrize(
    ("draw", "activation", "gain"),
    [
        ("he", nn.ReLU(), 1.0),
        ("xavier", nn.Identity(), 1.0),
        ("xavier", nn.ReLU(), 1 / 2),
        ("default", nn.Identity(), 1 / 3),  # U(±1/√n) has variance 1/3n
        ("default", nn.ReLU(), 1 / 6),
    ],
)
def test_gains_are_those_that_theory_gives_for_a_way_of_drawing(draw, activation, gain):
    report = initialization_report(deep(draw, activation), drawn(512, 256))
    forward = [row.forward_gain for row in report[1:]]
    backward = [row.backward_gain for row in report[1:]]
    assert len(forward) == 5
    assert forward == pytest.approx([gain] * 5, rel=0.2)
    assert backward == pytest.approx([gain] * 5, rel=0.25)
    assert math.isnan(report[0].backward_gain)


def test_the_gains_of_all_layers_multiply_to_that_of_the_net():
    net, x = deep("default", nn.Tanh()), drawn(64, 256)
    report = initialization_report(net, x)
    with torch.no_grad():
        last = net[:-1](x).square().mean() / x.square().mean()
    assert math.prod(row.forward_gain for row in report) == pytest.approx(last.item(), rel=1e-4)
    rms = net[0](x).square().mean().sqrt().item()
    assert report[0].rms == pytest.approx(rms, rel=1e-5)


@pytest.mark.parametrize("inplace", [False, True])
def test_backward_gains_are_those_of_the_loss_whose_gradient_comes_back(inplace):
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace), nn.Linear(16, 4))
    x, y = drawn(32, 8), torch.arange(32) % 4

    def loss_fn(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(module(batch[0]), batch[1])

    report = initialization_report(net, (x, y), loss_fn=loss_fn)

    first = net[0](x)
    logits = net[2](first.relu())
    grads = torch.autograd.grad(F.cross_entropy(logits, y), [first, logits])
    expected = (grads[0].square().mean() / grads[1].square().mean()).item()
    assert report[1].backward_gain == pytest.approx(expected, rel=1e-5)


class Mixed(nn.Module):
    """A layer of every kind, one that runs twice, and one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.token = nn.Embedding(10, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.lstm = nn.LSTM(16, 12, batch_first=True)
        self.conv = nn.Conv1d(12, 6, 3, groups=2)
        self.up = nn.ConvTranspose1d(6, 8, 3, groups=2)
        self.twice = nn.Linear(8, 8)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.token(ids)
        h, _ = self.attention(h, h, h)
        h, _ = self.lstm(h)
        h = self.up(F.gelu(self.conv(h.transpose(1, 2)))).mean(-1)
        return self.twice(torch.tanh(self.twice(h)))


def test_every_kind_of_layer_is_named_in_the_order_in_which_it_runs():
    report = initialization_report(Mixed(), torch.arange(28).view(4, 7) % 10)
    assert [(row.layer, row.kind, row.activation) for row in report] == [
        ("token", "embedding", None),
        ("attention", "attention", None),
        ("lstm", "recurrent", None),
        ("conv", "conv", "gelu"),
        ("up", "conv", None),
        ("twice", "linear", "tanh"),
        ("unused", "linear", None),
        ("attention.out_proj", "linear", None),
    ]
    rows = by_layer(report)
    assert all(math.isnan(number) for number in (rows["unused"].rms, rows["unused"].forward_gain))
    assert rows["unused"].std > 0
    assert math.isnan(rows["token"].xavier_std)
    assert math.isnan(rows["token"].forward_gain)  # ids have no scale
    assert rows["conv"].proposed_std == rows["conv"].he_std
    assert rows["twice"].proposed_std == rows["twice"].xavier_std


FANS = {
    "attention": (16, 16),  # three projections of 16 × 16 in one matrix
    "lstm": (16, 12),  # four gates
    "conv": (6 * 3, 3 * 3),  # a group sees 6 of 12 and gives 3 of 6
    "up": (3 * 3, 4 * 3),
    "twice": (8, 8),
}


@pytest.mark.parametrize("layer", FANS)
def test_deviations_follow_from_what_a_unit_sees_and_what_sees_it(layer):
    row = by_layer(initialization_report(Mixed(), torch.zeros(2, 5, dtype=torch.long)))[layer]
    fan_in, fan_out = FANS[layer]
    assert row.he_std == pytest.approx(math.sqrt(2 / fan_in))
    assert row.xavier_std == pytest.approx(math.sqrt(2 / (fan_in + fan_out)))


@pytest.mark.parametrize("module", [nn.Linear(30, 20), nn.Conv2d(8, 24, 3), nn.Conv1d(6, 10, 5)])
def test_deviations_of_plain_layers_are_those_that_torch_draws_with(module):
    shape = (4, 30) if isinstance(module, nn.Linear) else (2, module.in_channels, 9, 9)
    x = drawn(*shape[: module.weight.ndim])
    row = initialization_report(module, x)[0]
    draws = torch.empty(400, *module.weight.shape)
    for init, said in (
        (nn.init.kaiming_normal_, row.he_std),
        (nn.init.xavier_normal_, row.xavier_std),
    ):
        torch.manual_seed(0)
        for weight in draws[:50]:
            init(weight)
        assert said == pytest.approx(draws[:50].std().item(), rel=0.02)
    assert row.std == pytest.approx(module.weight.std(correction=0).item(), rel=1e-5)


def test_gpt2s_linear_layer_is_read_with_inputs_first():
    from transformers.pytorch_utils import Conv1D

    row = initialization_report(Conv1D(20, 30), drawn(4, 30))[0]
    assert (row.kind, row.he_std) == ("linear", pytest.approx(math.sqrt(2 / 30)))


def test_rows_that_are_the_same_are_counted():
    rows = drawn(10, 7)
    assert float(identical_rows(rows)) == 0
    rows[[1, 5, 9]] = rows[0].clone()
    rows[3] = rows[2].clone()
    assert float(identical_rows(rows)) == pytest.approx(0.6)
    constant = nn.Linear(6, 4)
    nn.init.constant_(constant.weight, 0.1)
    assert initialization_report(constant, drawn(2, 6))[0].identical_rows == 1.0


def test_the_run_is_left_as_it_was():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2))
    net[3].requires_grad_(False)
    for p in net[0].parameters():
        p.grad = torch.ones_like(p)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    draws = torch.get_rng_state(), random.getstate()

    initialization_report(net, drawn(16, 4))

    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in net[0].parameters())
    assert torch.equal(torch.get_rng_state(), draws[0])
    assert random.getstate() == draws[1]
    assert not any(module._forward_hooks for module in net.modules())


def test_a_net_that_is_frozen_has_forward_gains_alone():
    report = initialization_report(
        deep("he", nn.ReLU(), depth=3).requires_grad_(False), drawn(8, 256)
    )
    assert all(math.isnan(row.backward_gain) for row in report)
    assert all(row.forward_gain > 0 for row in report)


class Named(nn.Module):
    """Takes keywords, returns a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, features: Tensor, *, decide: bool = False) -> dict[str, Tensor]:
        logits = self.layer(features)
        return {"classes": logits.argmax(-1)} if decide else {"logits": logits}


def test_mappings_are_keywords_and_of_a_tuple_the_first_is_the_input():
    x, net = drawn(5, 3), Named()
    ways = [{"features": x}, x, (x, torch.zeros(5)), [x]]
    assert len({repr(initialization_report(net, way)) for way in ways}) == 1


@pytest.mark.parametrize(
    ("net", "batch", "said"),
    [
        (nn.BatchNorm1d(3), torch.ones(2, 3), "no weights of two or more dimensions"),
        (nn.LazyLinear(3), torch.ones(2, 3), "is lazy"),
        (Named(), {"features": torch.ones(2, 3), "decide": True}, r"give loss_fn\(module, batch\)"),
    ],
)
def test_what_has_nothing_to_report_says_so(net, batch, said):
    with pytest.raises(ConfigError, match=said):
        initialization_report(net, batch)
