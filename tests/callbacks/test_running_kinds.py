"""Curvature and landscape on every kind of model, batch and step: measured, and without a trace."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from otoscope.callbacks import Curvature, Landscape, Otoscope
from otoscope.store import Store, connect

from tests.callbacks.fits import QUIET
from tests.callbacks.kinds import KINDS


def fit(kind: str, where: Path, *, watched: bool) -> tuple[dict[str, Any], Store | None]:
    pl.seed_everything(5, verbose=False)
    module = KINDS[kind]()
    probes = [Curvature(every=4), Landscape(every=4)]
    probes[0].first, probes[1].first = 3, 5
    otoscope = Otoscope(spool=where, strict=True, verdict=False, probes=probes)
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=[otoscope] if watched else [],
        enable_checkpointing=False,
        precision=module.precision,
        default_root_dir=where,
        **QUIET,
    )
    trainer.fit(module)
    state: dict[str, Any] = {k: v.tolist() for k, v in module.state_dict().items()}
    state |= {f"metric {k}": float(v) for k, v in trainer.callback_metrics.items()}
    state |= {"seen": module.seen, "python": random.getstate()}
    state |= {"numpy": np.random.get_state()[1].tolist()}  # type: ignore[union-attr, index]
    state |= {"torch": torch.get_rng_state().tolist()}
    state |= {"modes": [m.training for m in module.modules()]}
    state |= {
        f"grad {k}": p.grad.to_dense().tolist()
        for k, p in module.named_parameters()
        if p.grad is not None
    }
    return state, connect(where / str(otoscope.run_id)) if watched else None


ALIKE = (
    "spoiling",
    "spoiling",
    "compiled",
    "scripted",
    "ownautocast",
    "reentrant",
    "checkpointed",
    "mapped",
    "named",
    "classy",
    "telling",
)
"""The same function of the same weights as the plain net, at the first sample."""
BY_DIFFERENCES = ("bag", "transcribing")
"""Without a second derivative."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> float:
    _, store = fit("plain", tmp_path_factory.mktemp("plain"), watched=True)
    assert store is not None
    return store.read(store.runs()[0].id, "curvature").column("lambda_1")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_measured_and_the_run_is_bit_identical(
    kind: str, tmp_path: Path, plain: float
) -> None:
    bare, _ = fit(kind, tmp_path, watched=False)
    watched, store = fit(kind, tmp_path, watched=True)

    assert bare.keys() == watched.keys()
    assert [key for key in bare if bare[key] != watched[key]] == []
    assert store is not None
    run = store.runs()[0].id
    told = [str(e.body) for e in store.events(run) if e.kind in ("probe_off", "note")]
    assert len(told) == (2 if kind in BY_DIFFERENCES else 0), told
    assert all("differences of gradients" in text for text in told)
    curvature, landscape = store.read(run, "curvature"), store.read(run, "landscape")
    assert list(curvature.steps) == [3, 7, 11]
    assert list(landscape.steps) == [5, 9]
    for name in ("lambda_1", "bound_1", "batch_sharpness", "lambda_spread"):
        assert np.isfinite(curvature.column(name)).all(), name
    assert (curvature.column("lambda_1") > 0).all()
    if kind in ALIKE:
        assert curvature.column("lambda_1")[0] == pytest.approx(plain, rel=1e-4)
    for name in ("uphill", "scan_0", "scan_7", "slope", "curvature_along"):
        assert np.isfinite(landscape.column(name)).all(), name
    assert (landscape.column("horizon") >= 4).all()  # small steps: nearly quadratic


def test_what_has_no_second_derivative_measures_as_its_twin_that_has_one(tmp_path: Path) -> None:
    found = []
    for kind in ("bag", "sparse"):
        _, store = fit(kind, tmp_path / kind, watched=True)
        assert store is not None
        found.append(store.read(store.runs()[0].id, "curvature").column("lambda_1"))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


def test_a_loss_that_fails_when_looked_at_is_told_twice_and_the_run_goes_on(tmp_path: Path) -> None:
    class Whole(KINDS["plain"]):  # type: ignore[misc, name-defined]
        def loss(self, batch: Any) -> torch.Tensor:
            if len(batch[0]) != 8:
                raise ValueError(f"wants its batch whole, got {len(batch[0])}")
            return super().loss(batch)

    del KINDS["whole"]
    otoscope = Otoscope(
        spool=tmp_path, strict=True, verdict=False, probes=[Curvature(every=2, samples=4)]
    )
    trainer = pl.Trainer(max_steps=30, callbacks=[otoscope], enable_checkpointing=False, **QUIET)
    trainer.fit(Whole())
    run = str(otoscope.run_id)
    store = connect(tmp_path / run)
    told = [(e.kind, e.step, e.body) for e in store.events(run) if e.kind in ("note", "probe_off")]
    assert [(kind, step) for kind, step, _ in told] == [("note", 20), ("probe_off", 24)]
    assert all("wants its batch whole, got 4" in str(body) for *_, body in told)
    assert store.run(run).step == 30


def test_the_initialization_can_be_looked_at(tmp_path: Path) -> None:
    pl.seed_everything(5, verbose=False)
    otoscope = Otoscope(
        spool=tmp_path, strict=True, verdict=False, probes=[Curvature(first=1, every=100)]
    )
    module = KINDS["plain"]()
    trainer = pl.Trainer(max_steps=2, callbacks=[otoscope], enable_checkpointing=False, **QUIET)
    trainer.fit(module)
    series = connect(tmp_path / str(otoscope.run_id)).read(str(otoscope.run_id), "curvature")
    assert list(series.steps) == [1]
    assert series.column("pool_samples")[0] == 8  # one batch: no other was seen
    assert series.column("lambda_1")[0] > 0
    assert np.isnan(series.column("lambda_spread")[0])


def test_with_two_optimizers_each_has_its_own_edge(tmp_path: Path) -> None:
    _, store = fit("manual", tmp_path, watched=True)
    assert store is not None
    series = store.read(store.runs()[0].id, "curvature")
    top, sgd = series.column("lambda_1"), series.column("edge_ratio/0")
    assert "edge_ratio" not in series.columns
    assert ((sgd > 0) & (sgd <= top * 0.1 / (2 * 1.9) * 1.001)).all()  # a block of the whole
    adam = series.column("edge_ratio/1")
    assert np.isnan(adam[:2]).all()  # before its tenth step
    assert adam[2] == pytest.approx(
        series.column("preconditioned_lambda/1")[2] * 0.01 / 38, rel=1e-4
    )
