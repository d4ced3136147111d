"""Windows made of numbers, for one rule alone; and small real runs, recorded and judged by all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from otoscope.callbacks import (
    Activations,
    Gradients,
    Head,
    Initialization,
    Inputs,
    Symmetry,
    attach,
)
from otoscope.diagnostics import judge
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.rules import RULES
from otoscope.store import Column, Event, Finding, Frame, Meta, Schema, connect
from torch import Tensor, nn

from .lab import digits

RUN = "made-01"
Rows = Mapping[str, Mapping[int, float]]
"""By written column (`quantity` or `quantity/layer`): the values, by step."""


def _column(name: str) -> Column:
    quantity, _, layer = name.partition("/")
    if not layer:
        return Column("lr/0.0", "lr") if name == "lr" else Column.of(name)
    group = "weight" if quantity in ("grad_sq", "weight_sq", "update_sq", "numel") else None
    return Column.of(quantity, layer=layer, group=group)


def frames_of(family: str, rows: Rows) -> tuple[Schema, list[Frame]]:
    """Return schema and frames; a column that has no value at a step is NaN there."""
    columns = tuple(_column(name) for name in rows)
    schema = Schema(family, columns)
    steps = sorted({step for values in rows.values() for step in values})
    return schema, [
        Frame(
            family,
            0,
            1,
            step,
            1e9 + step,
            schema.hash,
            np.array([values.get(step, np.nan) for values in rows.values()], dtype=np.float32),
        )
        for step in steps
    ]


class Made:
    """One rule, folded over made numbers: its finding, or why it did not judge."""

    def __init__(
        self,
        rule: str,
        families: Mapping[str, Rows],
        *,
        steps: int = 300,
        loss: Callable[[int], float] = lambda step: 2.0,
        lr: Callable[[int], float] = lambda step: 0.1,
        samples: int = 64,
        events: Sequence[Event] = (),
        **meta: Any,
    ) -> None:
        one = next(item for item in RULES if item.id == rule)
        every = range(1, steps + 1)
        train = {
            "loss": {s: loss(s) for s in every},
            "lr": {s: lr(s) for s in every},
            "samples": dict.fromkeys(every, samples),
        }
        made = [frames_of(name, rows) for name, rows in {"train": train, **families}.items()]
        self.fold = Fold(
            RUN,
            Meta(**{"optimizers": [{"name": "SGD", "lr": 0.1}], **meta}),
            {schema.hash: schema for schema, _ in made},
            rules=[one],
        )
        self.fold.push(
            [frame for _, frames in made for frame in frames],
            [Event("started", attempt=1, body={"world_size": 1}), *events],
        )
        self.fold.judge()
        self.rule = rule

    @property
    def finding(self) -> Finding | None:
        return next(iter(self.fold.findings()), None)

    @property
    def sure(self) -> Finding:
        assert self.finding is not None, self.why
        return self.finding

    @property
    def advice(self) -> Any:
        assert self.sure.recommendation is not None
        return self.sure.recommendation

    @property
    def why(self) -> str:
        return self.fold.coverage()[1].get(self.rule, "")


def trained(
    where: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    data: tuple[Tensor, Tensor] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    steps: int = 80,
    batch: int = 64,
    order: Callable[[int], Tensor] | None = None,
    validate: Callable[[int], Mapping[str, float] | None] = lambda step: None,
    every: int = 10,
) -> dict[str, Any]:
    """Return what all rules say of a small run that was recorded as any other is."""
    x, y = data or digits()
    draw = torch.Generator().manual_seed(0)
    recorder = attach(
        net,
        optimizer,
        probes=[
            Gradients(every=every), Activations(every=every), Inputs(every=every),
            Initialization(), Symmetry(), Head(every=every),
        ],
        spool=where, verdict=False, strict=True, budget=1.0, max_steps=steps,
    )  # fmt: skip
    for step in range(1, steps + 1):
        rows = torch.randint(len(x), (batch,), generator=draw) if order is None else order(step)
        optimizer.zero_grad()
        value = loss(net(x[rows]), y[rows])
        value.backward()
        optimizer.step()
        recorder.step(value, batch, batch=(x[rows], y[rows]))
        told = validate(step)
        if told is not None:
            recorder.validate(told)
    recorder.finish()
    run = str(recorder.run_id)
    return judge(connect(where / run), run)


def named(judged: dict[str, Any], rule: str) -> dict[str, Any]:
    """Return the finding of a rule that is shown as a root cause."""
    hidden = {item for finding in judged["findings"] for item in finding["caused"]}
    found = [f for f in judged["findings"] if f["rule"] == rule and f["id"] not in hidden]
    assert found, [(f["rule"], f["title"]) for f in judged["findings"]] or judged["not_judged"]
    return found[0]


def rules_of(judged: dict[str, Any]) -> set[str]:
    """Return the rules that found something."""
    return {finding["rule"] for finding in judged["findings"]}
