"""A checkpoint of a held-out net, and branches that leave it: many seeds at once."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from .._data import Batch, batches
from .subjects import Subject
from .training import DEFAULT, made

Weights = dict[str, Tensor]


class Checkpoint:
    """A net after some steps of SGD at its default learning rate."""

    def __init__(self, subject: Subject, steps: int) -> None:
        self.subject, self.data = subject, subject.data()
        self.net = made(subject, 0)
        optimizer = torch.optim.SGD(self.net.parameters(), lr=DEFAULT["sgd"])
        stream = batches(self.data, subject.batch, 0)
        for _ in range(steps):
            optimizer.zero_grad()
            subject.value(self.net, next(stream)).backward()
            optimizer.step()
        self.weights: Weights = {n: p.detach().clone() for n, p in self.net.named_parameters()}

        def value(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
            return subject.loss(functional_call(self.net, weights, (x,)), y)

        self._gradients = vmap(grad(value))
        self._losses = vmap(value, in_dims=(0, None, None))
        self.loss = float(self.losses(self.copies(1)).mean())

    def copies(self, count: int) -> Weights:
        """Return the weights, so many times over: [count, …] each."""
        return {n: w.expand(count, *w.shape).clone() for n, w in self.weights.items()}

    def drawn(self, count: int, size: int, generator: torch.Generator) -> Batch:
        """Return batches drawn with replacement: the theory's, and the limit of much data."""
        rows = torch.randint(len(self.data[0]), (count, size), generator=generator)
        return self.data[0][rows], self.data[1][rows]

    def gradients(self, weights: Weights, batch: Batch) -> Weights:
        """Return the gradient of each copy on its own batch."""
        return self._gradients(weights, *batch)

    def losses(self, weights: Weights) -> Tensor:
        """Return the loss of each copy over all data, [count]."""
        with torch.no_grad():
            return self._losses(weights, *self.data)

    def branch(
        self, size: int, lr: float, steps: int, every: int, count: int, seed: int = 1
    ) -> np.ndarray:
        """Return the mean loss of the branches at the start and after every so many steps.

        inf from where one of them is not finite.
        """
        generator = torch.Generator().manual_seed(seed)
        weights = self.copies(count)
        found = [float(self.losses(weights).mean())]
        for step in range(1, steps + 1):
            slopes = self.gradients(weights, self.drawn(count, size, generator))
            weights = {n: w - lr * slopes[n] for n, w in weights.items()}
            if step % every == 0:
                found.append(float(self.losses(weights).mean()))
        values = np.array(found)
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            values[broken[0] :] = math.inf
        return values


def flat(weights: Weights) -> Tensor:
    """Return copies of weights as rows, [count, d]."""
    return torch.cat([w.flatten(1) for w in weights.values()], dim=1)


def moved(weights: Weights, by: Weights, lr: float) -> Weights:
    """Return copies after a step of their own."""
    return {name: weight - lr * by[name] for name, weight in weights.items()}
