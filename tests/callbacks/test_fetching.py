"""Waiting for data is the time in the loader: loggers, callbacks and a slow device are none of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from otoscope.callbacks import Otoscope
from otoscope.callbacks.fetching import HOOKS, Fetching

from .fits import PACKAGES, data, fit, module, package, recorded

SLOW = 0.02
"""Seconds that whoever is slow takes each time; nobody else takes a quarter of it."""


class SlowRows(torch.utils.data.Dataset):
    """Rows of which every 16th, the first of a batch, takes its time."""

    def __init__(self) -> None:
        self.rows = data()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        if index % 16 == 0:
            time.sleep(SLOW)
        return self.rows[index]


class SlowToBegin(torch.utils.data.DataLoader):
    """A loader that takes its time as an epoch begins, as one does whose processes start then."""

    def __iter__(self) -> Any:
        time.sleep(5 * SLOW)
        return super().__iter__()


class Unsized(torch.utils.data.IterableDataset):
    """Slow rows of unknown number, of which Lightning fetches a batch ahead."""

    def __iter__(self) -> Iterator[Any]:
        rows = SlowRows()
        return (rows[i] for i in range(len(rows)))


def waited(where: Path, name: str, loader: Any, *callbacks: Any, **options: Any) -> list[float]:
    """Return the seconds that each step of a fit of two epochs waited for its data."""
    watching = Otoscope(spool=where, strict=True, verdict=False)
    fit(name, where, [watching, *callbacks], loader=loader, validate=False, **options)
    run = str(watching.run_id)
    return recorded(where, run).read(run, "train").column("data_seconds@0").tolist()


def loader_of(rows: Any) -> Any:
    return torch.utils.data.DataLoader(rows, 16)


@pytest.mark.parametrize("name", PACKAGES)
def test_slow_loggers_and_callbacks_are_no_waiting_for_data(name: str, tmp_path: Path) -> None:
    loggers = package(f"{name}.loggers")

    class SlowLogger(loggers.CSVLogger):
        def log_metrics(self, *told: Any, **more: Any) -> None:
            time.sleep(SLOW)

    class SlowCallback(package(name).Callback):
        def on_train_batch_end(self, *told: Any) -> None:
            time.sleep(SLOW)

        on_train_epoch_start = on_train_batch_end

    options = {"logger": SlowLogger(tmp_path), "log_every_n_steps": 1}
    found = waited(tmp_path, name, loader_of(data()), SlowCallback(), **options)
    assert len(found) == 12
    assert sorted(found)[6] < SLOW / 4, "the median: others use the machine too"


@pytest.mark.parametrize("rows", [SlowRows, Unsized])
def test_a_slow_loader_is_waited_for_in_every_step(rows: Any, tmp_path: Path) -> None:
    found = waited(tmp_path, PACKAGES[0], loader_of(rows()))
    assert len(found) == 12
    # the first batch of an unsized loader is fetched before the fit tells that it begins
    assert sum(found) >= (12 if rows is SlowRows else 11) * SLOW
    # behind the last one of an epoch there is nothing to fetch ahead
    assert sorted(found)[0 if rows is SlowRows else 2] >= SLOW


def test_a_loader_that_is_slow_to_begin_is_waited_for_as_an_epoch_begins(tmp_path: Path) -> None:
    found = waited(tmp_path, PACKAGES[0], SlowToBegin(data(), 16))
    assert found[6] >= 5 * SLOW, "the first step of the second epoch"
    assert sorted(found)[6] < SLOW / 4


@pytest.mark.parametrize("is_first", [True, False])
def test_what_a_callback_fetches_before_an_epoch_is_no_steps(
    is_first: bool, tmp_path: Path
) -> None:
    """As a search for the learning rate does, which fits a little within the fit."""

    class Searches(package(PACKAGES[0]).Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            loop = trainer.fit_loop.epoch_loop
            loop._on_before_fetch()
            time.sleep(10 * SLOW)
            loop._on_after_fetch()

    watching = Otoscope(spool=tmp_path, strict=True, verdict=False)
    others = [Searches(), watching] if is_first else [watching, Searches()]
    fit(PACKAGES[0], tmp_path, others, loader=loader_of(SlowRows()), validate=False)
    told = recorded(tmp_path, str(watching.run_id)).read(str(watching.run_id), "train")
    found = told.column("data_seconds@0").tolist()
    assert len(found) == 12
    assert max(found[0], found[6]) < 10 * SLOW, found


def test_a_training_step_that_fetches_for_itself_waits_too(tmp_path: Path) -> None:
    class Fetches(type(module(PACKAGES[0]))):
        def training_step(self, dataloader_iter: Any) -> torch.Tensor:
            batch, _, _ = next(dataloader_iter)
            return self.net(batch[0]).square().mean()

    found = waited(tmp_path, PACKAGES[0], loader_of(SlowRows()), net=Fetches())
    assert sum(found) >= 11 * SLOW


def test_micro_batches_of_a_step_are_waited_for_together(tmp_path: Path) -> None:
    found = waited(tmp_path, PACKAGES[0], loader_of(SlowRows()), accumulate_grad_batches=3)
    assert len(found) == 4
    assert min(found) >= 3 * SLOW


def test_a_loop_is_left_as_it_was(tmp_path: Path) -> None:
    trainer, _ = fit(PACKAGES[0], tmp_path, [Otoscope(spool=tmp_path, verdict=False)])
    assert not set(HOOKS) & set(vars(trainer.fit_loop.epoch_loop))
    own = lambda: None  # noqa: E731
    loop = SimpleNamespace(on_run_start=own, _on_before_fetch=own, _on_after_fetch=own)
    fetching = Fetching()
    fetching.begin(loop)
    assert loop._on_before_fetch is not own
    fetching.close()
    assert [getattr(loop, name) for name in HOOKS] == [own] * 3


def test_a_loop_without_such_calls_is_timed_between_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = Fetching.begin
    monkeypatch.setattr(Fetching, "begin", lambda self, loop: listen(self, SimpleNamespace()))
    found = waited(tmp_path, PACKAGES[0], loader_of(SlowRows()))
    assert min(found) >= SLOW
