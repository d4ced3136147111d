"""The page in a real browser: every state of a run, both themes, both widths, no complaint."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator

import pytest
from otoscope.store import MemoryHome, Recommendation, Store, StoreUnavailableError
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import find_free_port, missing
from tests.dashboard.browser import CONTRAST, UNNAMED, Watched, launch, served
from tests.dashboard.made_runs import LAYERS, MadeRun, dead, too_high

pytestmark = pytest.mark.browser
RUN = "resnet-cifar-01"
HOSTILE = "<img src=x onerror=alert(1)> \"&'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if shutil.which("chromium") is None:
        missing("browser", "there is no chromium on PATH")
    with sync_playwright() as playwright:
        chromium = launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    with served(lambda: store) as found:
        yield found


@pytest.fixture
def look(browser: Browser, address: str) -> Iterator[Callable[..., Watched]]:
    """Open pages, and let the test fail for what the browser complained of in any of them."""
    opened: list[Watched] = []

    def look(path: str = "/", *, width: int = 1440, theme: str = "light", **more) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,  # type: ignore[arg-type]
        )
        watched = Watched(context.new_page(), address, **more)
        opened.append(watched)
        watched.open(path)
        return watched

    yield look
    for watched in opened:
        watched.check()
        watched.page.context.close()


def live_run(home: MemoryHome, name: str = "resnet-cifar") -> MadeRun:
    run = MadeRun(home, RUN, name=name, faulty_from=600).train(400)
    run.event("lr", optimizer=0, group=0, **{"from": 0.05, "to": 0.1, "phase": "warm restart"})
    return run.train(500).judged(too_high(RUN), dead(RUN))


def wait_for_paint(page: Page, selector: str) -> None:
    """Wait until a canvas holds anything at all."""
    page.locator(selector).first.scroll_into_view_if_needed()
    page.wait_for_function(
        """selector => {
          const canvas = document.querySelector(selector);
          if (!canvas || !canvas.width) return false;
          const blank = document.createElement("canvas");
          Object.assign(blank, { width: canvas.width, height: canvas.height });
          return canvas.toDataURL() !== blank.toDataURL();
        }""",
        arg=selector,
    )


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
    expect(page.locator("#judged")).to_contain_text("cost not measured yet")


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
    expect(done.locator("#obstacles")).to_contain_text("Not measured")
    expect(done.locator("#obstacles")).not_to_contain_text("yet")
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
    page.locator("tbody a", has_text="resnet-cifar").click()

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
    expect(page.locator("tbody a")).to_have_text(HOSTILE)

    page.locator("tbody a").click()

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


def test_a_run_is_renamed_and_deleted_in_the_dialog(home, look, store):
    live_run(home)
    page = look("/", expected=("400",)).page
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Name", exact=True).fill("Second try")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("tbody a")).to_have_text("Second try")

    page.get_by_role("button", name="Edit").click()
    remove = page.get_by_role("button", name="Delete this run")
    expect(remove).to_be_disabled()
    page.get_by_label(re.compile("type its name")).fill("Second try")
    remove.click()

    expect(page.locator("pre")).to_contain_text("callbacks=[Otoscope()]")
    assert store.runs() == []


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


def test_a_store_that_goes_away_is_said_and_its_return_is_noticed(home, browser):
    run = MadeRun(home, RUN).train(100).judged()
    there = [True]

    class Switching(Store):
        def run(self, run):
            if not there[0]:
                raise StoreUnavailableError("no answer from the Redis server; start it")
            return super().run(run)

    with served(lambda: Switching(home)) as address:
        page = browser.new_page()
        watched = Watched(page, address, expected=("503",))
        watched.open(f"/run/{RUN}")
        expect(page.locator("#run-head")).to_contain_text("step 100")
        there[0] = False
        expect(page.locator("#notice")).to_contain_text("no answer from the Redis server")
        expect(page.locator("body")).to_have_class(re.compile("away"))
        run.train(7)
        there[0] = True
        expect(page.locator("#run-head")).to_contain_text("step 107", timeout=20_000)
        expect(page.locator("#notice")).to_be_empty()
        assert page.evaluate("otoscope.model.tables.train.steps.length") == 107
        watched.check()
        page.close()


def test_a_restarted_page_server_loses_nothing(home, browser):
    run = MadeRun(home, RUN).train(100)
    port = find_free_port()
    page = browser.new_page()
    with served(lambda: Store(home), port) as address:
        watched = Watched(page, address, expected=("ERR_CONNECTION",))
        watched.open(f"/run/{RUN}")
        expect(page.locator("#run-head")).to_contain_text("step 100")
    run.train(50)
    expect(page.locator("#notice")).to_contain_text("does not answer")
    with served(lambda: Store(home), port):
        expect(page.locator("#run-head")).to_contain_text("step 150", timeout=20_000)
        assert page.evaluate("otoscope.model.tables.train.steps") == list(range(1, 151))
        watched.check()
    page.close()


def test_a_page_behind_a_token_opens_with_it_and_below_a_prefix(home, browser):
    live_run(home)
    with served(lambda: Store(home), token="secret", prefix="/mon/") as address:
        page = browser.new_page()
        watched = Watched(page, address, expected=("401",))
        watched.open(f"/mon/run/{RUN}")
        expect(page.get_by_label("Token")).to_be_visible()

        watched.open(f"/mon/run/{RUN}?token=secret")

        expect(page.locator("#verdict")).to_contain_text("Needs action")
        assert "secret" not in page.url
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Acknowledge").click()
        expect(page.locator(".told")).to_contain_text("Acknowledged")
        watched.check()
        page.close()


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
