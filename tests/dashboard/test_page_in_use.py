"""The Run page in use: its controls, its charts, what a person decides."""

from __future__ import annotations

import pytest
from otoscope.store import Column, Event, Recommendation, Schema
from playwright.sync_api import expect

from tests.dashboard.browser import wait_for_paint
from tests.dashboard.made_runs import HOSTILE, LAYERS, RUN, MadeRun, dead, live_run, too_high

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("axis", "last"), [("step", 900), ("samples", 900 * 64)])
def test_the_axis_counts_steps_or_samples(home, look, axis, last):
    live_run(home)
    page = look(f"/run/{RUN}?x={axis}").page
    wait_for_paint(page, "#loss canvas")
    model = "otoscope.model"
    end = page.evaluate(f"otoscope.horizontal({model}.tables.train, {model}).values.at(-1)")
    assert end == last
    layers = page.evaluate(f"otoscope.horizontal({model}.tables.gradients, {model}).values")
    steps = page.evaluate(f"{model}.tables.gradients.steps")
    assert layers == [step * last / 900 for step in steps]


def test_hostile_names_stay_text_everywhere(home, look):
    run = live_run(home, name=HOSTILE)
    home.set_labels(RUN, {"tags": [HOSTILE], "notes": HOSTILE})
    wrong = too_high(RUN, 610, 900)
    wrong.title = wrong.why = wrong.may_be_normal = HOSTILE
    wrong.id, wrong.caused = "x", [HOSTILE]
    run.judged(wrong)
    run.event("note", text=HOSTILE)
    page = look("/").page
    expect(page.locator("tbody th a")).to_have_text(HOSTILE)

    page.locator("tbody th a").click()

    expect(page.locator("h1:visible")).to_have_text(HOSTILE)
    expect(page.locator(".finding h2")).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0


def test_what_a_person_decides_is_sent_and_shown(home, look, store):
    run = live_run(home)
    page = look(f"/run/{RUN}").page

    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator(".told")).to_contain_text("Acknowledged")
    page.get_by_role("button", name="Snooze").click()
    expect(page.locator(".told")).to_contain_text("Snoozed until step 1,400")
    page.get_by_role("button", name="This is normal").click()
    expect(page.locator(".told")).to_contain_text("Marked as normal")

    kinds = [event.kind for event in store.events(RUN)]
    assert kinds == ["lr", "acknowledged", "snoozed", "normal"]
    # and what was decided last stands when the judgement knows of an earlier decision
    finding = too_high(RUN)
    finding.snoozed_until_step = 1400
    run.judged(finding, dead(RUN))
    expect(page.locator("#verdict")).to_contain_text("0.034")
    run.train(10)
    expect(page.locator("#run-head")).to_contain_text("step 910")
    expect(page.locator(".told")).to_contain_text("Marked as normal")


def test_what_is_set_in_many_layers_takes_few_lines(home, look):
    finding = dead(RUN)
    layers = [f"net.{i}" for i in range(12)]
    finding.recommendation = Recommendation(
        "activation",
        current=dict.fromkeys(layers, "Sigmoid"),
        proposed=dict.fromkeys(layers, "ReLU"),
        snippet="\n".join(f'model.set_submodule("{name}", torch.nn.ReLU())' for name in layers),
        also=[
            {
                "parameter": "weight_init",
                "proposed": {name: {"kind": "kaiming_normal", "std": 0.1} for name in layers},
            }
        ],
    )
    MadeRun(home, RUN).train(300).judged(finding)

    card = look(f"/run/{RUN}").page.locator(".finding")

    expect(card.locator(".set")).to_have_text("activation = ReLU in 12 layers")
    expect(card).to_contain_text("was Sigmoid in 12 layers")
    expect(card).to_contain_text("Together with weight_init = kaiming_normal in 12 layers")
    expect(card.locator("pre")).to_be_hidden()
    card.get_by_text("The 12 lines to paste").click()
    expect(card.locator("pre")).to_contain_text("net.11")


def test_a_finding_of_a_run_that_ended_is_not_snoozed(home, look):
    MadeRun(home, RUN).train(300).judged(too_high(RUN, 200, 300)).end("finished")

    page = look(f"/run/{RUN}").page

    expect(page.get_by_role("button", name="Acknowledge")).to_be_visible()
    expect(page.get_by_role("button", name="Snooze")).to_have_count(0)
    expect(page.locator("#loss .foot")).to_contain_text("dashed: lowest smoothed")


