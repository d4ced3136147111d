"""Several optimizers, manual loops, and parameters that are frozen, unused, tied or sparse."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from otoscope.callbacks import Gradients, attach
from torch import nn
from torch.nn import functional

from tests.callbacks.fits import data, package, recorded
from tests.callbacks.shapes import NAME, Memory, both, remembering, smooth, square


def raw(net: Any, batch: Any) -> torch.Tensor:
    """A step that goes round Lightning's wrappers, and clips."""
    optimizer = net.optimizers(use_pl_optimizer=False)
    loss = net.loss_of(batch)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.05)
    optimizer.step()
    return loss


def test_a_manual_loop_without_lightnings_wrappers_is_measured_before_clipping(
    tmp_path: Path,
) -> None:
    told = both(tmp_path, lambda: remembering(step=raw))
    rows = told.net.memory.again(told.net, told.net.loss_of)
    norms = [math.sqrt(square(grads)) for _, grads in rows]
    np.testing.assert_allclose(told.column("loss"), [loss for loss, _ in rows], rtol=1e-5)
    np.testing.assert_allclose(np.sqrt(told.column("grad_sq")), norms, rtol=1e-5)
    np.testing.assert_allclose(told.column("clip_factor"), [0.05 / n for n in norms], rtol=1e-3)
    layer = [float(grads["net.0.weight"].double().square().sum()) for _, grads in rows]
    np.testing.assert_allclose(told.column("grad_sq/net.0", "gradients"), layer, rtol=1e-5)


class Pair(nn.Module):
    """A generator and a critic that judges what it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.critic = nn.Linear(12, 6), nn.Linear(6, 1)


def adversarial(net: Any, batch: Any) -> None:
    """The critic's step first; the generator's loss then writes into the critic's gradients."""
    pair, (maker, critic) = net.net, net.optimizers()
    made = pair.maker(batch[0])
    critic.zero_grad()
    net.manual_backward(functional.softplus(pair.critic(made.detach())).mean())
    critic.step()
    maker.zero_grad()
    net.manual_backward(functional.softplus(-pair.critic(made)).mean())
    maker.step()


def test_what_another_loss_writes_into_an_optimizers_gradients_does_not_count(
    tmp_path: Path,
) -> None:
    def optimizers(net: Any) -> Any:
        return [torch.optim.SGD(m.parameters(), 0.1) for m in (net.net.maker, net.net.critic)]

    told = both(tmp_path, lambda: remembering(optimizers, net=Pair, step=adversarial))
    critic, maker = [], []
    for weights, (x, _) in told.net.memory.micro:
        w = {k.removeprefix("net."): v.clone().requires_grad_() for k, v in weights.items()}
        made = functional.linear(x, w["maker.weight"], w["maker.bias"])
        first = functional.linear(made.detach(), w["critic.weight"], w["critic.bias"])
        ours = [w["critic.weight"], w["critic.bias"]]
        grads = torch.autograd.grad(functional.softplus(first).mean(), ours)
        critic.append(square(grads[:1]))
        stepped = [p.detach() - 0.1 * g for p, g in zip(ours, grads, strict=True)]
        second = functional.linear(made, *stepped)
        loss = functional.softplus(-second).mean()
        maker.append(square(torch.autograd.grad(loss, [w["maker.weight"]])))
    layers = told.read("gradients")
    np.testing.assert_allclose(layers.column("grad_sq/net.critic"), critic, rtol=1e-4)
    np.testing.assert_allclose(layers.column("grad_sq/net.maker"), maker, rtol=1e-4)
    assert told.column("clip_factor") == pytest.approx([1.0] * 6, rel=1e-4)


class Parts(nn.Module):
    """A frozen first layer, one that nobody uses, and one that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.unused, self.head = nn.Linear(12, 8), nn.Linear(4, 4), nn.Linear(8, 3)
        self.frozen.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.frozen(x)))


def test_frozen_layers_have_no_norms_and_unused_ones_are_not_measured(tmp_path: Path) -> None:
    def make() -> Any:
        return remembering(lambda net: torch.optim.AdamW(net.parameters(), 0.01), net=Parts)

    told = both(tmp_path, make)
    rows = told.net.memory.again(told.net, told.net.loss_of)
    own = [{k: g for k, g in grads.items() if "frozen" not in k} for _, grads in rows]
    np.testing.assert_allclose(told.column("grad_sq"), [square(g) for g in own], rtol=1e-5)
    layers = told.read("gradients")
    assert {name for name in layers.columns if name.startswith("grad_sq/")} == {
        "grad_sq/net.unused",
        "grad_sq/net.head",
    }
    assert np.isnan(layers.column("grad_sq/net.unused")).all()
    assert (layers.column("update_sq/net.head") > 0).all()
    rows_of = {row["name"]: row["requires_grad"] for row in told.store.meta(told.run).parameters}
    assert rows_of["net.frozen.weight"] is False and rows_of["net.unused.weight"] is True


class Tied(nn.Module):
    """An embedding whose weight is that of the head too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(tokens).mean(1))


