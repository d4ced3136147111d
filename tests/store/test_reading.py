"""Reading against numpy: attempts overlaid, ranks combined, quantities derived, buckets reduced."""

from __future__ import annotations

import math

import numpy as np
import pytest
from otoscope.store import (
    Column,
    Event,
    Finding,
    Frame,
    Judgement,
    MemoryHome,
    Schema,
    Store,
    UnknownRunError,
)

RUN = "reading-01"
TRAIN = Schema(
    "train",
    (
        Column.of("loss", ranks="mean"),
        Column.of("samples", ranks="sum"),
        Column.of("lr"),
        Column.of("wait_seconds", unit="s", ranks="each"),
        Column.of("grad_sq", ranks="same"),
    ),
)
LAYERS = ("conv", "head")
GRADIENTS = Schema(
    "gradients",
    tuple(
        Column.of(quantity, layer=layer, ranks="sum")
        for layer in LAYERS
        for quantity in ("grad_sq", "weight_sq", "update_sq", "numel")
    ),
)
ACTIVATIONS = Schema(
    "activations",
    tuple(
        Column.of(quantity, layer="act", ranks="sum")
        for quantity in ("saturated", "dead", "units", "numel", "sum", "sum_sq")
    ),
)


@pytest.fixture
def home() -> MemoryHome:
    home = MemoryHome()
    home.write_meta(RUN, {"name": "Reading"})
    for schema in (TRAIN, GRADIENTS, ACTIVATIONS):
        home.add_schema(RUN, schema)
    return home


def put(
    home: MemoryHome,
    schema: Schema,
    step: int,
    values: list[float],
    rank: int = 0,
    attempt: int = 1,
) -> None:
    vector = np.array(values, np.float32)
    frame = Frame(schema.family, rank, attempt, step, 1000.0 + step, schema.hash, vector)
    assert home.append(RUN, [frame]) == 0


def test_ranks_are_combined_as_the_schema_says(home: MemoryHome) -> None:
    put(home, TRAIN, 1, [2.0, 8, 0.1, 0.5, 4.0], rank=0)
    put(home, TRAIN, 1, [4.0, 6, 0.1, 0.1, 4.0], rank=1)
    series = Store(home).read(RUN, "train")
    assert series.columns == [
        "loss", "samples", "lr", "grad_sq", "wait_seconds@0", "wait_seconds@1", "grad_norm",
    ]  # fmt: skip
    np.testing.assert_allclose(series.values, [[3.0, 14, 0.1, 4.0, 0.5, 0.1, 2.0]], rtol=1e-6)


def test_a_sum_that_lacks_a_running_rank_is_not_a_number(home: MemoryHome) -> None:
    for step in (1, 2, 3):
        put(home, TRAIN, step, [1.0, 8, 0.1, 0, 1], rank=0)
    for step in (1, 3):
        put(home, TRAIN, step, [1.0, 8, 0.1, 0, 1], rank=1)
    samples = Store(home).read(RUN, "train", ["samples"]).column("samples")
    np.testing.assert_array_equal(samples, [16, math.nan, 16])


def test_one_rank_alone_keeps_its_plain_names(home: MemoryHome) -> None:
    put(home, TRAIN, 1, [2.0, 8, 0.1, 0.5, 4.0], rank=0)
    put(home, TRAIN, 1, [4.0, 6, 0.1, 0.1, 4.0], rank=1)
    series = Store(home).read(RUN, "train", ["wait_seconds", "loss"], rank=1)
    assert series.columns == ["wait_seconds", "loss"]
    np.testing.assert_allclose(series.values, [[0.1, 4.0]], rtol=1e-6)


def test_a_later_attempt_replaces_what_the_earlier_did_from_there_on(home: MemoryHome) -> None:
    for step in range(1, 8):
        put(home, TRAIN, step, [10.0 + step, 8, 0.1, 0, 1])
    for step in range(5, 7):
        put(home, TRAIN, step, [20.0 + step, 8, 0.1, 0, 1], attempt=2)
    series = Store(home).read(RUN, "train", ["loss"])
    assert series.steps.tolist() == [1, 2, 3, 4, 5, 6]
    assert series.column("loss").tolist() == [11, 12, 13, 14, 25, 26]
    assert Store(home).read(RUN, "train", ["loss"], attempt=1).steps.tolist() == [*range(1, 8)]


