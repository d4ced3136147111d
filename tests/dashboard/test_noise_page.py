"""The Noise page: what the store reads, the run's place between time and compute, and no made-up number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from otoscope.diagnostics import Daemon
from otoscope.store import Column, Schema, Store
from playwright.sync_api import expect

from tests.dashboard.browser import CONTRAST, UNNAMED, served, wait_for_paint
from tests.dashboard.made_runs import RUN, MadeRun
from tests.dashboard.recorded_runs import probe, record

pytestmark = pytest.mark.browser
NOISE = Schema("noise", tuple(Column.of(name) for name in ("small_sq", "big_sq", "small", "big")))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    folder = tmp_path_factory.mktemp("recorded")
    store, run = record(folder, "adam", steps=120, probes=[probe("Noise", every=1)])
    Daemon(store.home, heartbeat=folder / "beat").tick()
    return store, run


class TestOnARecordedRun:
    @pytest.fixture
    def address(self, recorded: tuple[Store, str]) -> Iterator[str]:
        with served(lambda: recorded[0]) as found:
            yield found

    @pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
    def test_every_chart_is_drawn_named_and_readable(self, recorded, look, theme, width):
        page = look(f"/run/{recorded[1]}/noise", theme=theme, width=width).page

        expect(page.locator("#run-tabs [aria-current]")).to_have_text("Noise")
        for name in ("noise-scale", "trade", "signal", "parts"):
            wait_for_paint(page, f"#{name}-card canvas")
            label = page.locator(f"#{name}-card canvas").get_attribute("aria-label") or ""
            assert any(digit in label for digit in "0123456789"), (name, label)
        assert page.evaluate(CONTRAST) == [] and page.evaluate(UNNAMED) == []
        expect(page.locator(".hint")).to_contain_text("Adam's scaling changes")

    def test_the_numbers_on_the_page_are_those_of_the_store_and_of_the_panel(self, recorded, look):
        store, run = recorded
        read = store.read(run, "noise")
        page = look(f"/run/{run}/noise").page
        expect(page.locator("#view-noise .stats")).to_contain_text("Noise scale")

        for column in ("small_sq", "big_sq", "noise_scale", "low", "high", "trace"):
            shown = page.evaluate(
                "column => otoscope.model.tables.noise.column(column)"
                ".map((v) => (Number.isNaN(v) ? null : v))",
                column,
            )
            numbers = np.array([np.nan if value is None else value for value in shown])
            np.testing.assert_allclose(numbers, read.column(column), rtol=1e-5)
        scale = float(read.column("noise_scale")[-1])
        assert np.isfinite(scale)
        held = store.judgement(run).obstacles["noise"]
        assert held["scale"] == pytest.approx(scale, rel=1e-4)
        share = page.evaluate("v => otoscope.percent(v)", held["share"])
        expect(page.locator(".stat", has_text="Noise in a step")).to_contain_text(share)
        panel = look(f"/run/{run}").page.locator(".obstacle", has_text="Noise")
        expect(panel.locator(".big")).to_contain_text(f"{share} of a step")

    def test_the_place_on_the_curve_follows_from_batch_and_noise_scale(
        self, recorded, look, tmp_path
    ):
        store, run = recorded
        page = look(f"/run/{run}/noise").page
        wait_for_paint(page, "#trade-card canvas")
        with page.expect_download() as saved:
            page.get_by_role("button", name="numbers of the time-against-compute").click()
        saved.value.save_as(tmp_path / "trade.csv")
        rows = np.loadtxt(tmp_path / "trade.csv", delimiter=",", skiprows=1)
        scale = float(store.read(run, "noise").column("noise_scale")[-1])
        own = rows[rows[:, 0] == 64.0][0]
        assert own[1] == pytest.approx(1 + scale / 64, rel=1e-5)
        np.testing.assert_allclose((rows[:, 1] - 1) * (rows[:, 2] - 1), 1.0, rtol=1e-9)


def noisy(home, gradient: float, trace: float, count: int = 30, seed: int = 0) -> MadeRun:
    """Return a run whose halves of a batch of 64 have that noise in the mean, spread by a tenth."""
    run, draw = MadeRun(home, RUN), np.random.default_rng(seed)
    home.add_schema(RUN, NOISE)
    small, big = gradient + trace / 32, gradient + trace / 64
    for a, b in 1 + 0.1 * draw.normal(size=(count, 2)):
        run.train(10)
        home.append(RUN, [run.frame(NOISE, [small * a, big * b, 32, 64])])
    return run


def test_an_undetermined_noise_says_why_and_shows_no_number(home, look):
    noisy(home, gradient=0.0, trace=64.0, seed=1)

    page = look(f"/run/{RUN}/noise").page

    expect(page.locator(".hint")).to_contain_text("Undetermined after 30 samples")
    expect(page.locator(".hint")).to_contain_text("no number is made up")
    expect(page.locator(".stat").first).to_contain_text("undetermined")
    expect(page.locator("#trade-card .empty-chart")).to_be_visible()
    expect(page.locator("#parts-card .legend")).to_contain_text("scatter of one sample")


@pytest.mark.parametrize(
    ("gradient", "trace", "words"),
    [
        (10.0, 20.0, "larger than needed"),
        (1.0, 64.0, "of one size"),
        (1.0, 96.0, "of one size"),
        (1.0, 900.0, "well under the noise scale"),
    ],
)
def test_the_sentence_says_what_a_larger_batch_buys(home, look, gradient, trace, words):
    noisy(home, gradient, trace, count=300)
    page = look(f"/run/{RUN}/noise").page
    expect(page.locator(".hint")).to_contain_text(words)


def test_without_a_sample_the_page_says_what_must_happen(home, look):
    run = MadeRun(home, RUN).train(20)
    page = look(f"/run/{RUN}/noise").page
    expect(page.locator("#view-noise")).to_contain_text("the first sample of the noise comes")
    run.event("probe_off", probe="noise", why="a contrastive loss couples the samples").train(1)
    expect(page.locator("#view-noise")).to_contain_text("a contrastive loss couples the samples.")


def test_a_tail_index_comes_with_its_caveat_and_only_where_it_is_measured(home, look):
    run = noisy(home, gradient=1.0, trace=64.0)
    page = look(f"/run/{RUN}/noise").page
    expect(page.locator("#noise-scale-card")).to_be_visible()
    expect(page.locator("#tail-card")).to_be_hidden()

    tails = Schema("tail_index", (Column.of("tail_index"),))
    home.add_schema(RUN, tails)
    home.append(RUN, [run.frame(tails, [1.37])])
    run.train(5)

    expect(page.locator("#tail-card")).to_contain_text("1.37")
    expect(page.locator("#tail-card")).to_contain_text("make a Gaussian read 1.10")
    expect(look(f"/run/{RUN}").page.locator("#others-card")).to_be_hidden()
