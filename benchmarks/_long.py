"""Trainings as they ought to be: usual nets, data that do not run out, and settings from the textbook."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim import lr_scheduler as schedules

from ._data import TEXT, Batch, digits
from ._nets import Recurrent, Transformer, mlp, sequence_loss
from .faults.nets import Highway, autoencoder, normed_convnet

LENGTH = 48
VOCABULARY = 96
HELD_BACK = 5
"""One file, or picture, in so many validates."""


@dataclass(frozen=True)
class Training:
    """A net, the batches that it learns from for ever, one that validates, and how it is trained.

    `schedule`: makes a scheduler of an optimizer and the steps of the run. `trainer`: arguments of
    the Trainer besides.
    """

    net: Callable[[], nn.Module]
    batches: Callable[[int, int], Iterator[Batch]]
    held: Callable[[], Batch]
    loss: Callable[[Any, Tensor], Tensor]
    optimizer: Callable[[nn.Module], Optimizer]
    schedule: Callable[[Optimizer, int], Any] | None = None
    batch: int = 64
    trainer: tuple[tuple[str, Any], ...] = ()
    task: str = "supervised"


# ---- data ------------------------------------------------------------------------------------


@cache
def _letters() -> tuple[Tensor, Tensor]:
    """Return the letters of Python's standard library, of the files that train and of the others."""
    parts: tuple[list[str], list[str]] = ([], [])
    for number, path in enumerate(sorted(TEXT.glob("*.py"))):
        text = path.read_text(encoding="utf-8", errors="ignore")
        parts[number % HELD_BACK == 0].append(text)
    train, held = (
        torch.frombuffer(bytearray("".join(part).encode("ascii", "ignore")), dtype=torch.uint8)
        for part in parts
    )
    return tuple((letters.long() - 31).clamp(0, VOCABULARY - 1) for letters in (train, held))  # type: ignore[return-value]


def _windows(letters: Tensor, size: int, draw: torch.Generator) -> Batch:
    begins = torch.randint(len(letters) - LENGTH - 1, (size,), generator=draw)
    rows = letters[begins[:, None] + torch.arange(LENGTH + 1)]
    return rows[:, :-1], rows[:, 1:]


def texts(size: int, seed: int) -> Iterator[Batch]:
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield _windows(_letters()[0], size, draw)


def held_texts() -> Batch:
    return _windows(_letters()[1], 128, torch.Generator().manual_seed(9))


@cache
def _pictures() -> tuple[Batch, Batch]:
    x, y = digits()
    held = torch.arange(len(x)) % HELD_BACK == 0
    return (x[~held], y[~held]), (x[held], y[held])


def pictures(size: int, seed: int) -> Iterator[Batch]:
    """Yield digits that were moved, stretched and blurred by noise: none comes twice."""
    draw = torch.Generator().manual_seed(seed)
    x, y = _pictures()[0]
    while True:
        for rows in torch.randperm(len(x), generator=draw).split(size):
            if len(rows) == size:
                yield _moved(x[rows], draw), y[rows]


def _moved(x: Tensor, draw: torch.Generator) -> Tensor:
    n = len(x)
    turn = 0.15 * torch.randn(n, generator=draw)
    size = 1 + 0.08 * torch.randn(n, generator=draw)
    by = 0.1 * torch.randn(n, 2, generator=draw)
    rows = torch.stack([size * turn.cos(), -size * turn.sin(), by[:, 0]], 1)
    columns = torch.stack([size * turn.sin(), size * turn.cos(), by[:, 1]], 1)
    grid = functional.affine_grid(
        torch.stack([rows, columns], 1), [n, 1, 8, 8], align_corners=False
    )
    moved = functional.grid_sample(x.view(n, 1, 8, 8), grid, align_corners=False).flatten(1)
    return moved + 0.05 * torch.randn(n, 64, generator=draw)


def held_pictures() -> Batch:
    return _pictures()[1]


def noised(size: int, seed: int) -> Iterator[Batch]:
    """Yield digits under noise, and the digits themselves."""
    draw = torch.Generator().manual_seed(seed + 1)
    for x, _ in pictures(size, seed):
        yield x + 0.3 * torch.randn(x.shape, generator=draw), x