def test_a_resume_of_a_resume_never_brings_old_steps_back(home: MemoryHome) -> None:
    for attempt, first, last in ((1, 1, 9), (2, 6, 8), (3, 3, 4)):
        for step in range(first, last + 1):
            put(home, TRAIN, step, [attempt, 8, 0.1, 0, 1], attempt=attempt)
    series = Store(home).read(RUN, "train", ["loss"])
    assert series.steps.tolist() == [1, 2, 3, 4]
    assert series.column("loss").tolist() == [1, 1, 3, 3]


def test_quantities_are_derived_from_sums_and_counts(home: MemoryHome) -> None:
    put(home, GRADIENTS, 10, [4.0, 16.0, 0.16, 100, 9.0, 0.0, 1.0, 25])
    series = Store(home).read(RUN, "gradients")
    row = dict(zip(series.columns, series.values[0], strict=True))
    assert row["grad_norm/conv"] == 2.0
    assert row["grad_rms/conv"] == pytest.approx(0.2)
    assert row["weight_norm/conv"] == 4.0
    assert row["update_ratio/conv"] == pytest.approx(0.1)
    assert math.isnan(row["update_ratio/head"])  # no weight to compare with, not 1e11
    put(home, ACTIVATIONS, 10, [25, 3, 12, 100, 50.0, 400.0])
    series = Store(home).read(RUN, "activations")
    row = dict(zip(series.columns, series.values[0], strict=True))
    assert row["saturated/act"] == 0.25
    assert row["dead/act"] == 0.25
    assert row["rms/act"] == 2.0
    assert row["mean/act"] == 0.5


def test_a_bare_quantity_means_every_layer_and_unknown_names_are_left_out(home: MemoryHome) -> None:
    put(home, GRADIENTS, 10, [4.0, 16.0, 0.16, 100, 9.0, 9.0, 1.0, 25])
    series = Store(home).read(RUN, "gradients", ["grad_norm", "nothing", "numel/head"])
    assert series.columns == ["grad_norm/conv", "grad_norm/head", "numel/head"]
    assert np.isnan(series.column("nothing")).all()


def test_a_changed_model_brings_a_new_schema_in_the_same_stream(home: MemoryHome) -> None:
    other = Schema("train", (Column.of("extra"), Column.of("loss", ranks="mean")))
    home.add_schema(RUN, other)
    put(home, TRAIN, 1, [1.0, 8, 0.1, 0, 1])
    put(home, other, 2, [7.0, 2.0])
    series = Store(home).read(RUN, "train", ["loss", "extra"])
    np.testing.assert_array_equal(series.values, [[1.0, math.nan], [2.0, 7.0]])


