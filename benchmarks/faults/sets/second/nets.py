"""Further nets: held out until they were looked at, and tuned on since."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "GroupNorm":
        return nn.GroupNorm(8, channels)
    return nn.BatchNorm2d(channels) if kind == "BatchNorm2d" else nn.Identity()


class Excited(nn.Module):
    """A convolution apart for each channel, one across them, and a gate on every channel."""

    def __init__(self, before: int, behind: int, stride: int, norm: str) -> None:
        super().__init__()
        bias = norm not in ("GroupNorm", "BatchNorm2d")
        self.apart = nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=bias)
        self.across = nn.Conv2d(before, behind, 1, bias=bias)
        self.norm = _norm(norm, behind)
        self.act = nn.ReLU()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(behind, 8, 1), nn.ReLU(), nn.Conv2d(8, behind, 1),
            nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.across(self.apart(x))))
        return x * self.gate(x)


def squeezed(width: int = 16, norm: str = "BatchNorm2d", outputs: int = 10) -> nn.Module:
    """A depthwise-separable convnet with squeeze and excitation, over colour pictures."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 1, 1), _norm(norm, width), nn.ReLU(),
        Excited(width, 2 * width, 2, norm), Excited(2 * width, 4 * width, 2, norm),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.0), nn.Linear(4 * width, outputs),
    )  # fmt: skip


