"""Attention entropy and effective rank on live steps, against computations of their own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks import Activations, attach
from otoscope.callbacks.measures import effective_rank
from otoscope.callbacks.probes.attended import attended
from otoscope.callbacks.probes.collapse import Ranks
from torch import Tensor, nn
from torch.nn import functional

from tests.callbacks.fits import recorded

B, T, E, HEADS = 6, 9, 16, 4
CAUSAL = torch.ones(T, T, dtype=torch.bool).triu(1)


class Net(nn.Module):
    """Attention as a module, then as a function, then a layer that has collapsed."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(E, HEADS, dropout=0.2, batch_first=True, **options)
        self.project, self.flat = nn.Linear(E, 3 * E), nn.Linear(E, 24)
        with torch.no_grad():
            self.attend.in_proj_weight.mul_(3)
            self.flat.weight.copy_(self.flat.weight[:1].clone().expand(24, E))
            self.flat.bias.zero_()
        self.seen: dict[str, Tensor] = {}
        self.masks: dict[str, Any] = {}

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attend(x, x, x, need_weights=False, **self.masks)
        parts = self.project(y).unflatten(-1, (3, HEADS, -1)).transpose(1, 3).unbind(2)
        self.seen = {"x": x, "query": parts[0], "key": parts[1]}
        z = functional.scaled_dot_product_attention(*parts, is_causal=True, dropout_p=0.1)
        return self.flat(z.transpose(1, 2).flatten(2))


def entropies(logits: Tensor, visible: Tensor) -> tuple[float, float]:
    """Return mean normalised entropy and largest logit of [heads, T, T], row by row."""
    shares, largest = [], -math.inf
    for head in logits:
        for row, seen in zip(head.tolist(), visible.tolist(), strict=True):
            kept = [value for value, shown in zip(row, seen, strict=True) if shown]
            if len(kept) < 2:
                continue
            top = max(kept)
            weights = [math.exp(value - top) for value in kept]
            p = [w / sum(weights) for w in weights]
            shares.append(-sum(q * math.log(q) for q in p if q) / math.log(len(kept)))
            largest = max(largest, top)
    return sum(shares) / len(shares), largest


def train(where: Path, model: nn.Module, *, watch: bool, steps: int, **settings: Any) -> Any:
    torch.manual_seed(3)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    recorder: Any = None
    if watch:
        probes = [Activations(every=1)]
        recorder = attach(
            model, optimizer, probes=probes, spool=where, strict=True, verdict=False, **settings
        )
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(B, T, E)).square().mean()
        loss.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(loss, B)
    if recorder is not None:
        recorder.finish()
    return recorder


@pytest.mark.parametrize("padded", [False, True])
def test_attention_modules_and_functions_tell_their_entropy(padded: bool, tmp_path: Path) -> None:
    model = Net()
    visible = torch.ones(T, T, dtype=torch.bool)
    if padded:
        padding = torch.zeros(B, T, dtype=torch.bool)
        padding[0, -3:] = True
        model.masks = {"attn_mask": CAUSAL, "key_padding_mask": padding}
        visible = ~CAUSAL & ~padding[0]
    attend = model.attend
    weight, bias = attend.in_proj_weight.detach().clone(), attend.in_proj_bias.detach().clone()
    recorder = train(tmp_path, model, watch=True, steps=1)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "activations")

    x = model.seen["x"][0].detach()
    query, key = (
        (x @ weight[i * E : (i + 1) * E].T + bias[i * E : (i + 1) * E]).unflatten(-1, (HEADS, -1))
        for i in (0, 1)
    )
    logits = torch.einsum("qhe,khe->hqk", query, key) / math.sqrt(E // HEADS)
    entropy, largest = entropies(logits, visible)
    assert series.column("entropy/attend")[0] == pytest.approx(entropy, rel=1e-4)
    assert series.column("max_logit/attend")[0] == pytest.approx(largest, rel=1e-4)

    query, key = model.seen["query"][0].detach(), model.seen["key"][0].detach()
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    entropy, largest = entropies(logits, ~torch.ones(logits.shape[-2:]).triu(1).bool())
    name = "(model)"
    assert series.column(f"entropy/{name}")[0] == pytest.approx(entropy, rel=1e-4)
    assert series.column(f"max_logit/{name}")[0] == pytest.approx(largest, rel=1e-4)


def test_looking_at_attention_and_ranks_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    ends = []
    for watch in (False, True):
        torch.manual_seed(1)
        model = Net()
        train(tmp_path, model, watch=watch, steps=11)
        weights = [p.detach().reshape(-1) for p in model.parameters()]
        ends.append(torch.cat([*weights, torch.get_rng_state().float()]))
    assert torch.equal(*ends)


def test_a_collapsed_layer_shows_in_its_effective_rank_every_eighth_sample(
    tmp_path: Path,
) -> None:
    model = Net()
    outputs: list[Tensor] = []
    model.flat.register_forward_hook(lambda m, i, output: outputs.append(output.detach()))
    recorder = train(tmp_path, model, watch=True, steps=11)
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "activations")
    ranks = series.column("effective_rank/flat")
    assert [i + 1 for i in range(11) if math.isfinite(ranks[i])] == [2, 10]
    want = effective_rank(outputs[1], rows=64)
    assert ranks[1] == pytest.approx(float(want), rel=1e-4)
    assert ranks[1] < 1.5 / 24 < 0.15 < series.column("effective_rank/project")[1]


