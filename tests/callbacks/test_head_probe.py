"""Head, Modes and Symmetry: what they record, against computations of their own, undisturbed."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Head, Modes, Otoscope, Symmetry, attach
from otoscope.callbacks.measures.batches import batch_parts
from otoscope.callbacks.measures.head import (
    Outputs,
    class_counts,
    head_outputs,
    loss_as_logits,
    probability_rows,
)
from otoscope.callbacks.measures.weights import alike_rows
from otoscope.store import Series
from torch import Tensor, nn
from torch.nn import functional

from tests.callbacks.fits import PACKAGES, fit, recorded

Batch = tuple[Tensor, Tensor]


def train(
    where: Path, model: nn.Module, batches: list[Batch], probe: Any, *, loss: Any = None
) -> tuple[Any, str]:
    """Train a plain loop over batches; returns the store and the run's id."""
    loss = loss or functional.cross_entropy

    def loss_fn(module: nn.Module, batch: Batch) -> Tensor:
        return loss(module(batch[0]), batch[1])

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    recorder: Any = None
    if probe is not None:
        settings: Any = {"spool": where, "strict": True, "verdict": False, "budget": 1.0}
        recorder = attach(model, optimizer, loss_fn=loss_fn, probes=[probe], **settings)
    for batch in batches:
        optimizer.zero_grad()
        value = loss_fn(model, batch)
        value.backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(value, len(batch[0]), batch=batch)
    if recorder is None:
        return None, ""
    recorder.finish()
    return recorded(where, recorder.run_id), recorder.run_id


def some(count: int, classes: int = 4, rows: int = 32) -> list[Batch]:
    draw = torch.Generator().manual_seed(3)
    return [
        (torch.randn(rows, 6, generator=draw), torch.randint(classes, (rows,), generator=draw))
        for _ in range(count)
    ]


def net(*tail: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4), *tail)


def read(where: Path, model: nn.Module, batches: list[Batch], probe: Any, **more: Any) -> Series:
    store, run = train(where, model, batches, probe, **more)
    return store.read(run, probe.family)


def test_logits_are_told_from_probabilities_that_a_loss_takes_for_logits(tmp_path: Path) -> None:
    logits = read(tmp_path, net(), some(6), Head(every=1))
    assert logits.column("probability_rows")[-1] == 0
    assert logits.column("as_logits")[-1] == pytest.approx(1, abs=1e-5)
    twice = read(tmp_path, net(nn.Softmax(-1)), some(6), Head(every=1))
    assert twice.column("probability_rows")[-1] == 1
    assert twice.column("as_logits")[-1] == pytest.approx(1, abs=1e-5)
    right = read(
        tmp_path, net(nn.Softmax(-1)), some(6), Head(every=1),
        loss=lambda p, y: functional.nll_loss(p.log(), y),
    )  # fmt: skip
    assert right.column("probability_rows")[-1] == 1
    assert right.column("as_probabilities")[-1] == pytest.approx(1, abs=1e-5)
    assert abs(right.column("as_logits")[-1] - 1) > 1e-3


def test_outputs_behind_a_relu_are_often_exactly_zero_and_never_negative(tmp_path: Path) -> None:
    classes = read(tmp_path, net(nn.ReLU()), some(6), Head(every=1))
    assert 0.2 < classes.column("at_zero")[-1] < 0.8
    assert np.isnan(classes.column("under_zero")).all()
    bare = read(tmp_path, net(), some(6), Head(every=1))
    assert (bare.column("at_zero") == 0).all()
    numbers = [(x, torch.randn(len(x), 4)) for x, _ in some(6)]
    rectified = read(
        tmp_path, net(nn.ReLU()), numbers, Head(every=1), loss=functional.mse_loss
    )  # fmt: skip
    assert 0.2 < rectified.column("at_zero")[-1] < 0.9
    assert rectified.column("under_zero")[-1] == pytest.approx(
        float((numbers[-1][1] < 0).float().mean())
    )