class Concatenating(nn.Module):
    """A dense block: every convolution sees what all before it made."""

    def __init__(
        self, channels: int = 3, growth: int = 12, depth: int = 4, outputs: int = 10,
        act: str = "ReLU", norm: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = nn.Conv2d(channels, 2 * growth, 3, 2, 1)
        wide = [growth * (2 + number) for number in range(depth + 1)]
        self.layers = nn.ModuleList(
            nn.Sequential(
                _norm(norm, before), getattr(nn, act)(), nn.Conv2d(before, growth, 3, 1, 1)
            )
            for before in wide[:-1]
        )
        self.act = getattr(nn, act)()
        self.head = nn.Linear(wide[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat((x, layer(x)), 1)
        return self.head(self.act(x).mean((2, 3)))


class Attending(nn.Module):
    """Attention and a gated layer, each normalized by its root mean square before, or after."""

    def __init__(self, width: int, heads: int, post: bool) -> None:
        super().__init__()
        self.heads, self.post = heads, post
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.mixed = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gated = Swish(width, 2 * width)

    def attended(self, x: Tensor) -> Tensor:
        split = self.mixed(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(split[0], split[1], split[2])
        return self.out(seen.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.post:
            x = self.norms[0](x + self.attended(x))
            return self.norms[1](x + self.gated(x))
        x = x + self.attended(self.norms[0](x))
        return x + self.gated(self.norms[1](x))


class Patches(nn.Module):
    """A vision transformer: pieces of 3 by 3 pixels, learned places, the mean over the pieces."""

    def __init__(
        self, width: int = 48, depth: int = 2, heads: int = 4, side: int = 12, outputs: int = 10,
        post: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pieces = nn.Conv2d(3, width, 3, 3)
        self.place = nn.Parameter(0.2 * torch.randn(1, (side // 3) ** 2, width))
        self.blocks = nn.Sequential(*(Attending(width, heads, post) for _ in range(depth)))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pieces(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x + self.place)).mean(1))


class Past(nn.Module):
    """A causal convolution over every so many letters, around which the input goes, too."""

    def __init__(self, width: int, apart: int, act: str) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((2 * apart, 0), 0.0)
        self.wide = nn.Conv1d(width, width, 3, dilation=apart)
        self.act = getattr(nn, act)()
        self.narrow = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(self.act(self.wide(self.pad(x))))


class Dilated(nn.Module):
    """A temporal convolutional net over letters: each layer looks twice as far back."""

    def __init__(
        self, vocabulary: int = 96, width: int = 32, depth: int = 4, outputs: int = 5, act: str = "GELU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(*(Past(width, 2**level, act) for level in range(depth)))
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.token(x).transpose(1, 2)).mean(2))


class BothWays(nn.Module):
    """A recurrent net that reads from both ends, pooled by attention."""

    def __init__(self, vocabulary: int = 96, width: int = 32, outputs: int = 5) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.read = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.weigh = nn.Linear(2 * width, 1)
        self.head = nn.Linear(2 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        read = self.read(self.token(x))[0]
        return self.head((self.weigh(read).softmax(1) * read).sum(1))


class PointSet(nn.Module):
    """The same layers for every point of a cloud, and the largest of each feature over the points."""

    def __init__(self, width: int = 32, outputs: int = 10, act: str = "ReLU") -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.each = nn.Sequential(
            nn.Conv1d(3, width, 1), kind(), nn.Conv1d(width, 2 * width, 1), kind(),
            nn.Conv1d(2 * width, 4 * width, 1), kind(),
        )  # fmt: skip
        self.all = nn.Sequential(
            nn.Linear(4 * width, 2 * width), kind(), nn.Linear(2 * width, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.all(self.each(x).amax(2))


class Swish(nn.Module):
    """A layer whose one half opens and closes the other."""

    def __init__(self, width: int, wide: int) -> None:
        super().__init__()
        self.gate, self.value = nn.Linear(width, wide), nn.Linear(width, wide)
        self.act, self.out = nn.SiLU(), nn.Linear(wide, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.gate(x)) * self.value(x))


class Gates(nn.Module):
    """Gated layers over the columns of a table, each normalized by its root mean square before."""

    def __init__(
        self, inputs: int, outputs: int, width: int = 64, depth: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(width), Swish(width, 2 * width), nn.Dropout(dropout))
            for _ in range(depth)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Largest(nn.Module):
    """A layer of which each unit is the largest of some linear pieces."""

    def __init__(self, inputs: int, width: int, pieces: int) -> None:
        super().__init__()
        self.linear, self.pieces = nn.Linear(inputs, width * pieces), pieces

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


def maxout(
    inputs: int, outputs: int, width: int = 64, depth: int = 3, pieces: int = 3, dropout: float = 0.0
) -> nn.Module:  # fmt: skip
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [Largest(inputs, width, pieces), nn.Dropout(dropout)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Denoiser(nn.Module):
    """A small U-Net: down, and up again beside what was seen on the way down."""

    def __init__(self, width: int = 8, act: str = "ReLU") -> None:
        super().__init__()
        kind = getattr(nn, act)
        self.fine = nn.Sequential(nn.Conv2d(1, width, 3, 1, 1), kind())
        self.coarse = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), kind())
        self.deep = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, 1, 1), kind())
        self.up = nn.Upsample(scale_factor=2)
        self.back = nn.Sequential(nn.Conv2d(3 * width, width, 3, 1, 1), kind())
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        return self.out(self.back(torch.cat((fine, self.up(self.deep(self.coarse(fine)))), 1)))


class Towers(nn.Module):
    """One tower that both of a pair go through, and a head that compares what came out."""

    def __init__(
        self, inputs: int = 64, width: int = 96, depth: int = 2, outputs: int = 3, act: str = "ReLU"
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(width if number else inputs, width), getattr(nn, act)()]
        self.tower = nn.Sequential(*layers)
        self.compare = nn.Sequential(
            nn.Linear(2 * width, width), getattr(nn, act)(), nn.Linear(width, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.compare(self.tower(x).flatten(1))


class Factorized(nn.Module):
    """A factorization machine, and a deep net beside it."""

    def __init__(
        self, inputs: int, outputs: int, factors: int = 16, width: int = 96, depth: int = 2,
        act: str = "ReLU",
    ) -> None:  # fmt: skip
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.factors = nn.Parameter(0.1 * torch.randn(inputs, factors))
        self.crossed = nn.Linear(factors, outputs, bias=False)
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(width if number else inputs, width), getattr(nn, act)()]
        self.deep = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        pairs = ((x @ self.factors) ** 2 - x**2 @ self.factors**2) / 2
        return self.linear(x) + self.crossed(pairs) + self.deep(x)


NETS: dict[str, Callable[..., nn.Module]] = {
    "squeezed": squeezed,
    "concatenating": Concatenating,
    "patches": Patches,
    "dilated": Dilated,
    "both_ways": BothWays,
    "point_set": PointSet,
    "gates": Gates,
    "maxout": maxout,
    "denoiser": Denoiser,
    "towers": Towers,
    "factorized": Factorized,
}