@pytest.mark.parametrize("extra", [{}, {"add_bias_kv": True, "add_zero_attn": True}, {"kdim": 10}])
def test_every_shape_of_multi_head_attention_is_projected_as_it_does_itself(
    extra: dict[str, Any],
) -> None:
    torch.manual_seed(4)
    layer = nn.MultiheadAttention(E, HEADS, **extra)
    if extra.get("kdim"):
        layer = nn.MultiheadAttention(E, HEADS, kdim=10, vdim=10)
    x, y = torch.randn(T, B, E), torch.randn(T + 2, B, extra.get("kdim", E))
    mask = torch.zeros(B * HEADS, T, T + 2).masked_fill(
        torch.rand(B * HEADS, T, T + 2) < 0.3, -math.inf
    )
    caught: list[Any] = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            if func is functional.multi_head_attention_forward:
                caught.append(attended(func, args, kwargs or {}))
            return func(*args, **(kwargs or {}))

    with Mode():
        _, weights = layer(x, y, y, attn_mask=mask, average_attn_weights=False)
    shares = []
    for row in weights[0].detach().flatten(0, 1):
        p = row[row > 0].double()
        if len(p) > 1:
            shares.append(float(-(p * p.log()).sum() / math.log(len(p))))
    assert float(caught[0].entropy) == pytest.approx(sum(shares) / len(shares), rel=1e-4)


def test_a_mask_of_truth_values_hides_where_it_is_true() -> None:
    torch.manual_seed(4)
    layer, x = nn.MultiheadAttention(E, HEADS), torch.randn(T, B, E)
    args = (x, x, x, E, HEADS, layer.in_proj_weight, layer.in_proj_bias)
    found = [
        attended(functional.multi_head_attention_forward, args, {"attn_mask": mask})
        for mask in (CAUSAL, torch.zeros(T, T).masked_fill(CAUSAL, -math.inf), None)
    ]
    told = [float(one.entropy) for one in found if one is not None]
    assert told[0] == told[1] != told[2]


def test_what_is_no_attention_that_can_be_read_is_passed_by() -> None:
    wide, narrow = torch.zeros(2, 3, 5, 4), torch.zeros(3, 2, 5, 4)
    assert attended(functional.scaled_dot_product_attention, (wide, narrow, narrow), {}) is None


def test_many_layers_take_turns() -> None:
    ranks = Ranks(parameters=1000)
    seen: list[set[int]] = []
    for sample in range(40):
        ranks.begin()
        for row in range(20):
            ranks.see(row, torch.randn(80, 64), False)
        found = ranks.found()
        assert bool(found) == (sample % 8 == 1)
        seen.append(set(found))
    turns = [rows for rows in seen if rows]
    assert [len(rows) for rows in turns] == [8, 8, 8, 8, 8]
    assert turns[0] | turns[1] | turns[2] == set(range(20))
