"""Attention calls: the queries and keys behind them, and what a few queries look at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ...store import Column, ConfigError
from ..measures.attention import Attention, attention_entropy

ATTENTIONS = (F.scaled_dot_product_attention, F.multi_head_attention_forward)
"""The functions that attention goes through; a softmax written out by hand is not seen."""

_SDPA = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_MHA = (
    *("query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight"),
    *("in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight"),
    *("out_proj_bias", "training", "key_padding_mask", "need_weights", "attn_mask"),
    *("use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
)


@dataclass(slots=True)
class Attended:
    """A module in whose forward pass attention is called, and what its calls of a sample told."""

    path: str
    calls: list[Attention] = field(default_factory=list)

    @property
    def columns(self) -> list[Column]:
        """Return the columns of its numbers."""
        return [Column.of(name, layer=self.path) for name in ("entropy", "max_logit")]

    def tell(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean entropy and largest logit over the calls of a sample; NaN without any."""
        if not self.calls:
            nothing = torch.full((), math.nan, device=device)
            return nothing, nothing
        entropy = torch.stack([call.entropy for call in self.calls]).nanmean()
        logits = torch.stack([call.max_logit for call in self.calls])
        largest = torch.where(logits.isnan(), -math.inf, logits).amax()
        return entropy, torch.where(logits.isnan().all(), math.nan, largest)


def attended(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Attention | None:
    """Return what a call of one of ATTENTIONS attends to, of its first example and 16 queries.

    None for what cannot be read: nested tensors, shapes of no known attention. No random state is
    touched, autocast is off, and nothing is waited for.
    """
    names = _SDPA if func is F.scaled_dot_product_attention else _MHA
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    query, key = given["query"], given["key"]
    for tensor in (query, key):
        if tensor.is_nested or tensor.device.type == "meta" or tensor.ndim < 2:
            return None
    try:
        with torch.autocast(query.device.type, enabled=False):
            if names is _SDPA:
                return _of_heads(query, key, given)
            return _of_projections(query, key, given)
    except ConfigError:  # shapes that broadcast in a way of their own
        return None


def _of_heads(query: Tensor, key: Tensor, given: Mapping[str, Any]) -> Attention:
    if query.ndim == 2:
        query, key = query[None], key[None]
    return attention_entropy(
        query,
        key,
        mask=given.get("attn_mask"),
        causal=bool(given.get("is_causal")),
        scale=given.get("scale"),
    )


def _of_projections(query: Tensor, key: Tensor, given: Mapping[str, Any]) -> Attention:
    """Project the first example of multi-head attention; query [L, B, E] or [L, E]."""
    if query.ndim == 2:
        query, key = query[:, None], key[:, None]
    heads, width = given["num_heads"], query.shape[-1]
    if given.get("use_separate_proj_weight"):
        weights = given["q_proj_weight"], given["k_proj_weight"]
    else:
        weights = given["in_proj_weight"][:width], given["in_proj_weight"][width : 2 * width]
    bias = given.get("in_proj_bias")
    biases = (
        (None, None) if bias is None else (bias[:width].float(), bias[width : 2 * width].float())
    )
    queries = F.linear(query[:, 0].float(), weights[0].float(), biases[0])
    keys = F.linear(key[:, 0].float(), weights[1].float(), biases[1])
    mask = _mask(given, heads, len(queries), len(keys))
    if given.get("bias_k") is not None:
        keys = torch.cat([keys, given["bias_k"].reshape(1, -1).float()])
    if given.get("add_zero_attn"):
        keys = torch.cat([keys, keys.new_zeros(1, keys.shape[1])])
    if mask is not None:  # what was added to the keys is seen by all
        mask = F.pad(mask, (0, len(keys) - mask.shape[-1]))
    split = [x.unflatten(-1, (heads, -1)).transpose(0, 1)[None] for x in (queries, keys)]
    return attention_entropy(*split, mask=mask)


def _mask(given: Mapping[str, Any], heads: int, rows: int, columns: int) -> Tensor | None:
    """Return what is added to the logits of the first example, [1, 1 or heads, L, S]."""
    found: list[Tensor] = []
    attention, padding = given.get("attn_mask"), given.get("key_padding_mask")
    if attention is not None:
        one = attention[:heads] if attention.ndim == 3 else attention[None]
        found.append(_added(one)[None].expand(1, -1, rows, columns))
    if padding is not None:
        one = padding if padding.ndim == 1 else padding[0]
        found.append(_added(one)[None, None, None].expand(1, 1, rows, columns))
    return sum(found[1:], found[0]) if found else None


def _added(mask: Tensor) -> Tensor:
    """Return a mask of multi-head attention as numbers to add: where it is True nothing is seen."""
    if mask.dtype != torch.bool:
        return mask.float()
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(mask, -math.inf)
