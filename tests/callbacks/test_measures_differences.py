"""Hessian products by differences of gradients, against exact ones and where there are none."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from otoscope.callbacks.measures import Hessian, hessian_eigenvalues, lanczos
from otoscope.callbacks.snapshot import RandomStates
from otoscope.store import ConfigError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tests.callbacks.test_measures_hessian import NETS, dense, trained


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-3), (torch.float64, 1e-5)])
def test_eigenvalues_by_differences_are_those_of_the_dense_hessian(name, dtype, rtol):
    net, x, y = trained(name, 0)
    net, x = net.to(dtype), x.to(dtype)

    spectrum = hessian_eigenvalues(
        lambda: F.cross_entropy(net(x), y),
        net.parameters(),
        k=5,
        tol=1e-4,
        method="difference",
    )

    exact = torch.linalg.eigvalsh(dense(name, 0)[1]).flip(0)[:5]
    torch.testing.assert_close(spectrum.values, exact, rtol=rtol, atol=0)


class Doubled(torch.autograd.Function):
    """A kernel of somebody's own whose backward pass has no graph: x³."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:
        with torch.no_grad():
            return 3 * ctx.saved_tensors[0] ** 2 * grads[0]


def flash(weights: Tensor) -> Tensor:
    q, k, v = weights.view(3, 1, 1, 4, 8)
    return F.scaled_dot_product_attention(q, k, v).square().sum()


def ctc(weights: Tensor) -> Tensor:
    logs = weights[:60].view(6, 2, 5).log_softmax(-1)
    return F.ctc_loss(
        logs, torch.tensor([[1, 2], [3, 1]]), torch.tensor([6, 6]), torch.tensor([2, 2])
    )


def bag(weights: Tensor) -> Tensor:
    ids = torch.tensor([[0, 1, 1], [2, 3, 0]])
    return F.embedding_bag(ids, weights.view(4, 24), mode="mean").tanh().square().sum()


def kernel(weights: Tensor) -> Tensor:
    return Doubled.apply(weights.sin()).sum()


WITHOUT: dict[str, Callable[[Tensor], Tensor]] = {
    "flash attention": flash,
    "ctc_loss": ctc,
    "EmbeddingBag": bag,
    "a custom Function": kernel,
}


@pytest.mark.parametrize("name", WITHOUT)
def test_where_there_is_no_second_derivative_differences_take_over(name):
    weights = torch.randn(96, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights.requires_grad_()
    before = weights.detach().clone()
    loss = WITHOUT[name]
    hessian = Hessian([lambda: loss(weights), lambda: 2 * loss(weights)], [weights])

    found = torch.stack([hessian(v) for v in torch.eye(96, dtype=torch.float64)])

    assert hessian.method == "difference"
    assert torch.equal(weights.detach(), before)
    torch.testing.assert_close(found, reference(loss, weights), rtol=1e-4, atol=1e-6)


def reference(loss: Callable[[Tensor], Tensor], weights: Tensor) -> Tensor:
    """The Hessian of 1.5 loss from values alone: second differences, no gradient of anybody's."""
    at, step = weights.detach(), 1e-3
    eye = torch.eye(len(at), dtype=torch.float64) * step
    rows = range(len(at))
    with torch.no_grad():
        one = {s: torch.stack([loss(at + s * eye[i]) for i in rows]) for s in (1, -1)}
        matrix = torch.empty(len(at), len(at), dtype=torch.float64)
        for i in rows:
            for j in range(i + 1):
                both = loss(at + eye[i] + eye[j]) + loss(at - eye[i] - eye[j])
                value = both - one[1][i] - one[-1][i] - one[1][j] - one[-1][j] + 2 * loss(at)
                matrix[i, j] = matrix[j, i] = 1.5 * value / (2 * step**2)
    return matrix


def test_backward_hooks_on_modules_do_not_make_a_loss_one_without_a_second_derivative():
    net, x, y = trained("convnet", 0)
    hooked = copy.deepcopy(net)
    seen: list[object] = []
    layer = hooked.get_submodule("3")
    layer.register_full_backward_hook(lambda *told: seen.append(told[0]))
    hessian = Hessian([lambda: F.cross_entropy(hooked(x), y)], hooked.parameters())
    plain = Hessian([lambda: F.cross_entropy(net(x), y)], net.parameters())
    vector = torch.ones_like(plain.gradient)
    torch.testing.assert_close(hessian(vector), plain(vector))
    assert seen
    assert hessian.method == "exact"


def test_one_product_is_never_of_both_kinds():
    w = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[0, 1]])
    losses = [
        lambda: (w[0] - w[1]).abs() * w.sum() ** 2,
        lambda: F.embedding_bag(ids, w.view(2, 1), mode="sum").pow(3).sum(),
    ]
    auto, apart = Hessian(losses, [w]), Hessian(losses, [w], method="difference")
    assert torch.equal(auto(torch.ones_like(w)), apart(torch.ones_like(w)))


