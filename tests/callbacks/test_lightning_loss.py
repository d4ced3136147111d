"""The loss of a LightningModule, run again without a word: its step's arguments, logs and results."""

from __future__ import annotations

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from otoscope.callbacks.undisturbed import lightning_loss
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
BATCH = (torch.randn(8, 4), torch.randint(0, 3, (8,)))


class Logging(pl.LightningModule):
    """A LightningModule that logs in every way it can."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.indices: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        loss = nn.functional.cross_entropy(self.head(batch[0]), batch[1])
        self.log("loss", loss)
        self.log_dict({"a": loss})
        self.logger.experiment.add_scalar("x", loss.item())  # type: ignore[union-attr]
        self.print("said")
        return {"loss": loss, "more": loss}


class Recording:
    """A logger's experiment that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def add_scalar(self, *arguments: Any) -> None:
        self.told.append(arguments)


class OwnLogger(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.own = Recording()

    @property
    def experiment(self) -> Any:
        return self.own


def attached(module: pl.LightningModule) -> tuple[pl.Trainer, OwnLogger]:
    trainer, logger = (
        pl.Trainer(logger=False, barebones=False, enable_checkpointing=False),
        OwnLogger(),
    )
    trainer.loggers = [logger]
    module.trainer = trainer
    return trainer, logger


def test_a_training_step_that_logs_is_run_without_a_word(capsys):
    module = Logging()
    trainer, logger = attached(module)
    loss_fn, why = lightning_loss(trainer, module)
    assert loss_fn is not None
    assert why == ""

    loss = loss_fn(module, BATCH)

    expected = nn.functional.cross_entropy(module.head(BATCH[0]), BATCH[1])
    assert loss.item() == expected.item()
    assert loss.requires_grad
    assert logger.own.told == []
    assert trainer.loggers == [logger]
    assert "log" not in vars(module)
    assert capsys.readouterr().out == ""


def test_a_step_that_would_end_the_training_does_not_end_it_from_a_look():
    class Careful(Logging):
        def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
            self.trainer.should_stop = True  # as where a loss is too high, which scans run into
            return {"loss": self.head(batch[0]).mean()}

    module = Careful()
    trainer, _ = attached(module)
    loss_fn, _ = lightning_loss(trainer, module)
    assert loss_fn is not None
    loss_fn(module, BATCH)
    assert trainer.should_stop is False


def test_manual_optimization_needs_a_loss_of_its_own():
    module = Logging()
    module.automatic_optimization = False
    loss_fn, why = lightning_loss(pl.Trainer(logger=False), module)
    assert loss_fn is None
    assert "manual optimization" in why
    assert "curvature_loss" in why


def test_a_module_may_offer_the_loss_whose_curvature_matters():
    class Offering(Logging):
        def curvature_loss(self, batch: Batch) -> Tensor:
            return self.head(batch[0]).square().mean()

    module = Offering()
    module.automatic_optimization = False
    trainer, _ = attached(module)
    loss_fn, _ = lightning_loss(trainer, module)
    assert loss_fn is not None
    assert loss_fn(module, BATCH).item() == module.head(BATCH[0]).square().mean().item()


@pytest.mark.parametrize(
    "step",
    [
        lambda self, batch: self.head(batch[0]).mean(),
        lambda self, batch, batch_idx: self.head(batch[0]).mean() + 0 * batch_idx,
        lambda self, batch, batch_idx, dataloader_idx=0: self.head(batch[0]).mean(),
        lambda self, *args: self.head(args[0][0]).mean(),
    ],
    ids=["batch", "index", "loader", "anything"],
)
def test_the_step_gets_the_arguments_that_it_takes(step):
    module = type("Stepping", (Logging,), {"training_step": step})()
    trainer, _ = attached(module)
    loss_fn, _ = lightning_loss(trainer, module)
    assert loss_fn is not None
    assert loss_fn(module, BATCH).item() == module.head(BATCH[0]).mean().item()


def test_a_step_without_a_loss_says_what_it_gave():
    module = type("Silent", (Logging,), {"training_step": lambda self, batch: None})()
    trainer, _ = attached(module)
    loss_fn, _ = lightning_loss(trainer, module)
    assert loss_fn is not None
    with pytest.raises(TypeError, match="gave NoneType"):
        loss_fn(module, BATCH)