def test_a_new_judgement_takes_neither_focus_nor_selection_nor_what_was_folded_out(home, look):
    run = live_run(home)
    page = look(f"/run/{RUN}").page
    snooze = page.get_by_role("button", name="Snooze")
    snooze.focus()

    changed = too_high(RUN)
    changed.why = "Changed meanwhile."
    run.train(5).judged(changed)
    expect(page.locator(".finding")).to_contain_text("Changed meanwhile.")
    expect(snooze).to_be_focused()

    page.locator(".finding h2").click(click_count=3)
    changed.why = "Changed again."
    run.train(5).judged(changed)
    expect(page.locator("#run-head")).to_contain_text("step 910")
    assert "Learning rate too high" in page.evaluate("getSelection().toString()")
    page.evaluate("getSelection().removeAllRanges()")
    expect(page.locator(".finding")).to_contain_text("Changed again.")

    page.get_by_role("button", name="Acknowledge").click()
    page.locator("summary", has_text="What was said").click()
    changed.why = "Changed at last."
    run.train(5).judged(changed)
    expect(page.get_by_text("Changed at last.")).to_be_visible()


def test_the_address_holds_what_was_chosen_and_a_link_shows_the_same(home, look):
    live_run(home)
    page = look(f"/run/{RUN}").page
    page.locator("#quantity").get_by_text("Dead").click()
    page.locator("#yscale").get_by_text("Log").click()
    page.locator("#filter").fill("stage2")
    expect(page.locator(".strip")).to_have_count(2)
    expect(page.locator("#heatmap-note")).to_contain_text("dead units")
    page.wait_for_function("location.search.includes('filter=stage2')")

    linked = look(page.url.removeprefix(page.evaluate("location.origin"))).page

    expect(linked.locator(".strip")).to_have_count(2)
    expect(linked.locator("#heatmap-note")).to_contain_text("dead units")
    assert linked.evaluate("otoscope.settings.yscale") == "log"


def test_a_wrong_filter_is_said_and_breaks_nothing(home, look):
    live_run(home)
    page = look(f"/run/{RUN}").page

    page.locator("#filter").fill("(")

    expect(page.locator("#strips")).to_contain_text("not a regular expression")


def test_dragging_zooms_and_follow_leaves_it(home, look):
    live_run(home)
    page = look(f"/run/{RUN}").page
    wait_for_paint(page, "#loss canvas")
    box = page.locator("#loss canvas").bounding_box()
    assert box is not None

    page.mouse.move(box["x"] + 300, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 100, steps=5)
    page.mouse.up()

    expect(page.locator("#follow")).to_be_visible()
    first, last = page.evaluate("otoscope.settings.range")
    assert 0 < first < last < 900
    page.locator("#follow").click()
    expect(page.locator("#follow")).to_be_hidden()


def test_show_on_charts_zooms_to_the_steps_of_the_finding(home, look):
    live_run(home)
    page = look(f"/run/{RUN}").page

    page.get_by_role("button", name="Show on charts").click()

    first, last = page.evaluate("otoscope.settings.range")
    assert first < 600 and last >= 900


def test_one_cursor_goes_over_all_charts_and_the_keyboard_moves_it(home, look):
    live_run(home)
    page = look(f"/run/{RUN}").page
    wait_for_paint(page, "#heatmap canvas")
    page.locator("#heatmap canvas").focus()

    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")

    readout = page.locator("#heatmap .readout")
    expect(readout).to_contain_text(f"{LAYERS[1]} · step 895")
    expect(page.locator("#loss .cursor")).to_be_visible()
    expect(page.locator("#loss .readout")).to_contain_text("step 895")
    label = page.locator("#heatmap canvas").get_attribute("aria-label") or ""
    assert "6 layers" in label and "Unusual now" in label


def test_the_heatmap_has_a_table_for_those_who_need_one(home, look):
    live_run(home)
    page = look(f"/run/{RUN}").page

    page.locator("summary", has_text="As a table").click()

    expect(page.locator("#heatmap table tbody tr")).to_have_count(len(LAYERS))
    expect(page.locator("#heatmap table")).to_contain_text("above its median")


