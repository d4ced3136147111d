"""Running the user's own loss: what it changes, and that nothing of it is left changed."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from otoscope.callbacks.snapshot import Snapshot
from otoscope.callbacks.undisturbed import (
    CollectiveError,
    is_looking,
    undisturbed,
)
from torch import Tensor, nn
from torchmetrics import Accuracy

Batch = tuple[Tensor, Tensor]
BATCH = (torch.randn(8, 4), torch.randint(0, 3, (8,)))


class Average:
    """The meter of many a training script."""

    def __init__(self) -> None:
        self.sum, self.count, self.shadow = 0.0, 0, {"w": torch.zeros(2)}

    def update(self, value: float) -> None:
        self.sum, self.count = self.sum + value, self.count + 1
        self.shadow["w"] += value


class Busy:
    """An object with a thread of its own: what it holds changes whether we look or not."""

    def __init__(self) -> None:
        self.lock, self.fetched = threading.Lock(), 0


class Restless(nn.Module):
    """A module that leaves no state of its own alone."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)
        self.drop = nn.Dropout(0.5)
        self.teacher = nn.Linear(4, 3).requires_grad_(False)
        self.slow = nn.Linear(4, 3).requires_grad_(False)
        self.metric = Accuracy(task="multiclass", num_classes=3)
        self.outputs: list[Tensor] = []
        self.history: dict[str, Any] = {"seen": 0, "means": [torch.zeros(2)]}
        self.queue = torch.zeros(3)
        self.draws = torch.Generator().manual_seed(1)
        self.table = np.zeros(2)
        self.count = 0
        self._hidden = [nn.BatchNorm1d(4)]
        self.average, self.busy = Average(), Busy()
        features: list[Tensor] = []
        self.features = lambda: features
        self.head.register_forward_hook(lambda m, i, o: features.append(o.detach()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self._hidden[0](self.norm(x))))

    def loss(self, batch: Batch) -> Tensor:
        x, y = batch
        logits = self(x)
        self.metric(logits.softmax(1), y)
        self.outputs.append(logits.detach())
        self.history["seen"] += 1
        self.history["means"][0] += 1
        self.history["new"] = True
        self.queue[self.count % 3] = logits.mean().item()
        torch.rand(1, generator=self.draws)
        self.table += 1
        self.count += 1
        self.average.update(1.5)
        self.busy.fetched += 1
        self.fresh = "attribute"
        self.norm.eval()
        with torch.no_grad():
            self.teacher.weight.lerp_(self.head.weight, 0.1)
        self.teacher.bias.data.add_(0.1)
        self.slow.weight.data = 0.9 * self.slow.weight.data + 0.1 * self.head.weight.data
        self.spent = random.random() + np.random.rand() + torch.rand(1).item()
        return nn.functional.cross_entropy(logits, y)


def everything(module: Restless) -> dict[str, Any]:
    return {
        **{k: v.clone() for k, v in module.state_dict().items()},
        **{f"hidden.{k}": v.clone() for k, v in module._hidden[0].state_dict().items()},
        "modes": [m.training for m in module.modules()],
        "metric": {k: getattr(module.metric, k).clone() for k in module.metric._defaults},
        "updates": module.metric._update_count,
        "outputs": len(module.outputs),
        "history": repr(module.history),
        "queue": module.queue.clone(),
        "draws": module.draws.get_state(),
        "table": module.table.copy(),
        "count": module.count,
        "average": (module.average.sum, module.average.count, module.average.shadow["w"].tolist()),
        "features": len(module.features()),
        "attributes": sorted(vars(module)),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].copy(),  # type: ignore[union-attr, index]
        "torch": torch.get_rng_state(),
    }


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, two)
    return one == two


def changed(module: Restless, before: dict[str, Any]) -> list[str]:
    after = everything(module)
    return [k for k in before if not same(before[k], after[k])]


def test_a_loss_that_changes_everything_leaves_nothing_changed():
    module = Restless()
    before = everything(module)

    with undisturbed(module):
        module.loss(BATCH)
        module.loss(BATCH)
        assert len(changed(module, before)) > 15  # the test would see it

    assert changed(module, before) == []


def test_a_loss_that_clears_the_gradients_gives_them_back():
    module = nn.Linear(4, 3)
    module(BATCH[0]).sum().backward()
    held = module.weight.grad
    with undisturbed(module):
        module.zero_grad()
    assert module.weight.grad is held


def test_weights_come_back_even_where_something_else_cannot():
    class Stubborn(list[int]):
        def clear(self) -> None:
            raise RuntimeError("this list only grows")

    module = nn.Linear(4, 3)
    module.seen = Stubborn()  # type: ignore[assignment]
    before, states = module.weight.detach().clone(), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="only grows"), undisturbed(module):
        module.weight.data.zero_()
        module.seen.append(1)
    assert torch.equal(module.weight, before)
    assert torch.equal(torch.get_rng_state(), states)
    assert not is_looking()


def test_backward_hooks_of_modules_do_not_fire():
    module, calls = nn.Linear(4, 3), []
    module.register_full_backward_hook(lambda *_: calls.append("after"))
    module.register_full_backward_pre_hook(lambda *_: calls.append("before"))
    with undisturbed(module):
        torch.autograd.grad(module(BATCH[0]).sum(), [module.weight])
    assert calls == []
    module(BATCH[0]).sum().backward()
    assert calls == ["before", "after"]


def test_an_object_that_may_work_by_itself_is_not_wound_back():
    module = Restless()
    with undisturbed(module):
        module.loss(BATCH)
    assert module.busy.fetched == 1


