"""Names of a log's curves: which is the loss, the rate, the gradient norm, the epoch, a score of a validation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sized

LOSSES = ("train_loss_step", "train_loss", "training_loss", "loss", "loss_train", "loss_step",
          "train_loss_epoch", "loss_epoch", "batch_loss", "total_loss", "train_total_loss",
          "train_cross_entropy", "objective", "nll", "train_nll")  # fmt: skip
RATES = ("lr", "learning_rate", "train_lr", "train_learning_rate", "lr_0", "optim_lr", "params_lr")
NORMS = ("grad_norm", "gradient_norm", "train_grad_norm", "gradnorm", "total_grad_norm", "grad_norm_total",
         "global_grad_norm", "train_gradient_norm", "grad_2_0_norm_total", "gnorm")  # fmt: skip
EPOCHS = ("epoch", "train_epoch", "current_epoch", "epochs")
VALIDATION = ("val", "valid", "validation", "eval", "dev", "test")
"""Words of a name that tell of a validation, the likeliest first."""
NOT_SCORES = ("runtime", "second", "step", "epoch", "sample", "time", "lr", "token")
"""Words in the names of what is counted or timed while validating."""
ALIKE = 2
"""Curves are about equally long where the longest has at most so many times the values of the other."""

Curves = Mapping[str, Sized]


def plain_name(name: str) -> str:
    """Return the name of a curve as it is compared: without the run in front, in one kind of writing.

    >>> plain_name("run-7 - Train/Loss"), plain_name("lr-AdamW/pg1"), plain_name("grad_2.0_norm_total")
    ('train_loss', 'lr_adamw_pg1', 'grad_2_0_norm_total')
    """
    return re.sub(r"[^a-z0-9]+", "_", name.rpartition(" - ")[2].lower()).strip("_")


def signals(curves: Curves) -> dict[str, str]:
    """Return {signal: name of its curve}: loss, lr, grad_norm, epoch, and val_… for each score of a validation.

    Where several names are known, the curve with the most values counts: a summary at the end of a
    log is one value. Of those that are about equally long the likeliest name does.

    >>> signals({"loss": range(300), "train_loss": range(1), "eval_loss": range(6)})
    {'loss': 'loss', 'val_loss': 'eval_loss'}
    """
    names = of_training(curves)
    starting = [plain for plain in names.values() if plain.startswith(("lr_", "learning_rate_"))]
    found = {
        "loss": loss_of(curves),
        "lr": _one_of(names, curves, (*RATES, *starting)),
        "grad_norm": _one_of(names, curves, NORMS),
        "epoch": _one_of(names, curves, EPOCHS),
    }
    known = {signal: name for signal, name in found.items() if name is not None}
    return known | _scores(curves)


def loss_of(curves: Curves) -> str | None:
    """Return the name of the loss of training, None where no name tells which it is.

    >>> loss_of({"val_loss": range(9), "my_loss": range(9)}), loss_of({"a_loss": "", "b_loss": ""})
    ('my_loss', None)
    """
    names = of_training(curves)
    alone = [name for name, plain in names.items() if "loss" in plain.split("_")]
    return _one_of(names, curves, LOSSES) or (alone[0] if len(alone) == 1 else None)


def of_training(curves: Iterable[str]) -> dict[str, str]:
    """Return {name: plain name} of the curves that are not of a validation."""
    return {name: plain for name, plain in _plain(curves).items() if _validation(plain) is None}


def _scores(curves: Curves) -> dict[str, str]:
    """Return {val_…: name of its curve}; none of a word that is less likely than the one with the loss."""
    found = dict[str, dict[str, str]]()  # the names of each score, the likeliest first
    for word in VALIDATION:
        for name, plain in _plain(curves).items():
            if _validation(plain) == word and not any(part in plain for part in NOT_SCORES):
                found.setdefault(_score(plain, word), {})[name] = word
    chosen = {score: _longest(list(names), curves) for score, names in found.items()}
    if "val_loss" not in chosen:
        return chosen
    last = VALIDATION.index(found["val_loss"][chosen["val_loss"]])
    return {
        score: name
        for score, name in chosen.items()
        if VALIDATION.index(found[score][name]) <= last
    }


def _one_of(names: Mapping[str, str], curves: Curves, wanted: Iterable[str]) -> str | None:
    by_plain = {plain: name for name, plain in reversed(list(names.items()))}
    known = [by_plain[plain] for plain in wanted if plain in by_plain]
    return _longest(known, curves) if known else None


def _longest(names: list[str], curves: Curves) -> str:
    """Return the longest of some curves, of those about as long the one that is named first."""
    most = max(len(curves[name]) for name in names)
    return next(name for name in names if ALIKE * len(curves[name]) >= most)


def _plain(names: Iterable[str]) -> dict[str, str]:
    """Return {name: plain name}, without the bounds that Weights & Biases exports beside a curve."""
    return {name: plain_name(name) for name in names if not name.endswith(("__MIN", "__MAX"))}


def _validation(plain: str) -> str | None:
    """Return the word by which a name tells of a validation, None where it tells of none."""
    words = plain.split("_")
    return next((word for word in VALIDATION if word in words), None)


def _score(plain: str, word: str) -> str:
    """Return the name under which a score of a validation is recorded.

    >>> _score("eval_accuracy", "eval"), _score("loss_val_epoch", "val")
    ('val_accuracy', 'val_loss')
    """
    words = [part for part in plain.split("_") if part not in (word, "epoch")]
    return "_".join(["val", *words])
