"""The Run page in a real browser: every state of a run, both themes, both widths, no complaint."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from otoscope.store import MemoryHome
from playwright.sync_api import expect

from tests.dashboard.browser import CONTRAST, UNNAMED, Watched, wait_for_paint
from tests.dashboard.made_runs import LAYERS, RUN, MadeRun, dead, live_run, too_high

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_live_run_shows_verdict_finding_and_charts(home, look, theme, width):
    live_run(home)

    page = look(f"/run/{RUN}", theme=theme, width=width).page

    expect(page.locator("#verdict")).to_contain_text("Needs action")
    expect(page.locator("#verdict")).to_contain_text("0.034")
    expect(page.locator(".finding")).to_have_count(1)
    card = page.locator(".finding")
    for words in (
        "critical", "Seen", "Set", "lr = 0.034", "was 0.1 · 0.031–0.037 · derived", "Why",
        "How: 0.9 · lr / edge_ratio",
        "step=590.ckpt", "May be normal", "Verify", "Not measured",
        "Dead units: 93 of 128 in stage2.conv1 never fire",
    ):  # fmt: skip
        expect(card).to_contain_text(words)
    expect(page.locator("#judged")).to_contain_text("costs 1.4 % of this run")
    expect(page.locator("#judged")).to_contain_text("exploding gradients, finite numbers, plateau")
    expect(page.locator("#run-head code")).to_have_text(RUN)
    expect(page.locator("#judged")).to_contain_text("curvature: first sample near step 2,000")
    expect(page.locator("#obstacles")).to_contain_text("Not yet measured")
    for selector in ("#loss canvas", "#heatmap canvas", ".strip canvas"):
        wait_for_paint(page, selector)
    expect(page.locator(".strip")).to_have_count(len(LAYERS))
    scheme = page.locator("html").get_attribute("data-mantine-color-scheme")
    assert scheme == theme and page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_contrast_and_every_control_a_name(home, look, theme):
    live_run(home)
    warning = dead(RUN)
    warning.id, warning.severity = "other", "info"
    MadeRun(home, "stale-1").train(20).silent_for(40)
    MadeRun(home, "failed-1").train(20).event("exception", type="E", message="m").end("failed")
    home.set_labels(RUN, {"tags": ["first"], "notes": "a note"})

    for path, there in (
        (f"/run/{RUN}", ".strip"),
        ("/run/stale-1", ".strip"),
        ("/run/failed-1", "#run-head .error"),
        ("/", "tbody tr"),
    ):
        page = look(path, theme=theme).page
        expect(page.locator(there).first).to_be_visible()
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(UNNAMED) == []


def test_on_a_phone_the_finding_comes_right_after_the_verdict(home, look):
    live_run(home)
    page = look(f"/run/{RUN}", width=390).page
    expect(page.locator(".finding")).to_be_visible()

    places = [page.locator(name).bounding_box() for name in ("#verdict", ".finding", "#loss-card")]

    tops = [place["y"] for place in places if place]
    assert len(tops) == 3 and tops == sorted(tops)
    assert tops[1] - tops[0] < 300


def test_new_samples_and_a_new_judgement_show_up_by_themselves(home, look):
    run = MadeRun(home, RUN).train(300).judged()
    page = look(f"/run/{RUN}").page
    expect(page.locator("#verdict")).to_contain_text("Healthy so far")
    expect(page.locator("#run-head")).to_contain_text("step 300 of 1,200")

    run.train(20).judged(too_high(RUN, 290, 320))

    expect(page.locator("#run-head")).to_contain_text("step 320 of 1,200")
    expect(page.locator(".finding")).to_have_count(1)
    steps = page.evaluate("otoscope.model.tables.train.steps")
    assert steps == list(range(1, 321))


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_a_stale_run_is_greyed_and_says_since_when(home, look, width, theme):
    MadeRun(home, RUN).train(300).silent_for(40)

    page = look(f"/run/{RUN}", width=width, theme=theme).page

    expect(page.locator("#run-head")).to_contain_text(
        re.compile(r"no data for 4\d s, last step 300")
    )
    expect(page.locator("body")).to_have_class(re.compile("stale"))
    assert "grayscale" in page.locator("#loss canvas").evaluate("c => getComputedStyle(c).filter")


def test_a_killed_run_shows_the_steps_that_it_trained_though_it_did_not_tell_them(home, look):
    run = MadeRun(home, RUN).train(300)
    told = {"progress": {}, "overhead": {"share": 0.0}, "heartbeat": {"0": time.time() - 100}}
    home.write_meta(RUN, told)
    run.judged()

    page = look(f"/run/{RUN}").page

    expect(page.locator("#run-head")).to_contain_text("last step 300")
    expect(page.locator("#run-head")).not_to_contain_text("no step yet")
    expect(page.locator("#judged")).to_contain_text("what it costs is not known yet")


def test_a_failed_run_shows_its_exception(home, look):
    run = MadeRun(home, RUN).train(100)
    run.event("exception", type="RuntimeError", message="CUDA out of memory <b>").end("failed")
    run.judged()

    page = look(f"/run/{RUN}").page

    # and the banner is not the green one, though no rule found a fault
    expect(page.locator("#verdict .failed")).to_contain_text("no fault was found before it")
    expect(page.locator("#verdict .healthy")).to_have_count(0)

    expect(page.locator("#run-head .badge")).to_have_text("failed")
    expect(page.locator("#run-head")).to_contain_text("RuntimeError: CUDA out of memory <b>")


def test_a_finished_run_and_one_that_has_not_begun(home, look):
    MadeRun(home, "done-1").train(200).judged().end("finished")
    MadeRun(home, "fresh-1").silent_for(1)

    done = look("/run/done-1").page
    fresh = look("/run/fresh-1").page

    expect(done.locator("#run-head .badge")).to_have_text("finished")
    expect(done.locator("#obstacles")).to_contain_text("Never measured")
    expect(done.locator("#obstacles")).not_to_contain_text("yet")
    expect(done.locator("#pause")).to_be_hidden()
    done.keyboard.press("p")
    assert done.evaluate("otoscope.live.paused") is False
    expect(fresh.locator("#pause")).to_be_visible()
    expect(fresh.locator("#run-head")).to_contain_text("no step yet")
    expect(fresh.locator("#verdict")).to_contain_text("Not judged yet")
    expect(fresh.locator("#heatmap")).to_contain_text("Not measured yet")


def test_an_unknown_run_gets_a_page_of_its_own(look):
    page = look("/run/nope-1", expected=("404",)).page

    expect(page.locator("#run-page")).to_contain_text("No such run")
    expect(page.locator("#run-page a")).to_have_attribute("href", "/")


def test_a_long_event_is_not_torn_over_two_columns(home, look):
    run = MadeRun(home, RUN).train(100)
    run.event("note", text="steps are so short that following each of them is dear; " * 3)
    run.train(100).end("finished")

    page = look(f"/run/{RUN}").page

    item = page.locator(".marks li").first
    expect(item).to_contain_text("Note at step 100")
    assert item.evaluate("(item) => item.getClientRects().length") == 1


def test_a_rate_that_leaps_is_not_called_a_warm_up(home, look):
    run = MadeRun(home, RUN).train(100)
    run.event("lr", optimizer=0, group=0, **{"from": 0.001, "to": 0.002, "phase": "warmup"})
    run.train(100)
    run.event("lr", optimizer=0, group=0, **{"from": 0.02, "to": 0.24, "phase": "warmup"})
    run.train(100).end("finished")

    marks = look(f"/run/{RUN}").page.locator(".marks li")

    expect(marks.nth(0)).to_contain_text("0.001 → 0.002, warmup")
    expect(marks.nth(1)).to_contain_text("0.02 → 0.24")
    expect(marks.nth(1)).not_to_contain_text("warmup")


def test_the_head_of_a_run_tells_what_was_stored_and_warns_of_what_was_lost(
    home: MemoryHome, look: Callable[..., Watched]
) -> None:
    live_run(home)
    told = {"0": {"stored": 12_000, "waiting": 3, "lost": 0}, "1": {"stored": 345, "waiting": 0, "lost": 0}}  # fmt: skip
    home.write_meta(RUN, {"sending": told})
    page = look(f"/run/{RUN}").page
    head = page.locator("#run-head")
    expect(head).to_contain_text("all 12,345 samples stored")
    expect(head.locator(".error")).to_have_count(0)

    home.write_meta(RUN, {"sending": {"1": {"stored": 345, "waiting": 2_000, "lost": 17}}})
    expect(head.locator(".error")).to_contain_text(
        "17 samples lost: neither the server nor the disk"
    )
    expect(head.locator(".error")).to_contain_text("2,003 samples wait in the training process")
    expect(head).not_to_contain_text("samples stored")


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_a_run_of_several_ranks_shows_each_and_names_the_lost_one(
    home: MemoryHome, look: Callable[..., Watched], theme: str, width: int
) -> None:
    live_run(home)
    now = time.time()
    home.write_meta(RUN, {"world_size": 2, "began": now - 500})
    home.write_meta(RUN, {"heartbeat": {"0": now, "1": now - 120}})
    page = look(f"/run/{RUN}", theme=theme, width=width).page
    expect(page.locator("#run-head")).to_contain_text("Rank 1 is lost: it fell silent")
    rows = page.locator("#ranks tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("lost")
    expect(rows.nth(1)).to_contain_text("live")
    assert page.evaluate(CONTRAST) == []
    page = look("/", theme=theme, width=width).page
    expect(page.locator("table.runs")).to_contain_text("1 lost")
