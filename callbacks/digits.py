"""The demo's task: a small convnet that reads handwritten digits, and the faults planted in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..store import ConfigError, MissingExtraError

CLASSES = 10
TRAINING = 1280
"""Images to train on; the other 517 of the set are held out."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    cls.__name__: cls for cls in (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Tanh)
}


@dataclass(frozen=True)
class Settings:
    """Everything of a training that a recommendation may change, at its healthy value.

    `activation` maps layers to activation names, `weight_init` layers to {"kind", "std"};
    `rollback` is {"step", "path"}: begin with the weights of that checkpoint, at that step.
    """

    optimizer: str = "SGD"
    lr: float = 0.1
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    dropout: float = 0.0
    batch_size: int = 128
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    warmup_steps: int = 0
    activation: dict[str, str] = field(default_factory=dict)
    weight_init: dict[str, dict[str, Any]] = field(default_factory=dict)
    rollback: dict[str, Any] | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a training, and the healthy settings of its twin.

    Wrong are settings (`wrong`), biases at the start (`bias`), or one batch in `glitch_every` from
    batch `glitch_from` on, whose images come multiplied by `glitch_scale`.
    """

    healthy: Settings = field(default_factory=Settings)
    wrong: dict[str, Any] = field(default_factory=dict)
    bias: dict[str, float] = field(default_factory=dict)
    glitch_every: int = 0
    glitch_from: int = 0
    glitch_scale: float = 1.0

    @property
    def settings(self) -> Settings:
        """The settings with those that are wrong."""
        return replace(self.healthy, **self.wrong)

    @property
    def twin(self) -> Fault:
        """The same training without the fault."""
        return Fault(self.healthy)


FAULTS: dict[str, Fault] = {
    # far beyond 2 / largest eigenvalue: half of it does not train either
    "lr_too_high": Fault(wrong={"lr": 3.0}),
    # batches of a shard that nobody normalised
    "exploding_gradients": Fault(glitch_every=16, glitch_from=150, glitch_scale=100.0),
    # a hidden layer that begins out of reach of every image
    "dead_units": Fault(Settings(optimizer="Adam", lr=0.001), bias={"dense": -5.0}),
}


class DigitsNet(nn.Sequential):
    """Two convolutions and two dense layers, 85,000 parameters; input [B, 1, 8, 8], output [B, 10].

    >>> DigitsNet(Fault())(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, fault: Fault, settings: Settings | None = None):
        settings = settings or fault.settings
        super().__init__(
            OrderedDict(
                conv1=nn.Conv2d(1, 32, 3, padding=1),
                act1=nn.ReLU(),
                conv2=nn.Conv2d(32, 64, 3, stride=2, padding=1),
                act2=nn.ReLU(),
                flatten=nn.Flatten(),
                dropout=nn.Dropout(settings.dropout),
                dense=nn.Linear(64 * 4 * 4, 64),
                act3=nn.ReLU(),
                head=nn.Linear(64, CLASSES),
            )
        )
        for module in self:
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        for layer, value in fault.bias.items():
            nn.init.constant_(self.get_parameter(f"{layer}.bias"), value)
        for layer, name in settings.activation.items():
            self.get_submodule(layer)
            self.set_submodule(layer, _activation(name))
        for layer, init in settings.weight_init.items():
            _initialize(self.get_submodule(layer), init)


def _activation(name: str) -> nn.Module:
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def _initialize(module: nn.Module, init: dict[str, Any]) -> None:
    """Draw a layer's weights anew, with biases of zero."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        raise ConfigError(f"weight_init needs a layer with weights, got {type(module).__name__}")
    if init.get("std") is not None:
        nn.init.normal_(weight, std=float(init["std"]))
    elif init.get("kind") == "kaiming_normal":
        nn.init.kaiming_normal_(weight)
    elif init.get("kind") == "xavier_normal":
        nn.init.xavier_normal_(weight)
    else:
        raise ConfigError(
            f"weight_init needs a std or a kind of kaiming_normal or xavier_normal, got {init!r}"
        )
    if isinstance(getattr(module, "bias", None), Tensor):
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Digits:
    """Scikit-learn's handwritten digits: images [n, 1, 8, 8] in [0, 1] and labels [n]."""

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor


def load_digits() -> Digits:
    """Return the digits, always split in the same way."""
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise MissingExtraError(
            "the demo's data comes with scikit-learn; "
            "install it with `pip install 'otoscope[lightning]'`"
        ) from error
    data: Any = load()
    images = torch.tensor(data.data, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, held = order[:TRAINING], order[TRAINING:]
    return Digits(images[train], labels[train], images[held], labels[held])


class Batches:
    """Shuffled batches of the digits, epoch after epoch, with the glitches of a fault.

    The order depends on the seed alone; glitches count the batches since the start.
    """

    def __init__(self, digits: Digits, batch_size: int, seed: int, fault: Fault):
        self._digits, self.batch_size, self._fault = digits, batch_size, fault
        self._generator = torch.Generator().manual_seed(seed)
        self._count = 0

    def __len__(self) -> int:
        return len(self._digits.labels) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self._digits.labels), generator=self._generator)
        for rows in order[: len(self) * self.batch_size].split(self.batch_size):
            self._count += 1
            images = self._digits.images[rows]
            if self._is_glitch():
                images = images * self._fault.glitch_scale
            yield images, self._digits.labels[rows]

    def _is_glitch(self) -> bool:
        every, behind = self._fault.glitch_every, self._count - self._fault.glitch_from
        return every > 0 and behind >= 0 and behind % every == 0
