"""Evidence: which recorded series stands behind a finding, in which unit, around which steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from otoscope.diagnostics.charts import evidence_chart
from otoscope.diagnostics.evidence import BACK, FEW, evidence_charts
from otoscope.store import Column, Evidence, Finding, Frame, MemoryHome, Schema, Store

RUN = "net-1"
LAYERS = tuple(f"net.{i}" for i in range(12))


def finding(*because: Evidence, **more: Any) -> dict[str, Any]:
    made = Finding(
        f"rule:run:1:{more.get('first_step', 600)}",
        RUN,
        1,
        "rule",
        "warning",
        more.pop("state", "firing"),
        "run",
        more.pop("first_step", 600),
        more.pop("last_step", 800),
        "Something",
        because=list(because),
        **more,
    )
    return made.to_json()


def store_of(
    family: str, columns: dict[str, np.ndarray], steps: np.ndarray, ranks: str = "same"
) -> Store:
    home = MemoryHome()
    home.begin_attempt(RUN)
    home.write_meta(RUN, {"name": "net"})
    made = []
    for name in columns:
        quantity, _, layer = name.partition("/")
        made.append(Column.of(quantity, layer=layer or None, ranks=ranks))  # type: ignore[arg-type]
    schema = Schema(family, tuple(made))
    home.add_schema(RUN, schema)
    table = np.column_stack(list(columns.values())).astype(np.float32)
    home.append(
        RUN,
        [
            Frame(family, 0, 1, int(step), 1e9 + step, schema.hash, row)
            for step, row in zip(steps, table, strict=True)
        ],
    )
    return Store(home)


STEPS = np.arange(1, 1001)


def test_a_series_is_shown_around_the_finding_with_its_threshold_and_what_was_seen() -> None:
    loss = np.where(STEPS < 600, 1.0, 3.0)
    store = store_of("train", {"loss": loss}, STEPS)

    (chart,) = evidence_charts(
        store, RUN, finding(Evidence("up", "train", "loss", 650, 3.0, 1.5), state="resolved")
    )

    assert (chart.steps[0], chart.title, chart.whole) == (600 - BACK, "Training loss", False)
    assert chart.steps[-1] <= 800 + BACK
    assert chart.thresholds == [1.5] and chart.points == [[650.0, 3.0]]
    wanted = {600 - BACK: 1.0, chart.steps[-1]: 3.0}
    assert {step: row[0] for step, row in zip(chart.steps, chart.values, strict=True)}.items() >= (
        wanted.items()
    )


def test_squares_are_shown_as_the_norms_that_people_know() -> None:
    store = store_of("train", {"grad_sq": np.where(STEPS == 700, 400.0, 16.0)}, STEPS)
    seen = Evidence("gradient norm 20", "train", "grad_sq", 700, 400.0, 100.0)

    (chart,) = evidence_charts(store, RUN, finding(seen))

    assert (chart.quantity, chart.thresholds, chart.points) == (
        "grad_norm",
        [10.0],
        [[700.0, 20.0]],
    )
    assert min(row[0] for row in chart.values) == 4.0


def test_layers_of_one_quantity_share_a_chart_and_are_named_by_their_layer() -> None:
    columns = {f"spread/{layer}": np.full(1000, float(i)) for i, layer in enumerate(LAYERS[:3])}
    store = store_of("own", columns, STEPS)
    because = [Evidence("x", "own", f"spread/{layer}", 700, 1.0, 0.5) for layer in LAYERS[:2]]

    (chart,) = evidence_charts(store, RUN, finding(*because, layers=list(LAYERS[:2])))

    assert chart.lines == ["net.0", "net.1"]
    assert chart.values[0] == [0.0, 1.0]


def test_of_many_layers_the_median_is_shown_and_those_that_the_finding_names() -> None:
    columns = {f"grad_sq/{layer}": np.full(1000, 4.0**i) for i, layer in enumerate(LAYERS)}
    store = store_of("gradients", columns, STEPS)

    (chart,) = evidence_charts(
        store, RUN, finding(Evidence("x", "gradients", "grad_sq"), layers=["net.0"])
    )

    assert chart.lines == ["median of 12", "net.0"]
    assert chart.values[0][1] == 1.0
    assert chart.values[0][0] == pytest.approx(
        np.sqrt(np.median([4.0**i for i in range(12)])), 1e-4
    )


def test_a_rank_is_shown_beside_the_others() -> None:
    home = MemoryHome()
    home.begin_attempt(RUN)
    home.write_meta(RUN, {"name": "net", "world_size": 3})
    schema = Schema("train", (Column.of("wait_seconds", ranks="each"),))
    home.add_schema(RUN, schema)
    for rank in range(3):
        value = np.array([0.1 * (1 + rank)], dtype=np.float32)
        frames = [Frame("train", rank, 1, s, 1e9 + s, schema.hash, value) for s in range(1, 901)]
        home.append(RUN, frames)
    seen = Evidence("x", "train", "wait_seconds@0", 700, 0.1, 0.2)

    (chart,) = evidence_charts(Store(home), RUN, finding(seen, ranks=[0]))

    assert chart.lines == ["rank 0", "rank 1", "rank 2"]
    assert chart.values[0] == pytest.approx([0.1, 0.2, 0.3])


def test_what_is_sampled_rarely_is_shown_over_the_whole_run() -> None:
    rare = np.arange(100, 1001, 100)
    store = store_of("curvature", {"edge_ratio": np.linspace(1, 2, len(rare))}, rare)

    (chart,) = evidence_charts(store, RUN, finding(Evidence("x", "curvature", "edge_ratio")))

    assert len([step for step in rare if step >= 600 - BACK]) < FEW
    assert chart.whole and chart.steps == rare.tolist()


@pytest.mark.parametrize(("value", "drawn"), [(3.0, True), (1e-6, False), (900.0, False)])
def test_a_ratio_made_of_a_series_is_not_drawn_as_one_of_its_values(
    value: float, drawn: bool
) -> None:
    store = store_of("train", {"loss": np.where(STEPS < 600, 1.0, 3.0)}, STEPS)
    seen = Evidence("x", "train", "loss", 700, value, value / 2)

    (chart,) = evidence_charts(store, RUN, finding(seen))

    assert bool(chart.points) is drawn and bool(chart.thresholds) is drawn


def test_words_alone_unknown_columns_and_columns_of_nan_have_no_chart() -> None:
    store = store_of("train", {"loss": np.full(1000, np.nan)}, STEPS)
    because = [
        Evidence("in words"),
        Evidence("x", "train", "loss", 700, 1.0, 0.5),
        Evidence("x", "train", "never_recorded", 700, 1.0, 0.5),
        Evidence("x", "no_family", "loss", 700, 1.0, 0.5),
    ]
    assert evidence_charts(store, RUN, finding(*because)) == []


@pytest.mark.parametrize(("top", "log"), [(1000.0, True), (3.0, False)])
def test_values_decades_apart_have_a_logarithmic_axis(top: float, log: bool) -> None:
    loss = np.where(STEPS < 700, 1.0, top)
    store = store_of("train", {"loss": loss}, STEPS)

    (chart,) = evidence_charts(store, RUN, finding(Evidence("x", "train", "loss", 750, top, 1.5)))

    assert chart.log is log


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.0])
def test_a_chart_is_drawn_whatever_the_numbers_are(value: float) -> None:
    loss = np.geomspace(1e-3, 1e3, 1000)
    loss[700:720] = value
    store = store_of("train", {"loss": loss}, STEPS)
    seen = Evidence("x", "train", "loss", 705, float(value), 1.5)

    (chart,) = evidence_charts(store, RUN, finding(seen))
    drawn = evidence_chart(chart, 600, 800)

    assert "nan" not in drawn and "inf" not in drawn.replace("infinite", "")
    assert drawn.count('class="threshold"') == 1
    assert chart.to_json()["thresholds"] == [1.5]
