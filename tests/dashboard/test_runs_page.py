"""The list of runs in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.dashboard.made_runs import RUN, MadeRun, live_run

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_without_a_run_the_two_lines_to_paste_are_shown(look, theme, width):
    page = look("/", theme=theme, width=width).page

    expect(page.locator("pre")).to_contain_text("from otoscope.callbacks import Otoscope")
    expect(page.locator("pre")).to_contain_text("Trainer(callbacks=[Otoscope()])")


@pytest.mark.parametrize("width", [1440, 390])
def test_runs_are_searched_sorted_and_opened(home, look, width):
    live_run(home)
    MadeRun(home, "other-1", name="other").train(50).silent_for(500)
    page = look("/", width=width).page
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("1 critical")

    page.keyboard.press("/")
    page.keyboard.type("other")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("lost")
    page.locator("#search").fill("")
    page.locator("tbody th a", has_text="resnet-cifar").click()

    expect(page.locator("#verdict")).to_contain_text("Needs action")


@pytest.mark.parametrize("width", [1440, 390])
def test_a_run_in_the_list_shows_its_curve_and_its_obstacles(home, look, width):
    live_run(home)
    spark = [2.3, 1.1, None, 0.5]
    home.write_meta(RUN, {"progress": {"step": 900, "loss": 0.5, "loss_best": 0.4, "spark": spark}})
    kept = home.judgement(RUN)
    before, kept.cursor = kept.cursor, "with obstacles"
    kept.obstacles = {
        "conditioning": {"value": 28.0, "measured": True},
        "noise": {"measured": False},
    }
    assert home.acquire(RUN, "made", 1000)
    assert home.commit(RUN, "made", 1000, before, kept)

    page = look("/", width=width).page

    curve = page.locator("tbody .spark path")
    # a gap where the loss was no number: two lines of their own
    expect(curve).to_have_attribute("d", re.compile(r"^M[\d. ]+L[\d. ]+M[\d. ]+$"))
    bars = page.locator("tbody .bars")
    expect(bars).to_contain_text("Conditioning: 28 steps")
    expect(bars).to_contain_text("Noise: not measured")
    expect(bars.locator(".bar.none")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_run_is_renamed_and_deleted_in_the_dialog(home, look, store):
    live_run(home)
    page = look("/", expected=("400",)).page
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Name", exact=True).fill("Second try")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("tbody th a")).to_have_text("Second try")

    page.get_by_role("button", name="Edit").click()
    remove = page.get_by_role("button", name="Delete this run")
    expect(remove).to_be_disabled()
    page.get_by_label(re.compile("type its name")).fill("Second try")
    remove.click()

    expect(page.locator("pre")).to_contain_text("callbacks=[Otoscope()]")
    assert store.runs() == []
