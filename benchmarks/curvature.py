"""Largest eigenvalues of a Hessian: time and products to one percent, ours against PyHessian's.

    python -m benchmarks.curvature [--quick] [--only mlp]

Both look at the same loss of the same trained net. The truth is a long Lanczos run in float64 whose
own bounds are under 1e-6. Each method has one knob for its accuracy (the tolerance at which it
stops); it is set to the loosest of a list at which the largest relative error over the values
asked for is at most 1 % in the median of its seeds, so that times are compared at equal accuracy.
Timed in turns in CPU seconds of one thread, medians; a run of a method includes its forward pass and first gradient. PyHessian's
start is random (a seed a run), ours is the gradient. Also printed: what one product costs in
gradients of the same loss, by the second derivative and by differences of gradients, and by how much
the eigenvalues differ then (in nets of ReLUs they see the kinks, which no second derivative does).
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyhessian
import torch
from otoscope.callbacks.measures import Hessian, hessian_eigenvalues
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from . import _data, _nets

TOLERANCES = tuple(digit / 10**power for power in range(1, 5) for digit in (5, 3, 2, 1.4, 1, 0.7))
ACCURACY = 0.01
SEEDS = 3
PYHESSIAN: Any = importlib.import_module("pyhessian.hessian")  # the class hides its module
MOST = 2000
"""Power iterations a value that PyHessian may take."""
RESULT = Path(__file__).parent / "results" / "curvature.json"


@dataclass
class Case:
    """A trained net, a batch of its data, and the loss that both methods look at."""

    name: str
    net: nn.Module
    x: Tensor
    y: Tensor

    def loss(self) -> Tensor:
        return cross_entropy(self.net(self.x), self.y)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.net.parameters())


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2), y.flatten())


def trained(name: str, net: nn.Module, data: _data.Batch, batch: int, steps: int) -> Case:
    x, y = data
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(steps):
        chosen = torch.arange(step * batch, (step + 1) * batch) % len(x)
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(net(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return Case(name, net.eval(), x[:batch], y[:batch])


def cases(only: str | None) -> list[Case]:
    torch.manual_seed(0)
    built: dict[str, Callable[[], Case]] = {
        "mlp": lambda: trained("mlp", _nets.mlp(64, 10, width=256), _data.digits(), 256, 60),
        "convnet": lambda: trained("convnet", _nets.convnet(), _data.digits(), 128, 60),
        "transformer": lambda: trained("transformer", _nets.Transformer(), _data.text(), 32, 150),
    }
    return [make() for name, make in built.items() if only in (None, name)]


def truth(case: Case) -> Tensor:
    twin = copy.deepcopy(case.net).double()
    x = case.x.double() if case.x.is_floating_point() else case.x
    found = hessian_eigenvalues(
        lambda: cross_entropy(twin(x), case.y), twin.parameters(), k=5, tol=1e-6, max_products=150
    )
    worst = float((found.bounds / found.values).abs().max())
    if worst > 1e-4:
        raise RuntimeError(f"the reference of {case.name} is only known to {worst:.1e}")
    return found.values


def ours(case: Case, k: int, tol: float, _seed: int) -> tuple[list[float], int]:
    found = hessian_eigenvalues(case.loss, case.parameters, k=k, tol=tol, max_products=150)
    return found.values.tolist(), found.products


def theirs(case: Case, k: int, tol: float, seed: int) -> tuple[list[float], int]:
    counted = 0
    product = PYHESSIAN.hessian_vector_product

    def counting(*args: Any) -> Any:
        nonlocal counted
        counted += 1
        return product(*args)

    torch.manual_seed(seed)
    PYHESSIAN.hessian_vector_product = counting
    try:
        found = pyhessian.hessian(case.net, cross_entropy, data=(case.x, case.y), cuda=False)
        values, _ = found.eigenvalues(maxIter=MOST, tol=tol, top_n=k)
    finally:
        PYHESSIAN.hessian_vector_product = product
        case.net.zero_grad(set_to_none=True)  # its backward pass leaves a graph in .grad
    return values, counted


Method = Callable[[Case, int, float, int], tuple[list[float], int]]
METHODS: dict[str, Method] = {"ours": ours, "PyHessian": theirs}


def error(values: Sequence[float], exact: Tensor) -> float:
    found = torch.tensor(values, dtype=torch.float64)
    return float(((found - exact[: len(found)]) / exact[: len(found)]).abs().max())


def loosest(method: Method, case: Case, k: int, exact: Tensor) -> dict[str, float]:
    """Return the loosest tolerance that gives one percent (by bisection), its error and products."""

    def at(tolerance: float) -> dict[str, float]:
        seeds = range(1 if method is ours else SEEDS)
        runs = [method(case, k, tolerance, seed) for seed in seeds]
        return {
            "tolerance": tolerance,
            "error": statistics.median(error(values, exact) for values, _ in runs),
            "products": statistics.median(products for _, products in runs),
        }

    loose, tight = 0, len(TOLERANCES) - 1
    best = at(TOLERANCES[tight])
    while loose < tight:
        middle = (loose + tight) // 2
        row = at(TOLERANCES[middle])
        if row["error"] <= ACCURACY:
            tight, best = middle, row
        else:
            loose = middle + 1
    return best


def compared(case: Case, k: int, exact: Tensor, repeats: int) -> dict[str, dict[str, float]]:
    rows = {name: loosest(method, case, k, exact) for name, method in METHODS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in METHODS}
    for turn in range(repeats):
        for name, method in METHODS.items():
            begun = time.process_time()
            method(case, k, rows[name]["tolerance"], turn)
            seconds[name].append(time.process_time() - begun)
    for name, taken in seconds.items():
        rows[name]["ms"] = 1e3 * statistics.median(taken)
    return rows


def cost_of_a_product(case: Case, repeats: int) -> dict[str, float]:
    """Return the time of a gradient, and of a product over it."""
    hessians = {
        method: Hessian([case.loss], case.parameters, method=method)
        for method in ("exact", "difference")
    }
    vector = torch.randn_like(hessians["exact"].gradient)

    def gradient() -> None:
        torch.autograd.grad(case.loss(), case.parameters)

    work: dict[str, Callable[[], Any]] = {"gradient": gradient}
    work |= {name: lambda h=hessian: h(vector) for name, hessian in hessians.items()}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, run in work.items():
            begun = time.process_time()
            run()
            seconds[name].append(time.process_time() - begun)
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    return {
        "gradient_ms": 1e3 * medians["gradient"],
        "exact": medians["exact"] / medians["gradient"],
        "difference": medians["difference"] / medians["gradient"],
    }


def error_of_differences(case: Case) -> float:
    """Return the largest relative error of five eigenvalues by differences, from the same start."""
    exact, apart = (
        hessian_eigenvalues(
            case.loss, case.parameters, k=5, tol=0, max_products=20, method=method
        ).values
        for method in ("exact", "difference")
    )
    return float(((apart - exact) / exact).abs().max())


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, nothing written")
    parser.add_argument("--only", choices=["mlp", "convnet", "transformer"])
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore", message="Using backward")  # PyHessian's create_graph
    torch.set_num_threads(1)
    result: dict[str, Any] = {"accuracy": ACCURACY, "torch": torch.__version__, "nets": {}}
    slow = False
    with sdpa_kernel(SDPBackend.MATH):
        for case in cases(options.only):
            exact = truth(case)
            count = sum(p.numel() for p in case.parameters)
            print(f"curvature: {case.name}, {count:,} parameters, top five {_list(exact)}")
            row: dict[str, Any] = {"parameters": count, "eigenvalues": exact.tolist()}
            for k in (1, 5):
                found = compared(case, k, exact, 2 if options.quick else 7)
                share = found["ours"]["ms"] / found["PyHessian"]["ms"]
                row[f"top {k}"] = {**found, "share_of_time": share}
                slow |= k == 5 and share > 0.25
                for name, one in found.items():
                    print(
                        f"  top {k} {name:9}  {one['ms']:8.1f} ms  {one['products']:5.0f} products"
                        f"  error {one['error']:.1e}  tolerance {one['tolerance']:g}"
                    )
                print(f"  top {k}: {share:.3f} of PyHessian's time", flush=True)
            row["product"] = cost = cost_of_a_product(case, 3 if options.quick else 15)
            row["error_of_differences"] = apart = error_of_differences(case)
            print(
                f"  a product costs {cost['exact']:.2f} gradients (of {cost['gradient_ms']:.1f} ms), "
                f"by differences {cost['difference']:.2f}, whose top five are off by {apart:.1e}"
            )
            result["nets"][case.name] = row
    if not options.quick and options.only is None:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return int(slow)


def _list(values: Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.tolist())


if __name__ == "__main__":
    raise SystemExit(main())