def test_within_a_look_a_rewound_loss_is_a_function_of_the_weights_alone():
    module = Restless()
    with undisturbed(module) as look:
        losses, counts = [], []
        for _ in range(3):
            look.rewind(keep=[module.head.weight])
            module.norm.train()
            losses.append(module.loss(BATCH).item())
            counts.append(module.count)
            module.head.bias.data.add_(1)
        assert counts == [1, 1, 1]
        assert losses[0] == losses[1] == losses[2]
        with torch.no_grad():
            module.head.weight.zero_()
        look.rewind(keep=[module.head.weight])
        assert not module.head.weight.any()
    assert module.head.weight.any()


class Mixing:
    """An augmentation, as many a module has one: a record with a generator of its own."""

    def __init__(self) -> None:
        self.share, self.draws = 0.2, np.random.default_rng(0)


def test_generators_of_every_kind_draw_on_from_where_they_were():
    module: Any = nn.Linear(1, 1)
    module.python, module.legacy = random.Random(3), np.random.RandomState(3)
    module.numpy, module.torch = np.random.default_rng(3), torch.Generator()
    module.mixing, module.many = Mixing(), [random.Random(4)]

    def draw() -> list[float]:
        return [
            module.python.random(),
            module.legacy.rand(),
            module.numpy.random(),
            torch.rand(1, generator=module.torch).item(),
            module.mixing.draws.random(),
            module.many[0].random(),
        ]

    with undisturbed(module):
        within = draw()
    assert draw() == within


def test_everything_is_put_back_after_an_error_too():
    module = Restless()
    before = everything(module)
    with pytest.raises(RuntimeError, match="in the middle"), undisturbed(module):
        module.loss(BATCH)
        raise RuntimeError("in the middle")
    assert changed(module, before) == []
    assert not is_looking()


def test_the_same_objects_are_put_back_not_copies():
    module = Restless()
    outputs, queue = module.outputs, module.queue
    snapshot = Snapshot(module)
    module.outputs, module.queue = [], torch.ones(3)
    snapshot.restore()
    assert module.outputs is outputs
    assert module.queue is queue


def test_a_data_set_kept_on_a_module_is_not_copied_but_large_buffers_are():
    module = nn.Module()
    module.images = torch.zeros(5_000_000)
    module.register_buffer("codes", torch.zeros(5_000_000, dtype=torch.int32))
    snapshot = Snapshot(module)
    for held in (module.images, module.codes):
        held[0] = 1  # type: ignore[index, operator]
    snapshot.restore()
    assert module.images[0].item() == 1.0
    assert module.get_buffer("codes")[0].item() == 0


def test_the_draws_are_the_same_in_every_look():
    module = Restless()
    losses = []
    for _ in range(2):
        with undisturbed(module):
            losses.append(module.loss(BATCH).item())
        torch.rand(3)
    assert losses[0] == losses[1]


def test_a_graph_made_within_stays_usable_while_it_lasts():
    module = Restless()
    parameters = [p for p in module.parameters() if p.requires_grad]
    with undisturbed(module):
        with undisturbed(module):  # as a loss_fn that guards itself would
            loss = nn.functional.cross_entropy(module.head(module.norm(BATCH[0])), BATCH[1])
        grads = torch.autograd.grad(loss, parameters, create_graph=True)
        twice = torch.autograd.grad(grads, parameters, [torch.ones_like(g) for g in grads])
    assert all(bool(torch.isfinite(g).all()) for g in twice)
    assert all(p.grad is None for p in parameters)


def test_hooks_of_ours_can_tell_and_hooks_on_parameters_do_not_fire():
    module, calls = nn.Linear(4, 3), []
    module.weight.register_hook(lambda g: calls.append(g))
    assert not is_looking()
    with undisturbed(module):
        assert is_looking()
        torch.autograd.grad(module(BATCH[0]).sum(), [module.weight])
    assert calls == []
    module(BATCH[0]).sum().backward()
    assert len(calls) == 1


def test_autocast_and_no_grad_around_it_do_not_reach_within():
    module = nn.Linear(4, 3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), undisturbed(module):
        out = module(BATCH[0])
    assert out.dtype is torch.float32
    assert out.requires_grad


def test_autocast_in_another_thread_goes_on_as_it_was():
    found: list[torch.dtype] = []

    def validate() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            found.append(nn.Linear(2, 2)(torch.zeros(1, 2)).dtype)

    with undisturbed(nn.Linear(2, 2)):
        thread = threading.Thread(target=validate)
        thread.start()
        thread.join()
        validate()
    assert found == [torch.bfloat16, torch.float32]


def test_attention_has_a_second_derivative_within():
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.randn(2, 5, 4)
    parameters = list(attention.parameters())
    with undisturbed(attention):
        loss = attention(x, x, x, need_weights=False)[0].square().mean()
        grads = torch.autograd.grad(loss, parameters, create_graph=True)
        found = torch.autograd.grad(grads[0].sum(), parameters, allow_unused=True)
    assert found[0] is not None


@pytest.mark.parametrize("name", ["all_reduce", "all_gather", "broadcast", "barrier"])
def test_a_collective_of_several_ranks_raises_instead_of_waiting(name, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    original = getattr(dist, name)
    with (
        undisturbed(nn.Linear(1, 1)),
        pytest.raises(CollectiveError, match=f"{name}.*only this rank"),
    ):
        getattr(dist, name)(torch.zeros(1))
    assert getattr(dist, name) is original
