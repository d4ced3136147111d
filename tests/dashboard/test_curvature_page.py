"""The Curvature page on a real recorded run: its numbers are the store's, its words say what they mean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from otoscope.diagnostics import Daemon, judge
from otoscope.store import Event, Schema, Store
from otoscope.store.schemas import Column, dumps
from playwright.sync_api import expect

from tests.dashboard.browser import CONTRAST, UNNAMED, served, wait_for_paint
from tests.dashboard.made_runs import RUN, MadeRun
from tests.dashboard.recorded_runs import record

pytestmark = pytest.mark.browser
CHARTS = ("eigenvalues", "edge", "gain", "scan", "horizon", "alpha", "share", "spread", "density")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    folder = tmp_path_factory.mktemp("recorded")
    store, run = record(folder, "sgd")
    Daemon(store.home, heartbeat=folder / "beat").tick()
    return store, run


class TestOnARecordedRun:
    @pytest.fixture
    def address(self, recorded: tuple[Store, str]) -> Iterator[str]:
        with served(lambda: recorded[0]) as found:
            yield found

    @pytest.fixture
    def run(self, recorded: tuple[Store, str]) -> str:
        return recorded[1]

    @pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
    def test_every_chart_is_drawn_named_and_readable(self, run, look, theme, width):
        page = look(f"/run/{run}/curvature", theme=theme, width=width).page

        expect(page.locator("#run-tabs [aria-current]")).to_have_text("Curvature")
        for name in CHARTS:
            wait_for_paint(page, f"#{name}-card canvas")
            label = page.locator(f"#{name}-card canvas").get_attribute("aria-label") or ""
            assert any(digit in label for digit in "0123456789"), (name, label)
        assert page.evaluate(CONTRAST) == [] and page.evaluate(UNNAMED) == []
        page.get_by_role("button", name="What is meant by: Conditioning").click()
        expect(page.get_by_text("damped at 1 % of it")).to_be_visible()

    def test_the_numbers_on_the_page_are_those_of_the_store(self, run, look, recorded):
        store = recorded[0]
        page = look(f"/run/{run}/curvature").page
        expect(page.locator("#view-curvature .stats")).to_contain_text("Largest eigenvalue")

        for family, least in (("curvature", 5), ("landscape", 5), ("density", 2)):
            read = store.read(run, family)
            assert len(read) >= least
            for column in read.columns:
                shown = page.evaluate(
                    "([family, column]) => otoscope.model.tables[family].column(column)"
                    ".map((v) => (Number.isNaN(v) ? null : v))",
                    [family, column],
                )
                numbers = np.array([np.nan if value is None else value for value in shown])
                np.testing.assert_allclose(numbers, read.column(column), rtol=1e-5, atol=1e-30)
        top = float(store.read(run, "curvature").column("lambda_1")[-1])
        said = page.locator("#view-curvature .stat strong").first.inner_text()
        assert float(said.replace(",", "")) == pytest.approx(top, rel=5e-3)
        series = page.evaluate("Object.keys(otoscope.model.tables)")
        assert sorted(series) == ["curvature", "density", "gradients", "landscape", "train"]
        assert page.evaluate("otoscope.model.tables.gradients.columns") == ["grad_cosine"]
        assert page.evaluate("otoscope.model.tables.train.columns.length") <= 4

    def test_the_scan_follows_the_chosen_sample_and_the_address(self, run, look, recorded):
        scans = recorded[0].read(run, "landscape")
        page = look(f"/run/{run}/curvature").page
        note = page.locator("#scan-card .row .dim").first
        expect(note).to_have_text(f"step {scans.steps[-1]}, the latest")

        page.get_by_label("Which scan is shown").press("Home")

        expect(note).to_have_text(f"step {scans.steps[0]}")
        assert page.evaluate("otoscope.settings.scan") == str(scans.steps[0])
        expect(page.locator("#scan-card .said-of-chart")).to_contain_text(
            f"At step {scans.steps[0]}"
        )
        wait_for_paint(page, "#scan-card canvas")
        label = page.locator("#scan-card canvas").get_attribute("aria-label") or ""
        start = float(scans.column("scan_0")[0])
        assert page.evaluate("v => otoscope.number(v)", start) in label

        linked = look(page.url.removeprefix(page.evaluate("location.origin"))).page
        expect(linked.locator("#scan-card .row .dim").first).to_have_text(f"step {scans.steps[0]}")
        linked.get_by_role("button", name="Latest").click()
        expect(linked.locator("#scan-card .row .dim").first).to_contain_text("the latest")
        assert "scan=" not in linked.url

    def test_one_cursor_goes_over_all_charts_and_zoom_is_kept_between_pages(self, run, look):
        page = look(f"/run/{run}/curvature").page
        wait_for_paint(page, "#horizon-card canvas")  # what is out of sight is not drawn
        wait_for_paint(page, "#eigenvalues-card canvas")
        page.locator("#eigenvalues-card canvas").focus()
        page.keyboard.press("ArrowLeft")

        steps = page.evaluate("otoscope.model.tables.curvature.steps")
        expect(page.locator("#gain-card .readout")).to_have_text(f"step {steps[-1]}")
        expect(page.locator("#horizon-card .cursor")).to_be_visible()

        page.evaluate("otoscope.setRange([50, 150])")
        expect(page.locator("#follow")).to_be_visible()
        page.get_by_role("link", name="Noise").click()
        expect(page.locator("#run-tabs [aria-current]")).to_have_text("Noise")
        assert page.evaluate("otoscope.settings.range") == [50, 150]
        page.locator("#run-tabs").get_by_role("link", name="Run", exact=True).click()
        wait_for_paint(page, "#loss canvas")
        assert "range=50-150" in page.url

    def test_the_panel_of_obstacles_leads_to_the_pages(self, run, look, recorded):
        page = look(f"/run/{run}").page
        kept = recorded[0].judgement(run).obstacles
        assert dumps(judge(recorded[0], run)["obstacles"]) == dumps(kept)  # replay is live
        held = kept["conditioning"]
        card = page.locator(".obstacle", has_text="Conditioning")
        expect(card).to_contain_text("curvature-aware step is worth")
        shown = float(card.locator(".big").inner_text().split()[0])
        assert shown == pytest.approx(held["value"], rel=0.05)
        card.get_by_role("link").click()
        expect(page.locator("#gain-card")).to_be_visible()

    def test_the_numbers_of_a_scan_are_saved_as_csv(self, run, look, recorded, tmp_path):
        page = look(f"/run/{run}/curvature").page
        wait_for_paint(page, "#scan-card canvas")
        with page.expect_download() as saved:
            page.get_by_role("button", name="numbers of the scan chart").click()
        saved.value.save_as(tmp_path / "scan.csv")
        rows = (tmp_path / "scan.csv").read_text().splitlines()
        assert rows[0] == "multiple,loss,quadratic" and len(rows) == 9
        losses = [float(row.split(",")[1]) for row in rows[1:]]
        scans = recorded[0].read(run, "landscape")
        expected = [float(scans.column(f"scan_{i}")[-1]) for i in range(8)]
        np.testing.assert_allclose(losses, expected, rtol=1e-5)

    def test_what_is_sampled_once_is_a_table_among_the_other_quantities(self, run, look, recorded):
        page = look(f"/run/{run}").page
        found = recorded[0].read(run, "initialization")
        row = page.locator("#others tbody tr", has_text="net.2")
        gain = float(found.column("forward_gain/net.2")[0])
        expect(row).to_contain_text(page.evaluate("v => otoscope.number(v)", gain))
        expect(page.locator("#others")).to_contain_text("initial loss")


CURVATURE = Schema(
    "curvature",
    tuple(Column.of(name) for name in ("lambda_1", "bound_1", "edge_ratio", "newton_gain")),
)


def with_curvature(home, ratios: list[float], every: int = 40) -> MadeRun:
    """Return a run of a falling loss whose samples stand so near to the edge."""
    run = MadeRun(home, RUN)
    home.add_schema(RUN, CURVATURE)
    for ratio in ratios:
        run.train(every)
        home.append(RUN, [run.frame(CURVATURE, [20 * ratio, 0.5, ratio, 4.0])])
    return run.train(20)


@pytest.mark.parametrize(("ratio", "shown"), [(1.05, 1), (0.4, 0), (1.9, 0)])
def test_hovering_at_the_edge_while_the_loss_falls_is_told_and_is_no_finding(
    home, look, ratio, shown
):
    with_curvature(home, [0.1, 0.5, *[ratio] * 4])
    page = look(f"/run/{RUN}/curvature").page
    expect(page.locator("#edge-card strong").first).to_have_text(
        f"{ratio} ×".replace("1.05", "1.1")
    )
    expect(page.locator(".hint .badge")).to_have_count(shown)
    expect(page.locator(".finding")).to_have_count(0)


def test_of_several_optimizers_the_scaling_of_the_first_is_shown(home, look):
    columns = [Column.of("lambda_1"), Column.of("newton_gain")]
    names = ("preconditioned_lambda", "edge_ratio", "preconditioned_newton_gain")
    columns += [Column(f"{name}/{i}", name, optimizer=i) for name in names for i in (0, 1)]
    schema = Schema("curvature", tuple(columns))
    home.write_meta(RUN, {"optimizers": [{"name": "Adam"}, {"name": "SGD"}]})
    home.add_schema(RUN, schema)
    run = MadeRun(home, RUN)
    for _ in range(3):
        run.train(10)
        home.append(RUN, [run.frame(schema, [8.0, 30.0, 9e3, np.nan, 0.4, 0.7, 5.0, np.nan])])
    run.train(10)
    page = look(f"/run/{RUN}/curvature").page
    expect(page.locator(".stat", has_text="Newton gain")).to_contain_text("5 with the scaling of")
    expect(page.locator(".stat", has_text="Edge, 1")).to_contain_text("0.7")
    expect(page.locator("#gain-card")).to_contain_text("as the optimizer scales it")


def test_an_unknown_edge_is_said_and_not_drawn(home, look):
    home.write_meta(RUN, {"optimizers": [{"name": "LBFGS"}]})
    with_curvature(home, [float("nan")] * 3)
    page = look(f"/run/{RUN}/curvature").page
    expect(page.locator("#density-card")).to_be_hidden()
    expect(page.locator("#edge-card")).to_contain_text("no stable limit is known")
    expect(page.locator(".stats")).to_contain_text("no stable limit is known for LBFGS")


def test_charts_of_what_is_not_measured_stay_away_beside_those_that_are(home, look):
    with_curvature(home, [0.1, 0.5, 0.9])
    page = look(f"/run/{RUN}/curvature").page
    expect(page.locator("#view-curvature")).to_contain_text("landscape")
    for shown in ("eigenvalues", "edge", "gain", "share", "spread"):
        expect(page.locator(f"#{shown}-card")).to_be_visible()
    for away in ("scan", "horizon", "alpha"):
        expect(page.locator(f"#{away}-card")).to_be_hidden()


def test_what_is_not_measured_says_what_must_happen(home, look):
    run = MadeRun(home, RUN).train(30)
    page = look(f"/run/{RUN}/curvature").page
    expect(page.locator("#view-curvature")).to_contain_text(
        "the first sample of the curvature comes as soon as the budget"
    )
    expect(page.locator("#view-curvature .grid")).to_be_hidden()

    run.event("probe_off", probe="curvature", why="the parameters are sharded over ranks")
    run.train(5)
    expect(page.locator("#view-curvature")).to_contain_text(
        "cannot be measured in this run: the parameters are sharded over ranks."
    )
    home.write_meta(RUN, {"probes": ["gradients", "system"]})
    run.train(5)
    expect(page.locator("#view-curvature")).to_contain_text(
        "the landscape probe is not among those of this run (gradients, system)"
    )
    home.write_meta(RUN, {"probes": []})
    run.train(5).end("finished")
    expect(page.locator("#view-curvature")).to_contain_text("This run ended before a sample")


def test_a_live_sample_shows_up_by_itself_and_a_stale_run_is_greyed(home, look):
    run = with_curvature(home, [0.2, 0.3])
    page = look(f"/run/{RUN}/curvature").page
    expect(page.locator(".stat", has_text="Newton gain")).to_contain_text("4")
    run.train(10)
    home.append(RUN, [run.frame(CURVATURE, [77.0, 0.5, 0.7, 9.0])])
    run.train(1)
    expect(page.locator(".stat", has_text="Largest eigenvalue")).to_contain_text("77")
    run.silent_for(40)
    expect(page.locator("body")).to_have_class("stale")


def test_hostile_words_of_a_probe_stay_text(home, look):
    run = MadeRun(home, RUN).train(20)
    why = "<img src=x onerror=alert(1)>"
    home.add_event(RUN, Event("probe_off", 1, body={"probe": "curvature", "why": why}))
    run.train(1)
    page = look(f"/run/{RUN}/curvature").page
    expect(page.locator("#view-curvature")).to_contain_text(why)
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("path", ["curvature", "noise"])
def test_an_unknown_run_has_no_such_pages(look, path):
    page = look(f"/run/nobody/{path}", expected=("404",)).page
    expect(page.locator("h1:visible")).to_have_text("No such run")
