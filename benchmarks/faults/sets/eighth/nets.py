"""Nets of the eighth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import tables


class Folded(nn.Module):
    """A wide and a narrow convolution and, where sizes allow, the input, each normalized, added up and bent.

    Once it has learned, all three can be folded into one convolution.
    """

    def __init__(self, before: int, behind: int, stride: int, norm: str, act: str) -> None:
        super().__init__()
        self.wide = nn.Conv2d(before, behind, 3, stride, 1)
        self.narrow = nn.Conv2d(before, behind, 1, stride)
        around = stride == 1 and before == behind
        self.norms = nn.ModuleList(_normed(norm, behind) for _ in range(2 + around))
        self.act = getattr(nn, act)()

    def forward(self, x: Tensor) -> Tensor:
        paths = (self.wide(x), self.narrow(x), x)
        return self.act(torch.stack([n(p) for n, p in zip(self.norms, paths, strict=False)]).sum(0))


def _normed(norm: str, width: int) -> nn.Module:
    if norm == "BatchNorm2d":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(4, width) if norm == "GroupNorm" else nn.Identity()


def folded(
    channels: int = 1, width: int = 12, outputs: int = 6, norm: str = "BatchNorm2d", act: str = "ReLU",
    dropout: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Three such blocks and the mean over the picture."""
    return nn.Sequential(
        Folded(channels, width, 2, norm, act), Folded(width, 2 * width, 2, norm, act),
        Folded(2 * width, 2 * width, 1, norm, act),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(2 * width, outputs),
    )  # fmt: skip


