"""Small nets that train in seconds, and ways to spoil how they begin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(
    inputs: int, outputs: int, width: int = 64, depth: int = 3, act: type[nn.Module] = nn.ReLU,
    norm: type[nn.Module] | None = None, dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers.append(nn.Linear(inputs, width))
        layers += [norm(width)] if norm else []
        layers.append(act())
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def convnet(norm: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        *([nn.BatchNorm2d(16)] if norm else []),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


class Recurrent(nn.Module):
    """An LSTM over the rows of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.view(-1, 8, 8))[0][:, -1])


class Transformer(nn.Module):
    """A two-block character transformer."""

    def __init__(self, vocabulary: int = 96, width: int = 48, length: int = 32) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.place = nn.Embedding(length, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        self.mask: Tensor
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1])
        return self.head(self.blocks(self.token(x) + self.place(place), mask=self.mask))


class Gated(nn.Module):
    """A GRU over the letters of a line."""

    def __init__(self, vocabulary: int = 96, width: int = 64) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(self.token(x))[0])


class Block(nn.Module):
    """Two convolutions around which the input goes, too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def residual() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        Block(16),
        nn.ReLU(),
        Block(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def biased(net: nn.Module, value: float) -> nn.Module:
    """Return a net all of whose biases start at one value."""
    for module in net.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
            nn.init.constant_(module.bias, value)
    return net


def drawn(net: nn.Module, std: float | None = None) -> nn.Module:
    """Return a net with weights drawn at one deviation, or as He et al. say, and biases of zero."""
    for module in net.modules():
        if isinstance(module, nn.Linear):
            if std is None:
                nn.init.kaiming_normal_(module.weight)
            else:
                nn.init.normal_(module.weight, 0.0, std)
            nn.init.zeros_(module.bias)
    return net


def frozen_backbone() -> nn.Module:
    net = mlp(64, 10)
    assert isinstance(net, nn.Sequential)
    for parameter in net[0].parameters():
        parameter.requires_grad_(False)
    return net


def sequence_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy over all places of all lines."""
    return functional.cross_entropy(logits.flatten(0, 1), target.flatten())