@pytest.mark.parametrize(("samples", "points"), [(10, 1000), (1000, 100), (999, 100), (7, 3)])
def test_many_samples_become_buckets_with_their_extremes(
    home: MemoryHome, samples: int, points: int
) -> None:
    values = np.random.default_rng(0).normal(size=samples).astype(np.float32)
    values[3] = math.nan
    for step, value in enumerate(values, 1):
        put(home, TRAIN, step, [float(value), 8, 0.1, 0, 1])
    series = Store(home).read(RUN, "train", ["loss"], points=points)
    size = max(samples // points, 1)
    buckets = [values[i : i + size] for i in range(0, samples, size)]
    assert len(series) == len(buckets) >= min(points, samples)
    assert series.steps.tolist() == list(range(1, samples + 1, size))
    with np.errstate(all="ignore"):
        for got, reduce in ((series.low, np.fmin), (series.high, np.fmax)):
            np.testing.assert_array_equal(got[:, 0], [reduce.reduce(b) for b in buckets])
        means = [
            b[~np.isnan(b)].astype(np.float64).sum() / max((~np.isnan(b)).sum(), 1) for b in buckets
        ]
    there = ~np.isnan(series.values[:, 0])
    np.testing.assert_allclose(
        series.values[there, 0], np.array(means)[there], rtol=1e-5, atol=1e-7
    )


def test_a_column_that_was_never_recorded_is_left_out_of_many_samples_too(
    home: MemoryHome,
) -> None:
    for step in range(1, 1001):
        put(home, TRAIN, step, [1.0, 8, 0.1, 0, 1])
    series = Store(home).read(RUN, "train", ["never"], points=100)
    assert series.columns == [] and series.values.shape == (100, 0)


def test_a_family_that_was_never_recorded_is_an_empty_series(home: MemoryHome) -> None:
    series = Store(home).read(RUN, "noise")
    assert len(series) == 0
    assert series.columns == []
    assert len(Store(home).read(RUN, "noise", ["x"]).column("x")) == 0


def test_a_run_is_found_by_id_beginning_or_name(home: MemoryHome) -> None:
    store = Store(home)
    assert store.resolve(RUN) == store.resolve("reading") == store.resolve("Reading") == RUN
    home.write_meta("reading-02", {"name": "Other"})
    with pytest.raises(UnknownRunError, match="may mean 2 runs"):
        store.resolve("reading")
    with pytest.raises(UnknownRunError, match="otoscope runs"):
        store.resolve("nobody")


@pytest.mark.parametrize(
    ("age", "fields", "labels", "status"),
    [
        (3, {}, {}, "live"),
        (20, {}, {}, "stale"),
        (70, {}, {}, "lost"),
        (70, {"progress": {"step_seconds": 30}}, {}, "live"),
        (200, {"progress": {"step_seconds": 30}}, {}, "stale"),
        (400, {"progress": {"step_seconds": 30}}, {}, "lost"),
        (400, {}, {"closed": True}, "finished"),
        (3, {}, {"closed": True}, "live"),  # what is heard of trains, and must not be pruned
        (20, {}, {"closed": True}, "stale"),
        (400, {"ended": {"attempt": 1, "how": "finished"}}, {}, "finished"),
        (1, {"ended": {"attempt": 1, "how": "failed"}}, {}, "failed"),
        (1, {"ended": {"attempt": 1, "how": "failed"}, "attempt": 2}, {}, "live"),
    ],
)
def test_the_status_is_told_from_heartbeat_and_end(
    home: MemoryHome, age: float, fields: dict, labels: dict, status: str
) -> None:
    home.write_meta(RUN, {"heartbeat": {"0": 1000.0}, "attempt": 1, **fields})
    home.set_labels(RUN, labels)
    assert Store(home, clock=lambda: 1000.0 + age).run(RUN).status == status


def test_an_old_run_that_is_taken_in_late_is_listed_behind_newer_ones() -> None:
    home = MemoryHome()
    home.write_meta("new-1", {"started": 900.0, "heartbeat": {"0": 1000.0}})
    home.write_meta("old-1", {"started": 100.0, "heartbeat": {"0": 200.0}})

    assert [run.id for run in Store(home).runs()] == ["new-1", "old-1"]


def test_runs_are_listed_with_what_a_person_set_before_what_the_run_said(home: MemoryHome) -> None:
    home.write_meta(RUN, {"progress": {"step": 40, "loss": 0.5, "loss_best": 0.4}, "tags": ["a"]})
    home.set_labels(RUN, {"name": "baseline", "notes": "first"})
    home.add_event(RUN, Event("started"))
    (info,) = Store(home).runs()
    assert (info.id, info.name, info.step, info.loss_last, info.loss_best) == (
        RUN, "baseline", 40, 0.5, 0.4,
    )  # fmt: skip
    assert (info.tags, info.notes) == (["a"], "first")


def test_a_finding_that_was_put_aside_is_not_counted_as_open(home: MemoryHome) -> None:
    home.write_meta(RUN, {"progress": {"step": 50}})
    findings = [
        Finding(name, RUN, 1, "plateau", "warning", "firing", "run", 1, 2, "Stuck", **aside)
        for name, aside in {
            "open": {},
            "seen": {"acknowledged": True},
            "later": {"snoozed_until_step": 60},
            "again": {"snoozed_until_step": 40},
        }.items()
    ]
    assert home.acquire(RUN, "me", 5000)
    assert home.commit(RUN, "me", 5000, None, Judgement("c", {}, findings))
    assert Store(home).run(RUN).open == {"critical": 0, "warning": 2, "info": 0}