def test_predicted_classes_are_those_of_the_last_eight_samples(tmp_path: Path) -> None:
    batches, seen = some(12), []
    model = net()
    model.register_forward_hook(lambda m, i, out: seen.append(out.detach().argmax(1)))
    series = read(tmp_path, model, batches, Head(every=1))
    steps = series.steps.tolist()
    last = steps[-1]
    window = [s - 1 for s in steps[-8:]]
    guessed = torch.bincount(torch.cat([seen[i] for i in window]), minlength=4).double()
    labels = torch.bincount(torch.cat([batches[i][1] for i in window]), minlength=4).double()

    def of(counts: Tensor) -> float:
        return float(torch.special.entr(counts / counts.sum()).sum())

    assert last == 12
    assert series.column("predicted_entropy")[-1] == pytest.approx(of(guessed), rel=1e-4)
    assert series.column("label_entropy")[-1] == pytest.approx(of(labels), rel=1e-4)
    never = int(((labels > 0) & (guessed == 0)).sum())
    assert series.column("never_predicted")[-1] == never
    assert series.column("rows")[-1] == 8 * 32
    whole = torch.bincount(torch.cat([batches[s - 1][1] for s in steps]), minlength=4).double()
    shares = [float(series.column(f"class_share_{c}")[-1]) for c in range(4)]
    assert shares == pytest.approx((whole / whole.sum()).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("steps", "rows"),
    [
        ((3, 4, 210, 220), [8, 16, 8, 16]),
        ((3, 4, 150, 210), [8, 16, 24, 16]),
        ((9, 10, 205, 206), [8, 16, 8, 16]),
    ],
    ids=["nothing between", "seen between", "begun late"],
)
def test_classes_predicted_in_the_first_steps_are_let_go_of_long_after(
    tmp_path: Path, steps: tuple[int, ...], rows: list[int]
) -> None:
    class Now(Head):
        def sample(self, step: int) -> Tensor | list[float]:
            return super().sample(step) if step in steps else [math.nan] * (10 + self._classes)

    series = read(tmp_path, net(), some(220, rows=8), Now(every=1))
    told = dict(zip(series.steps.tolist(), series.column("rows").tolist(), strict=True))
    assert [told[step] for step in steps] == rows


@pytest.mark.parametrize("kind", [Head, Symmetry])
def test_a_run_is_the_same_to_the_last_bit_with_the_probe(tmp_path: Path, kind: Any) -> None:
    bare, watched = net(nn.Dropout(0.3)), net(nn.Dropout(0.3))
    torch.manual_seed(9)
    train(tmp_path, bare, some(25), None)
    torch.manual_seed(9)
    train(tmp_path, watched, some(25), kind(every=1))
    pairs = zip(bare.state_dict().values(), watched.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def normed() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4)
    )


