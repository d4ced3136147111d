"""Proposals: every kind of value that a recommendation may have reads as an order."""

from __future__ import annotations

from typing import Any

import pytest
from otoscope.diagnostics.proposals import deed, value_words
from otoscope.diagnostics.verdict import action
from otoscope.store import Evidence, Finding, Recommendation

LAYERS = [f"net.{i}" for i in range(12)]


@pytest.mark.parametrize(
    ("parameter", "proposed", "words"),
    [
        ("lr", 0.034, "set lr = 0.034"),
        ("batch_size", 384, "set batch_size = 384"),
        ("betas", [0.9, 0.95], "set betas = 0.9, 0.95"),
        ("shuffle", True, "shuffle the training data"),
        ("remove_softmax", True, "remove the softmax in front of the loss"),
        (
            "distributed_sampler",
            True,
            "give each rank its own samples (DistributedSampler)",
        ),
        ("precision", "bf16-mixed", "train in bf16-mixed"),
        ("optimizer", {"name": "AdamW", "lr": 0.001}, "use AdamW with lr 0.001"),
        (
            "params",
            LAYERS,
            "give the optimizer 12 parameters: `net.0`, `net.1`, `net.2` and 9 more",
        ),
        ("activation", dict.fromkeys(LAYERS, "LeakyReLU"), "use LeakyReLU in 12 layers"),
        (
            "weight_init",
            {name: {"kind": "kaiming_normal", "std": i / 10} for i, name in enumerate(LAYERS)},
            "initialize with kaiming_normal in 12 layers",
        ),
        (
            "input_normalization",
            {"mean": [0.1] * 64, "std": 0.3},
            "normalize the inputs: mean 64 values from 0.1 to 0.1, std 0.3",
        ),
        ("lr_multipliers", {"head": 10.0}, "scale the learning rate × 10 for `head`"),
        (
            "rollback",
            {"step": 200, "path": "a.ckpt", "then": {"lr": 0.05}},
            "go back to step 200 (a.ckpt), then lr 0.05",
        ),
        (
            "stop",
            {"best_step": 400, "path": None},
            "stop: the best weights are those of step 400",
        ),
    ],
)
def test_a_proposal_reads_as_what_a_person_would_do(
    parameter: str, proposed: Any, words: str
) -> None:
    assert deed(parameter, proposed) == words


@pytest.mark.parametrize("value", [None, {}, [], "x", 0, float("inf"), {"a": None}, [[1], "b"]])
@pytest.mark.parametrize("parameter", ["lr", "rollback", "inspect", "weight_init", "own_number"])
def test_no_value_is_without_words(parameter: str, value: Any) -> None:
    assert isinstance(value_words(parameter, value), str)
    assert deed(parameter, value)


@pytest.mark.parametrize(
    ("proposed", "ranks", "words"),
    [
        ([13], [13], "look at rank 13"),
        ([300], [], "look at step 300"),
        ([7, 9], [], "look at samples 7, 9"),
        (["net.0.bias"], [], "look at net.0.bias"),
    ],
)
def test_what_is_to_be_looked_at_says_what_it_is(
    proposed: list[Any], ranks: list[int], words: str
) -> None:
    finding = Finding("a", "r", 1, "own", "warning", "firing", "run", 1, 500, "T", ranks=ranks)
    finding.because = [Evidence("x", "train", "loss", 300)]
    finding.recommendation = Recommendation("inspect", None, proposed)
    assert action(finding) == words