class Known(nn.Module):
    """A convolution that sees what is known alone, and counts for the more the less of its field that is."""

    def __init__(self, before: int, behind: int, size: int, known: Tensor) -> None:
        super().__init__()
        self.look = nn.Conv2d(before, behind, size, padding=size // 2)
        seen = functional.avg_pool2d(known, size, 1, size // 2)
        self.known: Tensor
        self.share: Tensor
        self.register_buffer("known", known)
        self.register_buffer("share", torch.where(seen > 0, 1 / seen.clamp_min(1e-3), 0.0))
        self.filled = (seen > 0).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.look(x * self.known) * self.share


class Mending(nn.Module):
    """Such convolutions over a picture with a hole, which gets smaller with each; what was in the hole."""

    def __init__(
        self, channels: int = 3, width: int = 20, side: int = 16, hole: int = 6, act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        low, high = (side - hole) // 2, (side + hole) // 2
        self.hole = slice(low, high)
        known = torch.ones(1, 1, side, side)
        known[..., low:high, low:high] = 0
        layers: list[nn.Module] = []
        for before, size in ((channels, 5), (width, 5), (width, 3)):
            layer = Known(before, width, size, known)
            layers += [layer, getattr(nn, act)()]
            known = layer.filled
        self.layers = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x))[..., self.hole, self.hole].flatten(1)


class Planner(nn.Module):
    """Learns what is to be gained at each field, and what each field is worth by what is about it, some times."""

    def __init__(
        self, known: int = 2, width: int = 32, ways: int = 8, times: int = 12, moves: int = 5
    ) -> None:
        super().__init__()
        self.times = times
        self.see, self.gain = nn.Conv2d(known, width, 3, 1, 1), nn.Conv2d(width, 1, 1)
        self.plan = nn.Conv2d(1 + known, ways, 3, 1, 1)
        self.head = nn.Conv2d(ways + known, moves, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        gain = self.gain(self.see(x).relu())
        worth = gain
        for _ in range(self.times):
            worth = gain + self.plan(torch.cat((worth, x), 1)).amax(1, keepdim=True)
        ways = self.plan(torch.cat((worth, x), 1))
        return self.head(torch.cat((ways, x), 1)).flatten(2).transpose(1, 2)


class Complex(nn.Module):
    """A convolution of complex numbers, (N, 2, channels, steps), bent in both of their parts."""

    def __init__(self, before: int, behind: int, size: int, stride: int, act: str) -> None:
        super().__init__()
        self.real, self.imaginary = (
            nn.Conv1d(before, behind, size, stride, size // 2) for _ in range(2)
        )
        self.act = getattr(nn, act)()

    def forward(self, x: Tensor) -> Tensor:
        both = x.flatten(0, 1)
        real, imaginary = (look(both).unflatten(0, (-1, 2)) for look in (self.real, self.imaginary))
        one = real[:, 0] - imaginary[:, 1]
        two = real[:, 1] + imaginary[:, 0]
        return self.act(torch.stack((one, two), 1))


class Complexes(nn.Module):
    """Such convolutions over what an aerial takes in; how far each number is from zero says what was sent."""

    def __init__(
        self, width: int = 16, outputs: int = 6, act: str = "ReLU", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Complex(1, width, 7, 1, act), Complex(width, width, 5, 2, act),
            Complex(width, 2 * width, 5, 2, act),
        )  # fmt: skip
        self.wide, self.act = nn.Linear(4 * width, 4 * width), getattr(nn, act)()
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(4 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        far = (self.layers(x[:, :, None]).square().sum(1) + 1e-6).sqrt()
        told = torch.cat((far.mean(2), far.var(2).clamp_min(1e-6).sqrt()), 1)
        return self.head(self.drop(self.act(self.wide(told))))


class Posing(nn.Module):
    """A map for each joint of a figure; where the joint is, is the middle of what its map weighs."""

    def __init__(
        self, width: int = 20, joints: int = 5, side: int = 12, norm: str = "none", act: str = "ReLU"
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for before, stride in ((1, 2), (width, 1), (width, 1)):
            layers += [
                nn.Conv2d(before, width, 5, stride, 2),
                _normed(norm, width),
                getattr(nn, act)(),
            ]
        self.layers, self.head = nn.Sequential(*layers), nn.Conv2d(width, joints, 1)
        self.axis: Tensor
        self.register_buffer("axis", torch.linspace(-2, 2, side))

    def forward(self, x: Tensor) -> Tensor:
        map_ = self.head(self.layers(x))
        map_ = map_.flatten(2).softmax(2).view_as(map_)
        return torch.cat((map_.sum(3) @ self.axis, map_.sum(2) @ self.axis), 1)


class Stacked(nn.Module):
    """A recurrent net beside a stack, onto which it lays something, from which it takes, or which it leaves."""

    def __init__(
        self, vocabulary: int = 12, width: int = 40, held: int = 12, depth: int = 8
    ) -> None:
        super().__init__()
        self.held, self.depth, self.width = held, depth, width
        self.sign = nn.Embedding(vocabulary, width)
        self.move = nn.Linear(2 * width + held, width)
        self.act, self.lay = nn.Linear(width, 3), nn.Linear(width, held)
        self.head = nn.Linear(width + held, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), self.width)
        stack = torch.zeros(len(x), self.depth, self.held)
        none, told = stack[:, :1], []
        for now in self.sign(x).unbind(1):
            state = self.move(torch.cat((now, state, stack[:, 0]), 1)).tanh()
            lay, take, leave = self.act(state).softmax(1)[:, :, None, None].unbind(1)
            laid = torch.cat((self.lay(state).tanh()[:, None], stack[:, :-1]), 1)
            stack = lay * laid + take * torch.cat((stack[:, 1:], none), 1) + leave * stack
            told.append(torch.cat((state, stack[:, 0]), 1))
        return self.head(torch.stack(told, 1))


class Asked(nn.Module):
    """Looks at a picture; a question says how much of each channel counts, and where its zero is."""

    def __init__(
        self, channels: int = 3, side: int = 16, asks: int = 12, width: int = 24, outputs: int = 12,
        depth: int = 2, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.width = (channels, side, side), width
        self.stem = nn.Conv2d(channels + 2, width, 4, 4)
        self.ask = nn.Sequential(nn.Linear(asks, 48), nn.ReLU(), nn.Linear(48, 2 * depth * width))
        self.looks = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(depth))
        self.norms = nn.ModuleList(nn.GroupNorm(1, width, affine=False) for _ in range(depth))
        self.wide = nn.Linear(2 * width, 64)
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(64, outputs)
        axis = torch.linspace(-1, 1, side)
        places = torch.stack((axis[:, None].expand(side, side), axis.expand(side, side)))
        self.places: Tensor
        self.register_buffer("places", places[None])

    def forward(self, x: Tensor) -> Tensor:
        cut = self.shape[0] * self.shape[1] * self.shape[2]
        seen = x[:, :cut].unflatten(1, self.shape)
        seen = self.stem(torch.cat((seen, self.places.expand(len(x), -1, -1, -1)), 1)).relu()
        asked = self.ask(x[:, cut:])[..., None, None].split(2 * self.width, 1)
        for look, norm, both in zip(self.looks, self.norms, asked, strict=True):
            much, zero = both.chunk(2, 1)
            seen = seen + ((1 + much) * norm(look(seen)) + zero).relu()
        told = torch.cat((seen.mean((2, 3)), seen.amax((2, 3))), 1)
        return self.head(self.drop(self.wide(told).relu()))


class Filtering(nn.Module):
    """Three parts of what came in, of which one is filtered over all of its past and the others open and close it.

    What the filter is, a small net says of each distance.
    """

    def __init__(self, width: int, length: int, act: str) -> None:
        super().__init__()
        self.length = length
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.parts, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.near = nn.Parameter(torch.tensor([[0.2], [0.3], [1.0]]).repeat(1, 3 * width))
        self.far = nn.Sequential(nn.Linear(9, 24), nn.SiLU(), nn.Linear(24, width, bias=False))
        self.wide, self.narrow = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.act = getattr(nn, act)()
        step = torch.linspace(0, 1, length)[:, None]
        waves = 6.2832 * step * torch.arange(1.0, 5.0)
        self.places: Tensor
        self.fade: Tensor
        self.register_buffer("places", torch.cat((step, waves.sin(), waves.cos()), 1))
        self.register_buffer("fade", (-step * torch.linspace(1.0, 12.0, width)).exp())

    def forward(self, x: Tensor) -> Tensor:
        parts = self.parts(self.norms[0](x))
        late = functional.pad(parts, (0, 0, 2, 0))
        parts = sum(much * late[:, k : k + self.length] for k, much in enumerate(self.near))
        one, two, value = torch.as_tensor(parts).transpose(1, 2).chunk(3, 1)
        wave = torch.fft.rfft((self.far(self.places) * self.fade).T, n=2 * self.length)
        told = torch.fft.irfft(torch.fft.rfft(value * two, n=2 * self.length) * wave)
        x = x + self.out((one * told[..., : self.length]).transpose(1, 2))
        return x + self.narrow(self.act(self.wide(self.norms[1](x))))


class Filtered(nn.Module):
    """A language model of such blocks."""

    def __init__(
        self, vocabulary: int = 45, width: int = 40, depth: int = 2, length: int = 30, act: str = "GELU"
    ) -> None:  # fmt: skip
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.token.weight, std=0.3)
        self.blocks = nn.Sequential(*(Filtering(width, length, act) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.token(x))))


class Fourier(nn.Module):
    """Letters that hear of each other by the waves of their row alone, and a wide layer for each."""

    def __init__(
        self, letters: int = 45, width: int = 48, depth: int = 2, length: int = 28, outputs: int = 4,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.letter = nn.Embedding(letters, width)
        self.place = nn.Parameter(0.3 * torch.randn(length, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.wides = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Linear(3 * width, width))
            for _ in range(depth)
        )
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(width, outputs)
        turns = [6.2832 / n * torch.arange(n)[:, None] * torch.arange(n) for n in (length, width)]
        self.cosines = [turn.cos() / len(turn) ** 0.5 for turn in turns]
        self.sines = [turn.sin() / len(turn) ** 0.5 for turn in turns]

    def forward(self, x: Tensor) -> Tensor:
        seen = self.letter(x) + self.place
        for number, wide in enumerate(self.wides):
            heard = self.cosines[0] @ seen @ self.cosines[1] - self.sines[0] @ seen @ self.sines[1]
            seen = self.norms[2 * number](seen + heard)
            seen = self.norms[2 * number + 1](seen + self.drop(wide(seen)))
        return self.head(self.drop(seen.mean(1)))


NETS: dict[str, Callable[..., nn.Module]] = {
    "folded": folded,
    "mending": Mending,
    "planner": Planner,
    "complexes": Complexes,
    "posing": Posing,
    "stacked": Stacked,
    "asked": Asked,
    "filtered": Filtered,
    "fourier": Fourier,
    **tables.NETS,
}