def test_the_numbers_of_a_chart_are_saved_as_csv_and_its_picture_as_png(home, look, tmp_path):
    live_run(home)
    page = look(f"/run/{RUN}").page
    wait_for_paint(page, "#heatmap canvas")

    with page.expect_download() as saved:
        page.get_by_role("button", name="numbers of the layers chart").click()
    saved.value.save_as(tmp_path / "layers.csv")
    with page.expect_download() as drawn:
        page.get_by_role("button", name="train chart as PNG").click()
    drawn.value.save_as(tmp_path / "loss.png")

    rows = (tmp_path / "layers.csv").read_text().splitlines()
    assert rows[0] == "step,time," + ",".join(f"grad_rms/{layer}" for layer in LAYERS)
    assert len(rows) == 1 + 900 // 5 and rows[-1].startswith("900,20")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_keys_pause_switch_the_theme_and_go_from_finding_to_finding(home, look):
    live_run(home)
    page = look(f"/run/{RUN}").page
    expect(page.locator(".finding")).to_have_count(1)

    page.keyboard.press("t")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")
    page.keyboard.press("]")
    expect(page.locator(".finding")).to_be_focused()
    page.keyboard.press("p")
    expect(page.locator("#notice")).to_contain_text("Paused")
    assert page.evaluate("otoscope.live.paused") is True
    page.keyboard.press("p")
    expect(page.locator("#notice")).to_be_empty()
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_contain_text("previous and next finding")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


GROUND = """wanted => {
  const canvas = document.querySelector("#heatmap canvas"), copy = document.createElement("canvas");
  Object.assign(copy, { width: canvas.width, height: canvas.height });
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const { data } = context.getImageData(0, 0, copy.width, copy.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) count += data[i] === wanted && data[i + 1] === wanted && data[i + 3] === 255;
  return count > 500;
}"""
"""Whether the heatmap has the grey of ordinary values that a theme gives them."""


def test_what_is_scrolled_away_follows_the_systems_theme_too(home, look):
    live_run(home)
    page = look(f"/run/{RUN}").page
    wait_for_paint(page, "#heatmap canvas")
    page.wait_for_function(GROUND, arg=247)
    page.set_viewport_size({"width": 1440, "height": 200})
    page.evaluate("scrollTo(0, 0)")
    frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    page.evaluate(frames)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(GROUND, arg=54)


def test_a_family_that_no_page_knows_is_drawn_and_found_by_its_filter(home, look):
    run = MadeRun(home, RUN)
    columns = [Column.of("spread", layer=f"net.{i}") for i in range(30)]
    logits = Schema("logits", (Column.of("largest"), *columns))
    home.add_schema(RUN, logits)
    for step in range(12):
        run.train(5)
        home.append(RUN, [run.frame(logits, [step, *range(30)])])
    page = look(f"/run/{RUN}").page
    charts = page.locator("#others .strip")
    expect(charts).to_have_count(24)
    expect(page.locator("#others")).to_contain_text("The first 24 of 31")
    expect(charts.first).to_contain_text("largest 11")

    page.get_by_label("Filter other quantities").fill("net.2[0-9]")

    expect(charts).to_have_count(10)
    assert page.evaluate("otoscope.settings.others") == "net.2[0-9]"
    page.get_by_label("Filter other quantities").fill("(")
    expect(page.locator("#others")).to_contain_text("not a regular expression")


def test_what_rules_read_is_folded_in_until_it_is_asked_for(home, look):
    run = MadeRun(home, RUN)
    shares = [Column.of(f"class_share_{place}") for place in range(10)]
    head = Schema("head", (Column.of("as_logits"), *shares))
    alike = Schema("symmetry", tuple(Column.of("alike_rows", layer=name) for name in "abc"))
    for schema in (head, alike):
        home.add_schema(RUN, schema)
    for _ in range(12):
        run.train(5)
        values = [run.frame(head, [1.5, *(0.05 + 0.01 * i for i in range(10))])]
        home.append(RUN, [*values, run.frame(alike, [0.25, 0.25, 0.25])])
    page = look(f"/run/{RUN}").page
    others = page.locator("#others")

    expect(others.locator("details")).to_have_count(2)
    expect(others.locator(".strip")).to_have_count(0)
    expect(others.get_by_text("as logits")).to_be_hidden()
    others.get_by_text("Head", exact=True).click()
    expect(others.get_by_text("as logits")).to_be_visible()
    expect(others).to_contain_text("share of each of 10 classes5 %–14 %")
    others.get_by_text("Symmetry", exact=True).click()
    expect(others).to_contain_text("in all 3 layers")
    page.get_by_label("Filter other quantities").fill("class_share_[12]")
    expect(others.locator(".strip")).to_have_count(2)


def test_an_event_that_was_written_twice_is_told_once(home, look):
    run = MadeRun(home, RUN).train(100)
    page = look(f"/run/{RUN}").page
    told = page.locator("#view-run li", has_text="Stalled at step 60")
    again = Event("stalled", 60, body={}, id="stalled-1-0")

    home.append(RUN, [], [again])
    expect(told).to_have_count(1)
    home.append(RUN, [], [again, Event("finished", 100, body={"reason": "end"}, id="end")])
    expect(page.get_by_text("Finished at step 100")).to_be_visible()

    expect(told).to_have_count(1)
    assert run.step == 100
