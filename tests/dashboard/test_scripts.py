"""The arithmetic of the scripts, held against numpy in the browser that runs them."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from otoscope.store import MemoryHome, Store
from playwright.sync_api import Page, sync_playwright

from tests.conftest import missing
from tests.dashboard.browser import launch, served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if shutil.which("chromium") is None:
        missing("browser", "there is no chromium on PATH")
    with sync_playwright() as playwright, served(lambda: Store(MemoryHome())) as address:
        browser = launch(playwright)
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("#runs-list pre")
        yield page
        browser.close()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.034, "0.034"),
        (6480, "6,480"),
        (1.5e-7, "1.5e−7"),
        (0, "0"),
        (-2.5, "−2.5"),
        (1234567, "1.23e6"),
        (None, "–"),
        ("Infinity", "∞"),
        ("-Infinity", "−∞"),
    ],
)
def test_numbers_read_as_a_person_writes_them(page, value, text):
    assert page.evaluate("v => otoscope.number(v)", value) == text


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (["epoch", "train_loss", "val_acc", "val_loss"], "val_loss"),
        (["other_loss", "valid/loss"], "valid/loss"),
        (["eval_loss", "epoch"], "eval_loss"),
        (["epoch", "train_loss"], None),
    ],
)
def test_a_training_loss_that_a_validation_leaves_behind_is_not_its_own(page, columns, name):
    assert page.evaluate("v => otoscope.validationLoss(v)", {"columns": columns}) == name
    assert page.evaluate("() => otoscope.validationLoss(undefined)") is None


def test_a_moment_names_the_year_only_where_it_is_another_one(page):
    now, then = page.evaluate(
        "() => [Date.now() / 1000, new Date(2001, 1, 3, 4, 5) / 1000].map(otoscope.moment)"
    )

    assert then == "3 Feb 2001, 04:05"
    assert re.fullmatch(r"\d{1,2} \w{3,4}, \d\d:\d\d", now)
    assert page.evaluate("() => otoscope.moment(0)") == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (252, "4 m 12 s"), (3600, "1 h 0 m"), (200_000, "2 d 7 h")],
)
def test_ages_read_as_a_person_says_them(page, seconds, text):
    assert page.evaluate("s => otoscope.age(s)", seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.034000001, "0.034"),
        ([0.9, 0.95], "[0.9, 0.95]"),
        ({"name": "AdamW", "lr": 1e-3}, '{"name": "AdamW", "lr": 0.001}'),
        ({"url": "a:b,c"}, '{"url": "a:b,c"}'),
        (True, "true"),
        (None, "–"),
    ],
)
def test_a_setting_reads_as_it_would_be_typed(page, value, text):
    assert page.evaluate("v => otoscope.setting(v)", value) == text


def test_medians_and_quantiles_leave_out_what_is_not_finite(page):
    values = np.random.default_rng(0).lognormal(size=201)
    mixed = [*values.tolist(), "NaN", "Infinity"]

    found = page.evaluate(
        "v => [otoscope.median(v.map(Number)), otoscope.quantile(v.map(Number), 0.95)]", mixed
    )

    assert found[0] == pytest.approx(np.median(values))
    assert found[1] == pytest.approx(np.quantile(values, 0.95, method="higher"), rel=0.05)


def test_smoothing_is_an_exponential_mean_without_a_start_at_zero(page):
    values = np.random.default_rng(1).normal(5, 1, size=50)
    weight, mean, mass, expected = 0.9, 0.0, 0.0, []
    for value in values:
        mean, mass = weight * mean + (1 - weight) * value, weight * mass + (1 - weight)
        expected.append(mean / mass)

    found = page.evaluate(
        "([s, v, w]) => otoscope.smooth(s, v, w)", [list(range(50)), values.tolist(), weight]
    )

    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_spike_leaves_the_smoothed_line_soon_and_a_lasting_rise_does_not(page):
    spike = [1.0] * 50 + [1e18] * 5 + [1.0] * 50
    rise = [1.0] * 50 + [20.0] * 50

    after, risen = page.evaluate(
        "([a, b]) => [a, b].map((v) => otoscope.smooth(v.map((_, i) => i), v, 0.9))", [spike, rise]
    )

    assert max(after) < 5 and after[-1] == pytest.approx(1, rel=0.05)
    assert risen[-1] == pytest.approx(20, rel=0.05)


def test_smoothing_goes_on_behind_a_number_that_is_none(page):
    found = page.evaluate(
        "() => otoscope.smooth([1, 2, 3], [1, NaN, 1], 0.9).map((x) => Number.isNaN(x) ? null : x)"
    )

    assert found == [1, None, 1]


def test_robust_z_is_distance_from_the_median_in_log_spreads(page):
    values = np.random.default_rng(2).lognormal(0, 0.5, size=101)
    values[50] *= 100
    logs = np.log10(values)
    middle = np.median(logs)
    expected = (logs - middle) / (1.4826 * np.median(np.abs(logs - middle)))

    found = page.evaluate("v => otoscope.robust(v, v.map(() => 1), false)", values.tolist())

    np.testing.assert_allclose(found["z"], expected, rtol=1e-9)
    assert found["median"] == pytest.approx(10**middle)
    assert found["z"][50] > 6


def test_a_constant_layer_does_not_light_up(page):
    values = [1.0] * 20 + [1.01] * 20

    found = page.evaluate("v => otoscope.robust(v, v.map(() => 1), false).z", values)

    assert max(abs(z) for z in found) < 0.2


def test_uneven_sampling_does_not_move_the_past(page):
    steps = [*range(0, 500, 5), *range(500, 700)]
    values = [1.0] * 100 + [50.0] * 200

    z = page.evaluate(
        "([s, v]) => otoscope.robust(v, otoscope.stepWeights(s, NaN), false).z", [steps, values]
    )

    assert abs(z[10]) < 1 < z[250]


def test_what_follows_a_fault_is_no_part_of_the_past(page):
    steps = list(range(300))
    values = [1.0] * 100 + [50.0] * 200

    z = page.evaluate(
        "([s, v]) => otoscope.robust(v, otoscope.stepWeights(s, 100), false).z", [steps, values]
    )

    assert abs(z[10]) < 1 and z[250] > 10


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0, 0.5, 1], ["0", "0.5", "1"]),
        ([2.302, 2.3025, 2.303], ["2.302", "2.3025", "2.303"]),
        ([1e-9, 2e-9], ["1e−9", "2e−9"]),
        ([1.11e-4, 1.12e-4], ["1.11e−4", "1.12e−4"]),
        ([10000.1, 10000.2], ["10,000.1", "10,000.2"]),
    ],
)
def test_an_axis_writes_as_many_digits_as_tell_its_numbers_apart(page, values, texts):
    assert page.evaluate("v => otoscope.tickTexts(v)", values) == texts


def test_the_throughput_counts_the_breaks_between_steps(page):
    # Given 32 samples a step of 10 ms, and a break of a second within the last hundred steps
    times = [0.01 * step + (step > 150) for step in range(201)]

    text = page.evaluate(
        """times => {
          const columns = { samples: times.map(() => 32), loss: times.map(() => 1) };
          const train = { steps: times.map((_, i) => i + 1), times, column: (name) => columns[name] };
          const model = { tables: { train }, run: {}, worst: {}, ended: () => false, words: (now) => now };
          const cards = otoscope.statCards(model).map((card) => card.innerText);
          return cards.find((text) => text.startsWith("Throughput"));
        }""",
        times,
    )

    assert "1,600" in text  # 100 steps × 32 samples in 2 s


def test_the_small_curve_of_a_loss_that_stands_still_is_flat(page):
    heights = page.evaluate(
        """(values) => [...otoscope.spark(values, "loss").querySelector("path").getAttribute("d")
             .matchAll(/[ML]\\S+ (\\S+?)(?=[ML]|$)/g)].map((found) => Number(found[1]))""",
        [2.3026, 2.3021, 2.3027, 2.3024],
    )

    assert len(heights) == 4 and max(heights) - min(heights) < 1


@pytest.mark.parametrize("ends", [(0, 1), (2.291, 2.334), (0, 1e6), (-3, 7), (1e-9, 5e-9)])
def test_ticks_are_round_and_inside_their_axis(page, ends):
    ticks = page.evaluate("([a, b]) => otoscope.ticks(a, b, 5)", list(ends))

    assert 2 <= len(ticks) <= 12
    assert all(ends[0] - 1e-12 <= tick <= ends[1] * (1 + 1e-9) for tick in ticks)
    gaps = np.diff(ticks)
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-6)


def test_csv_quotes_names_and_disarms_formulas(page):
    table = {
        "columns": ["loss", '=cmd("x")', "a,b"],
        "layers": [None, None, None],
        "steps": [1, 2],
        "times": [0, 1.5],
        "values": [[0.5, None, 1], ["Infinity", 2, 3]],
    }

    text = page.evaluate("t => otoscope.csvText(new otoscope.Table(t))", table)

    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["step", "time", "loss", '\'=cmd("x")', "a,b"]
    assert rows[1] == ["1", "1970-01-01T00:00:00.000Z", "0.5", "", "1"]
    assert rows[2][2:] == ["Infinity", "2", "3"]