def held_noised() -> Batch:
    x = held_pictures()[0]
    return x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(9)), x


def pairs(size: int, seed: int) -> Iterator[Batch]:
    """Yield each digit twice, moved in two ways."""
    draw = torch.Generator().manual_seed(seed)
    x, _ = _pictures()[0]
    while True:
        rows = torch.randint(len(x), (size,), generator=draw)
        yield torch.cat([_moved(x[rows], draw), _moved(x[rows], draw)]), torch.arange(size)


def held_pairs() -> Batch:
    return next(pairs(64, 9))


@cache
def _teacher() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return mlp(20, 1, width=24, depth=2, act=nn.Tanh).requires_grad_(False)


def measured(size: int, seed: int) -> Iterator[Batch]:
    """Yield twenty numbers each, and what an unknown net makes of them, under noise."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(size, 20, generator=draw)
        y = 4 * _teacher()(x) + 0.2 * torch.randn(size, 1, generator=draw)
        yield x, y


def held_measured() -> Batch:
    return next(measured(1024, 9))


# ---- nets and losses -------------------------------------------------------------------------


class Lines(nn.Module):
    """A recurrent net over letters, with dropout between its two layers."""

    def __init__(self, kind: type[nn.RNNBase], width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, width)
        dropout = 0.1 if layers > 1 else 0.0
        self.cells = kind(width, width, layers, batch_first=True, dropout=dropout)  # type: ignore[misc]
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cells(self.token(x))[0])


class Variational(nn.Module):
    """A variational autoencoder: the picture anew, and the code's means and log-variances."""

    def __init__(self, code: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 2 * code))
        self.decoder = nn.Sequential(nn.Linear(code, 96), nn.ReLU(), nn.Linear(96, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, -1)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        return self.decoder(mean + (0.5 * log_variance).exp() * noise), mean, log_variance


def lower_bound(outputs: tuple[Tensor, Tensor, Tensor], x: Tensor) -> Tensor:
    """Return the negative evidence lower bound of a normal likelihood, in nats a picture."""
    again, mean, log_variance = outputs
    distance = 0.5 * ((again - x) / 0.2).square().sum(-1)
    apart = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
    return (distance + apart).mean()


def rebuilt(size: int, seed: int) -> Iterator[Batch]:
    for x, _ in pictures(size, seed):
        yield x, x


def held_rebuilt() -> Batch:
    x = held_pictures()[0]
    return x, x


def nearest(codes: Tensor, same: Tensor) -> Tensor:
    """Return InfoNCE of pairs at temperature 0.2 (van den Oord et al. 2018)."""
    left, right = functional.normalize(codes, dim=-1).chunk(2)
    return functional.cross_entropy(left @ right.T / 0.2, same)


def grouped(net: nn.Module, lr: float, decay: float) -> Optimizer:
    """Return AdamW that lets biases, norms and embeddings be."""
    held = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    is_plain = {name: p.ndim < 2 or "token" in name or "place" in name for name, p in held}
    parts = [
        {"params": [p for name, p in held if not is_plain[name]], "weight_decay": decay},
        {"params": [p for name, p in held if is_plain[name]], "weight_decay": 0.0},
    ]
    return AdamW(parts, lr=lr, betas=(0.9, 0.95))


# ---- schedules -------------------------------------------------------------------------------


def warmed_cosine(optimizer: Optimizer, steps: int, warm: int = 200) -> Any:
    def factor(step: int) -> float:
        along = max(0.0, (step - warm) / max(1, steps - warm))
        return (step + 1) / warm if step < warm else 0.05 + 0.475 * (1 + math.cos(math.pi * along))

    return schedules.LambdaLR(optimizer, factor)


def cosine(optimizer: Optimizer, steps: int) -> Any:
    return schedules.CosineAnnealingLR(optimizer, steps)


def stairs(optimizer: Optimizer, steps: int) -> Any:
    return schedules.MultiStepLR(optimizer, [steps // 2, 3 * steps // 4])


def restarts(optimizer: Optimizer, steps: int) -> Any:
    return schedules.CosineAnnealingWarmRestarts(optimizer, max(1, steps // 4), eta_min=1e-5)


def one_cycle(optimizer: Optimizer, steps: int) -> Any:
    return schedules.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps + 1)


def falling(optimizer: Optimizer, steps: int) -> Any:
    return schedules.ExponentialLR(optimizer, 0.05 ** (1 / steps))


# ---- the trainings ---------------------------------------------------------------------------

CLIPPED = (("gradient_clip_val", 1.0),)
on_texts = {"batches": texts, "held": held_texts, "loss": sequence_loss, "batch": 16}
on_pictures = {"batches": pictures, "held": held_pictures, "loss": functional.cross_entropy}

TRAININGS: dict[str, Training] = {
    "gpt": Training(
        partial(Transformer, VOCABULARY, 48, LENGTH), **on_texts,
        optimizer=partial(grouped, lr=2e-3, decay=0.1), schedule=warmed_cosine, trainer=CLIPPED,
    ),
    "gpt, accumulated": Training(
        partial(Transformer, VOCABULARY, 48, LENGTH), **{**on_texts, "batch": 8},
        optimizer=partial(grouped, lr=2e-3, decay=0.1), schedule=warmed_cosine,
        trainer=(*CLIPPED, ("accumulate_grad_batches", 2)),
    ),
    "lstm": Training(
        partial(Lines, nn.LSTM), **on_texts,
        optimizer=lambda net: Adam(net.parameters(), 2e-3), trainer=CLIPPED,
    ),
    "gru, restarts": Training(
        partial(Lines, nn.GRU, layers=1), **on_texts,
        optimizer=lambda net: Adam(net.parameters(), 3e-3), schedule=restarts, trainer=CLIPPED,
    ),
    "convnet, stairs": Training(
        normed_convnet, **on_pictures,
        optimizer=lambda net: SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True),
        schedule=stairs,
    ),
    "convnet, one cycle": Training(
        partial(normed_convnet, norm="GroupNorm"), **on_pictures,
        optimizer=lambda net: AdamW(net.parameters(), 3e-3, weight_decay=0.01), schedule=one_cycle,
    ),
    "mlp, dropout": Training(
        partial(mlp, 64, 10, 128, 2, dropout=0.2), **on_pictures,
        optimizer=lambda net: SGD(net.parameters(), 0.05, 0.9),
    ),
    "mlp, plain": Training(
        partial(mlp, 64, 10, 64, 3), **on_pictures, optimizer=lambda net: Adam(net.parameters()),
    ),
    "residual mlp, smoothed": Training(
        partial(Highway, 64, 10),
        **{**on_pictures, "loss": partial(functional.cross_entropy, label_smoothing=0.1)},
        optimizer=lambda net: AdamW(net.parameters(), 1e-3, weight_decay=0.05), schedule=warmed_cosine,
    ),
    "lstm over rows": Training(
        Recurrent, **on_pictures, optimizer=lambda net: RMSprop(net.parameters(), 1e-3), trainer=CLIPPED,
    ),
    "denoiser": Training(
        autoencoder, noised, held_noised, functional.mse_loss,
        optimizer=lambda net: Adam(net.parameters(), 2e-3), schedule=falling,
    ),
    "variational": Training(
        Variational, rebuilt, held_rebuilt, lower_bound,
        optimizer=lambda net: Adam(net.parameters(), 1e-3),
    ),
    "contrastive": Training(
        partial(mlp, 64, 24, 96, 2), pairs, held_pairs, nearest, task="contrastive",
        optimizer=lambda net: Adam(net.parameters(), 1e-3), schedule=cosine,
    ),
    "regression": Training(
        partial(mlp, 20, 1, 64, 2, nn.Tanh), measured, held_measured, functional.huber_loss,
        optimizer=lambda net: SGD(net.parameters(), 0.05, 0.9), schedule=cosine,
    ),
}  # fmt: skip
"""Fourteen, none of which anything is wrong with."""