def test_a_tied_weight_counts_once_with_the_sum_of_its_gradients(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model, generator = Tied(), torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    expected: list[float] = []
    with attach(
        model,
        optimizer,
        spool=tmp_path,
        strict=True,
        verdict=False,
        probes=[Gradients(every=1)],
    ) as recorder:
        for _ in range(4):
            tokens = torch.randint(0, 20, (8, 5), generator=generator)
            loss = functional.cross_entropy(model(tokens), tokens[:, 0])
            whole = torch.autograd.grad(loss, [model.embed.weight], retain_graph=True)
            expected.append(square(whole))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder.step(loss, 8)
    store = recorded(tmp_path, recorder.run_id)
    layers = store.read(recorder.run_id, "gradients")
    assert [name for name in layers.columns if name.startswith("grad_sq/")] == ["grad_sq/embed"]
    np.testing.assert_allclose(layers.column("grad_sq/embed"), expected, rtol=1e-5)
    total = store.read(recorder.run_id, "train").column("grad_sq")
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert store.meta(recorder.run_id).parameter_count == 120


class Words(nn.Module):
    """A sparse embedding under a dense head, each with an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(50, 6, sparse=True), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed((x.abs() * 10).long().clamp(max=49)).mean(1))


def two_steps(net: Any, batch: Any) -> torch.Tensor:
    loss = net.loss_of(batch)
    for optimizer in net.optimizers():
        optimizer.zero_grad()
    net.manual_backward(loss)
    for optimizer in net.optimizers():
        optimizer.step()
    return loss


def test_sparse_gradients_are_measured_and_stay_sparse(tmp_path: Path) -> None:
    def optimizers(net: Any) -> Any:
        return [
            torch.optim.SparseAdam(net.net.embed.parameters(), 0.01),
            torch.optim.SGD(net.net.head.parameters(), 0.1),
        ]

    told = both(tmp_path, lambda: remembering(optimizers, net=Words, step=two_steps))
    rows = told.net.memory.again(told.net, told.net.loss_of)
    dense = [
        {k: g.coalesce().values() if g.is_sparse else g for k, g in grads.items()}
        for _, grads in rows
    ]
    np.testing.assert_allclose(told.column("grad_sq"), [square(g) for g in dense], rtol=1e-5)
    embed = [square([grads["net.embed.weight"]]) for grads in dense]
    np.testing.assert_allclose(told.column("grad_sq/net.embed", "gradients"), embed, rtol=1e-5)
    assert told.net.net.embed.weight.grad.is_sparse


def test_accumulation_in_a_manual_loop_makes_a_step_of_each_window(tmp_path: Path) -> None:
    def step(net: Any, batch: Any) -> None:
        optimizer, count = net.optimizers(), len(net.memory.micro)
        net.manual_backward(net.loss_of(batch))
        if count % 4 == 0 or count == 6:  # the second window is a partial one of two
            optimizer.step()
            optimizer.zero_grad()

    told = both(tmp_path, lambda: remembering(step=step))
    rows = told.net.memory.again(told.net, told.net.loss_of)
    windows = [rows[:4], rows[4:]]
    sums = [
        {name: torch.stack([g[name] for _, g in window]).sum(0) for name in window[0][1]}
        for window in windows
    ]
    losses = [np.mean([loss for loss, _ in window]) for window in windows]
    assert told.column("samples") == [64, 32]
    np.testing.assert_allclose(told.column("loss"), losses, rtol=1e-5)
    np.testing.assert_allclose(told.column("grad_sq"), [square(g) for g in sums], rtol=1e-5)


def test_an_optimizer_with_a_closure_is_one_step_with_its_last_gradients(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, memory = smooth(), Memory()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    x, y = data(16).tensors
    with attach(
        model, optimizer, spool=tmp_path, strict=True, verdict=False, probes=[Gradients(every=1)]
    ) as recorder:
        for _ in range(3):

            def closure() -> float:
                memory.add(model, (x, y))
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x), y)
                loss.backward()
                return float(loss.detach())

            recorder.step(optimizer.step(closure), 16)
    rows = memory.again(model, lambda batch: functional.cross_entropy(model(batch[0]), batch[1]))
    calls = len(rows) // 3
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "train")
    last = [square(grads) for _, grads in rows[calls - 1 :: calls]]
    assert list(series.steps) == [1, 2, 3]
    np.testing.assert_allclose(series.column("grad_sq"), last, rtol=1e-4)


@pytest.mark.parametrize("group", [False, True], ids=["of the optimizer", "of a group added"])
def test_layers_that_are_unfrozen_are_measured_from_then_on(group: bool, tmp_path: Path) -> None:
    class Unfreeze(package(NAME).Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                frozen = pl_module.net.frozen.requires_grad_(True)
                if group:
                    trainer.optimizers[0].add_param_group({"params": list(frozen.parameters())})

    def optimizers(net: Any) -> Any:
        chosen = [p for p in net.parameters() if p.requires_grad or not group]
        return torch.optim.SGD(chosen, 0.1)

    told = both(
        tmp_path,
        lambda: remembering(optimizers, net=Parts),
        max_epochs=2,
        callbacks=lambda: [Unfreeze()],
    )
    rows = told.net.memory.again(told.net, told.net.loss_of)
    first = [{k: g for k, g in grads.items() if "frozen" not in k} for _, grads in rows[:6]]
    wanted = [square(grads) for grads in (*first, *(grads for _, grads in rows[6:]))]
    np.testing.assert_allclose(told.column("grad_sq"), wanted, rtol=1e-5)
    layers = told.read("gradients")
    found = layers.column("grad_sq/net.frozen")
    assert np.isnan(found[:6]).all()
    weight = [square([grads["net.frozen.weight"]]) for _, grads in rows[6:]]
    np.testing.assert_allclose(found[6:], weight, rtol=1e-5)
    assert (layers.column("update_sq/net.frozen")[6:] > 0).all()


def test_a_loop_that_unfreezes_is_listened_to_from_then_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, memory = Parts(), Memory()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss_of(batch: Any) -> torch.Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    batch = data(16).tensors
    with attach(
        model, optimizer, spool=tmp_path, strict=True, verdict=False, probes=[Gradients(every=1)]
    ) as recorder:
        for step in range(4):
            if step == 2:
                model.frozen.requires_grad_(True)
            memory.add(model, batch)
            optimizer.zero_grad()
            loss = loss_of(batch)
            loss.backward()
            optimizer.step()
            recorder.step(loss, 16)
    rows = memory.again(model, loss_of)
    layers = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "gradients")
    # a step that was prepared before the change is measured without it
    found = layers.column("grad_sq/frozen")
    assert np.isnan(found[:3]).all()
    assert found[3] == pytest.approx(square([rows[3][1]["frozen.weight"]]), rel=1e-5)
    assert all(not p._post_accumulate_grad_hooks for p in model.parameters())


def test_micro_batches_of_a_loop_of_ones_own_are_one_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, memory = smooth(), Memory()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def loss_of(batch: Any) -> torch.Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    x, y = data(96).tensors
    with attach(
        model, optimizer, spool=tmp_path, strict=True, verdict=False, probes=[Gradients(every=1)]
    ) as recorder:
        for start in range(0, 96, 16):
            batch = x[start : start + 16], y[start : start + 16]
            memory.add(model, batch)
            loss = loss_of(batch)
            (loss / 3).backward()
            last = (start // 16) % 3 == 2
            if last:
                optimizer.step()
                optimizer.zero_grad()
            recorder.step(loss, 16, complete=last)
    rows = memory.again(model, loss_of)
    windows = [rows[:3], rows[3:]]
    means = [
        {name: torch.stack([g[name] for _, g in window]).mean(0) for name in window[0][1]}
        for window in windows
    ]
    series = recorded(tmp_path, recorder.run_id).read(recorder.run_id, "train")
    assert series.column("samples").tolist() == [48, 48]
    losses = [np.mean([loss for loss, _ in window]) for window in windows]
    np.testing.assert_allclose(series.column("loss"), losses, rtol=1e-5)
    np.testing.assert_allclose(series.column("grad_sq"), [square(g) for g in means], rtol=1e-5)


class Normed(nn.Module):
    """Its first weight is made of a direction and a length."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(12, 8))
        self.last = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)))


def test_what_a_weight_is_made_of_belongs_to_its_layer(tmp_path: Path) -> None:
    told = both(tmp_path, lambda: remembering(net=Normed))
    rows = told.net.memory.again(told.net, told.net.loss_of)
    layers = told.read("gradients")
    names = {name for name in layers.columns if name.startswith("grad_sq/")}
    assert names == {"grad_sq/net.first", "grad_sq/net.last"}
    parts = [f"net.first.parametrizations.weight.original{i}" for i in (0, 1)]
    own = [square([grads[part] for part in parts]) for _, grads in rows]
    np.testing.assert_allclose(layers.column("grad_sq/net.first"), own, rtol=1e-5)
    np.testing.assert_allclose(told.column("grad_sq"), [square(g) for _, g in rows], rtol=1e-5)
    described = {row["name"]: row["layer"] for row in told.store.meta(told.run).parameters}
    assert set(described) == {name for name, _ in told.net.named_parameters()}
    assert described[parts[1]] == "net.first"
    outputs = told.read("activations")
    found = {name for name in outputs.columns if name.startswith("absmax/")}
    assert found == {"absmax/net.first", "absmax/net.last"}
    assert (outputs.column("numel/net.first") == 16 * 8).all()