def test_a_function_without_a_graph_would_read_zero_if_it_were_taken_at_its_word():
    weights = torch.ones(3, requires_grad=True)
    exact = Hessian([lambda: kernel(weights)], [weights], method="exact")
    honest = Hessian([lambda: kernel(weights)], [weights])

    wrong, right = exact(torch.ones(3)), honest(torch.ones(3))

    # d²/dx² sin³x = 6 sin x cos²x - 3 sin³x at 1; the kernel's part, 6 sin x cos²x, is lost
    expected = 6 * np.sin(1) * np.cos(1) ** 2 - 3 * np.sin(1) ** 3
    assert right[0].item() == pytest.approx(expected, rel=1e-3)
    assert abs(wrong[0].item() - expected) > 1


def test_draws_are_the_same_in_every_evaluation_and_left_as_they_were():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1)).double()
    x = torch.randn(32, 6).double()

    def loss() -> Tensor:
        noise = random.random() + np.random.rand()
        return net(x + noise).square().mean()

    began = RandomStates(net)
    state = torch.get_rng_state()
    exact = Hessian([loss], net.parameters(), method="exact")
    after_one = torch.get_rng_state()
    began.restore()
    apart = Hessian([loss], net.parameters(), method="difference")
    vector = torch.randn(exact.gradient.shape, dtype=torch.float64)
    here = torch.get_rng_state(), random.getstate(), str(np.random.get_state())

    found = apart(vector), apart(vector)

    assert not torch.equal(after_one, state)  # the loss does draw
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], exact(vector), rtol=1e-6, atol=1e-8)
    assert torch.equal(torch.get_rng_state(), here[0])
    assert (random.getstate(), str(np.random.get_state())) == here[1:]


def test_weights_and_their_gradients_are_put_back_bit_for_bit_even_when_the_loss_breaks():
    net = trained("convnet", 0)[0].float()
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in net.parameters()]
    calls = []

    def loss() -> Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("the loss broke")
        return sum((p.tanh().sum() for p in net.parameters()), torch.zeros(()))

    hessian = Hessian([loss], net.parameters(), method="difference")
    with pytest.raises(ValueError, match="the loss broke"):
        hessian(torch.ones_like(hessian.gradient))

    assert all(map(torch.equal, before, net.parameters()))
    assert all(p.grad is not None and bool((p.grad == 1).all()) for p in net.parameters())


def test_an_error_of_another_kind_is_not_taken_for_a_missing_derivative():
    w = torch.ones(2, requires_grad=True)

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx, *grads: Tensor) -> Tensor:
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        Hessian([lambda: Broken.apply(w).square().sum()], [w])


def test_reentrant_checkpoints_are_refused_with_the_remedy_and_others_serve():
    net = nn.Linear(3, 2).double()
    x = torch.ones(4, 3, dtype=torch.float64)

    def loss(reentrant: bool) -> Tensor:
        inner = checkpoint(net, x.clone().requires_grad_(), use_reentrant=reentrant)
        return inner.square().mean()

    with pytest.raises(ConfigError, match="use_reentrant=False"):
        Hessian([lambda: loss(True)], net.parameters())
    plain = Hessian([lambda: net(x).square().mean()], net.parameters())
    served = Hessian([lambda: loss(False)], net.parameters())
    vector = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(served(vector), plain(vector))
    assert served.method == "exact"


def test_sparse_gradients_are_measured_by_differences():
    torch.manual_seed(0)
    table = nn.Embedding(5, 3, sparse=True).double()
    ids = torch.tensor([0, 1, 1, 3])

    def loss() -> Tensor:
        return table(ids).sin().sum()

    hessian = Hessian([loss], table.parameters(), method="difference")
    found = hessian(torch.ones(15, dtype=torch.float64))

    times = torch.tensor([1.0, 2, 0, 1, 0])[:, None].double()
    torch.testing.assert_close(
        found.view(5, 3), -times * table.weight.detach().sin(), rtol=1e-5, atol=1e-8
    )


@pytest.mark.parametrize("step", [0.0, -1e-3, 1.0])
def test_a_step_that_is_no_small_share_of_the_weights_is_refused(step):
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ConfigError, match="step must be in"):
        Hessian([lambda: w.sum()], [w], method="difference", step=step)


def test_an_unknown_method_names_the_known_ones():
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ConfigError, match="auto, exact or difference, got 'fast'"):
        Hessian([lambda: w.sum()], [w], method="fast")  # type: ignore[arg-type]


def test_weights_of_zero_norm_still_have_a_step():
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    scales = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    hessian = Hessian([lambda: (scales * w**2).sum()], [w], method="difference")
    found = lanczos(hessian, torch.ones(3, dtype=torch.float64), k=3, max_products=3)
    torch.testing.assert_close(found.values, 2 * scales.sort(descending=True).values)
