"""A small laboratory: real training on digits, written as frames with the recorder's columns.

It knows nothing of the recorder, so that rules can be tried on runs of any kind in a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from otoscope.callbacks.measures import edge_of_stability, hessian_eigenvalues
from otoscope.callbacks.schedule import Schedule
from otoscope.store import Column, Event, Frame, MemoryHome, Schema, Store
from sklearn.datasets import load_digits
from torch import nn

RUN = "lab-01"
TRAIN = ("loss", "lr", "grad_sq", "non_finite", "samples")
POOL = 4


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    pixels, target = load_digits(return_X_y=True)
    x = torch.tensor(np.asarray(pixels) / 16.0, dtype=torch.float32)
    return (x - x.mean()) / x.std(), torch.tensor(np.asarray(target))


def mlp(
    widths: Sequence[int] = (64, 64, 64),
    activation: type[nn.Module] = nn.ReLU,
    extra: Callable[[int], list[nn.Module]] = lambda width: [],
) -> nn.Sequential:
    layers: list[nn.Module] = []
    before = 64
    for width in widths:
        layers += [nn.Linear(before, width), *extra(width), activation()]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, 10))


@dataclass
class Lab:
    """One training run: `train()` writes its frames into a MemoryHome and returns its store."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int = 400
    batch: int = 64
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = nn.functional.cross_entropy
    schedule: Callable[[int], float] = lambda step: 1.0
    clip: float | None = None
    spoil: Callable[[int, torch.Tensor], torch.Tensor] = lambda step, x: x
    seed: int = 0
    every: int = 10
    curvature: int = 100
    data: tuple[torch.Tensor, torch.Tensor] | None = None
    events: list[Event] = field(default_factory=list)
    meta: dict[str, object] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    schemas: dict[str, Schema] = field(default_factory=dict)

    def train(self) -> Store:
        home = MemoryHome()
        self.record()
        home.write_meta(RUN, self.told())
        for schema in self.schemas.values():
            home.add_schema(RUN, schema)
        home.append(RUN, self.frames, [Event("started", body={"world_size": 1}), *self.events])
        return Store(home)

    def told(self) -> dict[str, object]:
        group = self.optimizer.param_groups[0]
        keys = ("lr", "betas", "momentum", "nesterov", "weight_decay")
        told = {key: group[key] for key in keys if key in group}
        held = {id(p) for g in self.optimizer.param_groups for p in g["params"]}
        told["betas"] = list(told["betas"]) if "betas" in told else None
        return {
            "name": "lab",
            "batch_size": self.batch,
            "optimizers": [{"name": type(self.optimizer).__name__, **told}],
            "parameters": [
                {
                    "name": name,
                    "layer": name.rpartition(".")[0],
                    "kind": "weight" if p.ndim > 1 else "bias",
                    "ndim": p.ndim,
                    "numel": p.numel(),
                    "requires_grad": p.requires_grad,
                    "optimized": id(p) in held,
                }
                for name, p in self.model.named_parameters()
            ],
            "progress": {"step": self.steps},
            **self.meta,
        }

    def record(self) -> None:
        x, y = self.data or digits()
        draw = torch.Generator().manual_seed(self.seed)
        named: dict[str, torch.Tensor] = {}
        for name, p in self.model.named_parameters():
            if p.ndim > 1 and p.requires_grad:
                named.setdefault(name.rpartition(".")[0], p)
        weights = list(named.items())
        acts = [(n, m) for n, m in self.model.named_modules() if isinstance(m, nn.ReLU)]
        base = [group["lr"] for group in self.optimizer.param_groups]
        pool: list[torch.Tensor] = []
        schedule = Schedule()
        for step in range(1, self.steps + 1):
            for group, lr in zip(self.optimizer.param_groups, base, strict=True):
                group["lr"] = lr * self.schedule(step)
            rows = torch.randint(len(x), (self.batch,), generator=draw)
            pool = [*pool, rows][-POOL:]
            self.model.train()
            loss = self.loss(self.model(self.spoil(step, x[rows])), y[rows])
            self.optimizer.zero_grad()
            loss.backward()
            grads = [p.grad for p in self.model.parameters() if p.grad is not None]
            norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in grads))
            squares = [float((p.grad**2).sum()) if p.grad is not None else 0.0 for _, p in weights]
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            change = schedule.observe(step, self.optimizer.param_groups[0]["lr"])
            if change is not None:
                body = {"from": change.before, "to": change.after, "phase": change.phase}
                self.events.append(Event("lr", step=step, body=body, id=f"lr-{step}"))
            sampled = step % self.every == 0 or step == 1
            before = [p.detach().clone() for _, p in weights] if sampled else []
            self.optimizer.step()
            if sampled:
                self._gradients(step, weights, before, squares)
                if acts:
                    self._activations(step, acts, x)
            if self.curvature and (step == 20 or step % self.curvature == 0):
                self._curvature(step, x, y, torch.cat(pool))
            bad = sum(not math.isfinite(v) for v in (loss.item(), norm))
            rate = self.optimizer.param_groups[0]["lr"]
            self._frame(
                "train",
                [
                    Column.of("loss", ranks="mean"),
                    Column("lr/0.0", "lr"),
                    *map(Column.of, TRAIN[2:]),
                ],
                step,
                [loss.item(), rate, norm**2, bad, self.batch],
            )
        if not any(event.kind == "finished" for event in self.events):
            self.events.append(Event("finished", step=self.steps, body={"reason": "done"}))

    def _gradients(self, step, weights, before, squares) -> None:  # type: ignore[no-untyped-def]
        rows: dict[str, list[float]] = {
            "grad_sq": squares,
            "weight_sq": [float((p.detach() ** 2).sum()) for _, p in weights],
            "update_sq": [
                float(((p.detach() - b) ** 2).sum())
                for (_, p), b in zip(weights, before, strict=True)
            ],
            "numel": [p.numel() for _, p in weights],
        }
        columns = [Column.of(q, layer=layer, group="weight") for q in rows for layer, _ in weights]
        self._frame("gradients", columns, step, [v for values in rows.values() for v in values])

    def _activations(self, step, acts, x) -> None:  # type: ignore[no-untyped-def]
        seen: dict[str, torch.Tensor] = {}
        hooks = [
            m.register_forward_hook(lambda m, i, o, n=n: seen.__setitem__(n, o)) for n, m in acts
        ]
        modes = [(m, m.training) for m in self.model.modules()]
        self.model.eval()
        with torch.no_grad():
            self.model(x[:512])
        for module, mode in modes:
            module.training = mode
        for hook in hooks:
            hook.remove()
        columns, values = [], []
        for name, out in seen.items():
            channels = 1 if out.ndim == 4 else out.ndim - 1
            highest = out.transpose(channels, -1).flatten(0, -2).amax(0)
            for quantity, value in (
                ("dead", float((highest <= 0).sum())),
                ("units", len(highest)),
                ("samples", 512),
            ):
                columns.append(Column.of(quantity, layer=name))
                values.append(value)
        self._frame("activations", columns, step, values)

    def _curvature(self, step, x, y, rows) -> None:  # type: ignore[no-untyped-def]
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        try:
            spectrum = hessian_eigenvalues(
                lambda: self.loss(self.model(x[rows]), y[rows]),
                parameters,
                k=1,
                tol=1e-2,
                max_products=8,
                generator=torch.Generator().manual_seed(0),
            )
            top = float(spectrum.values[0])
        except (RuntimeError, ValueError, ArithmeticError):
            top = math.nan
        group = self.optimizer.param_groups[0]
        edge = math.nan
        if isinstance(self.optimizer, torch.optim.SGD) and math.isfinite(top):
            edge = (
                top / edge_of_stability("SGD", group["lr"], momentum=group["momentum"])
                if group["lr"]
                else 0.0
            )
        self._frame(
            "curvature",
            [Column.of(q) for q in ("lambda_1", "lambda_spread", "edge_ratio")],
            step,
            [top, abs(top) * 0.2, edge],
        )

    def _frame(
        self, family: str, columns: Sequence[Column], step: int, values: Sequence[float]
    ) -> None:
        schema = self.schemas.setdefault(family, Schema(family, tuple(columns)))
        with np.errstate(over="ignore"):
            vector = np.array(values, dtype=np.float64).astype(np.float32)
        self.frames.append(Frame(family, 0, 1, step, 1e9 + step, schema.hash, vector))
