"""Attention entropy, against the weights that are formed in full."""

from __future__ import annotations

import math

import pytest
import torch
from otoscope.callbacks.measures import attention_entropy
from otoscope.store import ConfigError
from torch import Tensor

B, H, L, S, E = 3, 2, 6, 6, 4


def tensors(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        2 * torch.randn(B, H, L, E, generator=generator),
        2 * torch.randn(B, H, S, E, generator=generator),
    )


def in_full(
    query: Tensor, key: Tensor, visible: Tensor, bias: Tensor | float = 0.0, scale: float = 0.5
) -> tuple[float, float]:
    """Entropy and largest logit over all queries [H, L, E] of an example, one by one."""
    shares, largest = [], []
    for h in range(H):
        for q in range(L):
            seen = visible.expand(H, L, S)[h, q]
            if int(seen.sum()) < 2:
                continue
            logits = (scale * (key[h] @ query[h, q]) + torch.as_tensor(bias).expand(H, L, S)[h, q])[
                seen
            ].double()
            weights = logits.exp() / logits.exp().sum()
            shares.append(-float((weights * weights.log()).sum()) / math.log(int(seen.sum())))
            largest.append(float(logits.max()))
    return sum(shares) / len(shares), max(largest)


@pytest.mark.parametrize("example", [0, 2])
def test_all_queries_of_an_example_agree_with_the_weights_in_full(example):
    query, key = tensors()
    found = attention_entropy(query, key, example=example)
    entropy, largest = in_full(query[example], key[example], torch.ones(L, S, dtype=torch.bool))
    assert found.entropy.item() == pytest.approx(entropy, rel=1e-5)
    assert found.max_logit.item() == pytest.approx(largest, rel=1e-5)


def test_what_a_causal_mask_hides_is_not_counted():
    query, key = tensors(1)
    visible = torch.ones(L, S, dtype=torch.bool).tril()
    expected = in_full(query[0], key[0], visible)
    as_flag = attention_entropy(query, key, causal=True)
    as_mask = attention_entropy(query, key, mask=visible)
    as_bias = attention_entropy(query, key, mask=torch.zeros(L, S).masked_fill(~visible, -math.inf))
    for found in (as_flag, as_mask, as_bias):
        assert (found.entropy.item(), found.max_logit.item()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("hidden", [-math.inf, torch.finfo(torch.float32).min])
def test_a_padding_mask_hides_keys_of_its_own_example_only(hidden):
    query, key = tensors(2)
    pads = torch.tensor([6, 4, 3])
    visible = torch.arange(S) < pads[:, None]
    mask = torch.zeros(B, 1, 1, S).masked_fill(~visible[:, None, None], hidden)
    for example in range(B):
        found = attention_entropy(query, key, mask=mask, example=example)
        expected = in_full(query[example], key[example], visible[example])
        assert (found.entropy.item(), found.max_logit.item()) == pytest.approx(expected, rel=1e-5)


def test_a_bias_is_part_of_the_logits():
    query, key = tensors(3)
    bias = torch.randn(H, L, S, generator=torch.Generator().manual_seed(9))
    found = attention_entropy(query, key, mask=bias, scale=0.3)
    expected = in_full(query[0], key[0], torch.ones(L, S, dtype=torch.bool), bias, scale=0.3)
    assert (found.entropy.item(), found.max_logit.item()) == pytest.approx(expected, rel=1e-5)


def test_looking_at_all_alike_is_one_and_at_one_alone_is_zero():
    alike = torch.ones(1, 1, 32, 8)
    assert attention_entropy(alike, alike).entropy.item() == pytest.approx(1.0)
    alone = 100 * torch.eye(32)[None, None]
    assert attention_entropy(alone, alone).entropy.item() == pytest.approx(0.0, abs=1e-6)


def test_grouped_queries_share_their_keys():
    generator = torch.Generator().manual_seed(4)
    query = torch.randn(1, 4, L, E, generator=generator)
    key = torch.randn(1, 2, S, E, generator=generator)
    grouped = attention_entropy(query, key)
    spelled_out = attention_entropy(query, key.repeat_interleave(2, 1))
    assert torch.equal(torch.stack(grouped), torch.stack(spelled_out))


def test_three_dimensions_are_one_head():
    query, key = (tensor[:, 0] for tensor in tensors(5))
    mask = torch.ones(B, L, S, dtype=torch.bool).tril()
    found = attention_entropy(query, key, mask=mask, example=1)
    expected = attention_entropy(query[:, None], key[:, None], causal=True, example=1)
    assert torch.equal(torch.stack(found), torch.stack(expected))


def test_sampled_queries_are_spread_and_no_random_state_is_touched():
    query, key = torch.zeros(1, 1, 160, 1), torch.zeros(1, 1, 160, 1)
    query[0, 0, :, 0] = torch.arange(160)
    key[0, 0, 7] = 1.0
    before = torch.get_rng_state()
    found = attention_entropy(query, key, queries=16, scale=1.0)
    assert found.max_logit.item() == 155.0  # the middle of the last of 16 stretches
    assert torch.equal(torch.get_rng_state(), before)


def test_half_precision_does_not_overflow():
    query = torch.full((1, 1, 4, 64), 60.0, dtype=torch.float16)  # 64 · 3,600 is beyond float16
    found = attention_entropy(query, query)
    assert found.max_logit.item() == pytest.approx(28_800)
    assert found.entropy.item() == pytest.approx(1.0)


def test_where_no_query_sees_two_keys_there_is_no_entropy():
    found = attention_entropy(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4))
    assert math.isnan(found.entropy.item())
    assert math.isnan(found.max_logit.item())
    nothing = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    hidden = attention_entropy(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4), mask=nothing)
    assert math.isnan(hidden.entropy.item())


@pytest.mark.parametrize(
    ("query", "key", "asked", "said"),
    [
        ((2, 4), (2, 4), {}, "must be"),
        ((1, 2, 4, 8), (1, 2, 4, 6), {}, "must be"),
        ((1, 3, 4, 8), (1, 2, 4, 8), {}, "must be"),
        ((1, 2, 4, 8), (1, 2, 4, 8), {"queries": 0}, "must be"),
        ((1, 2, 4, 8), (1, 2, 4, 8), {"mask": torch.ones(3, 3)}, "broadcastable"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(query, key, asked, said):
    with pytest.raises(ConfigError, match=said):
        attention_entropy(torch.ones(query), torch.ones(key), **asked)