def test_batch_norm_is_compared_in_both_modes_and_left_as_it_was(tmp_path: Path) -> None:
    batches = some(30)
    bare, watched = normed(), normed()
    torch.manual_seed(9)
    train(tmp_path, bare, batches, None)
    torch.manual_seed(9)
    store, run = train(tmp_path, watched, batches, Modes(every=10, first=30))
    pairs = zip(bare.state_dict().values(), watched.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(module.training for module in watched.modules())
    series = store.read(run, "modes")
    x, y = batches[29]
    expected = copy.deepcopy(watched)
    expected[3].p = 0.0  # type: ignore[index,assignment]
    with torch.no_grad():
        trained = float(functional.cross_entropy(expected(x), y))
        evaluated = float(functional.cross_entropy(watched.eval()(x), y))
    assert series.column("train_loss")[-1] == pytest.approx(trained, rel=1e-5)
    assert series.column("eval_loss")[-1] == pytest.approx(evaluated, rel=1e-5)


def test_modes_are_not_compared_where_no_batch_norm_is(tmp_path: Path) -> None:
    store, run = train(tmp_path, net(), some(5), Modes(every=1, first=1))
    assert not len(store.read(run, "modes").steps)
    assert not [event for event in store.events(run) if event.kind == "probe_off"]


def test_rows_are_compared_at_step_20_and_zeros_count_as_alike(tmp_path: Path) -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[8:] = model[0].weight[:8]  # type: ignore[index]
        model[0].bias[8:] = model[0].bias[:8]  # type: ignore[index]
        model[2].weight[:, 8:] = model[2].weight[:, :8]  # type: ignore[index]
    series = read(tmp_path, model, some(25), Symmetry())
    assert series.steps.tolist() == [20]
    assert math.isnan(series.column("alike_rows/0")[0])  # six numbers a row are alike by chance
    assert series.column("alike_rows/2")[0] == 0
    assert alike_rows(torch.zeros(3, 8)).item() == 1
    assert alike_rows(torch.eye(8)).item() == 0
    doubled = torch.cat([torch.eye(8), 2 * torch.eye(8)[:4]])
    assert alike_rows(doubled).item() == pytest.approx(8 / 12)
    assert alike_rows(torch.cat([torch.eye(8), -torch.eye(8)])).item() == 0


def outputs_of(output: Tensor, targets: Tensor) -> Outputs:
    found = head_outputs(output, batch_parts([torch.zeros(len(targets), 5), targets]))
    assert found is not None
    return found


def test_outputs_of_pictures_texts_and_binary_heads_are_read_row_by_row() -> None:
    draw = torch.Generator().manual_seed(0)
    image, mask = (
        torch.randn(2, 3, 4, 4, generator=draw),
        torch.randint(3, (2, 4, 4), generator=draw),
    )
    assert float(loss_as_logits(outputs_of(image, mask))) == pytest.approx(
        float(functional.cross_entropy(image, mask)), rel=1e-5
    )
    text, tokens = torch.randn(2, 5, 7, generator=draw), torch.randint(7, (2, 5), generator=draw)
    tokens[0, :2] = -100
    assert float(loss_as_logits(outputs_of(text, tokens))) == pytest.approx(
        float(functional.cross_entropy(text.flatten(0, 1), tokens.flatten())), rel=1e-5
    )
    one, target = torch.randn(8, 1, generator=draw), torch.tensor([0.0, 1.0] * 4)
    binary = outputs_of(one, target)
    expected = functional.binary_cross_entropy_with_logits(one[:, 0], target)
    assert float(loss_as_logits(binary)) == pytest.approx(float(expected), rel=1e-5)
    assert float(probability_rows(outputs_of(one.sigmoid(), target), 1e-3)) == 1
    assert math.isnan(float(loss_as_logits(outputs_of(one, torch.full((8,), 0.5)))))


def test_what_is_no_head_is_left_alone() -> None:
    assert head_outputs(torch.zeros(8, 3), None) is None
    assert head_outputs(torch.zeros(8, 3), batch_parts([torch.zeros(8, 5)])) is None
    values = batch_parts([torch.zeros(8, 5), torch.zeros(8, 2)])
    assert head_outputs(torch.zeros(8, 3), values) is None
    ignored = class_counts(outputs_of(torch.eye(4), torch.tensor([0, -100, 2, 9])))
    assert [counts.tolist() for counts in ignored] == [[1, 0, 1, 0], [1, 0, 1, 0]]


@pytest.mark.parametrize("package", PACKAGES)
def test_under_lightning_the_head_is_that_of_the_net_inside(tmp_path: Path, package: str) -> None:
    callback = Otoscope(probes=[Head(every=1)], spool=tmp_path, strict=True, verdict=False)
    fit(package, tmp_path, [callback])
    run = str(callback.run_id)
    series = recorded(tmp_path, run).read(run, "head")
    assert len(series.steps) > 4
    assert series.column("as_logits")[-1] == pytest.approx(1, abs=1e-4)
