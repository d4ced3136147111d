"""The Findings page: the findings over the loss, the argument of one, and what a person decides of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from otoscope.callbacks import attach
from otoscope.diagnostics import Daemon
from otoscope.store import Evidence, Finding, Store, connect
from playwright.sync_api import expect
from sklearn.datasets import load_digits
from torch import nn

from tests.dashboard.browser import CONTRAST, UNNAMED, served, wait_for_paint
from tests.dashboard.made_runs import HOSTILE, RUN, MadeRun, dead, live_run, too_high

pytestmark = pytest.mark.browser
PAGE = f"/run/{RUN}/findings"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """A real training by Adam at 0.3, which kills units and never falls."""
    folder = tmp_path_factory.mktemp("recorded")
    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels / 16.0, dtype=torch.float32), torch.tensor(labels)
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.ReLU())]
    net = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), 0.3)
    recorder = attach(net, optimizer, run="high", spool=folder, budget=0.5, verdict=False)
    for _ in range(300):
        rows = torch.randint(0, len(x), (64,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
        recorder.step(loss, 64)
    recorder.finish()
    store = connect(str(folder / str(recorder.run_id)))
    Daemon(store.home, heartbeat=folder / "beat").tick()
    return store, str(recorder.run_id)


class TestOnARecordedRun:
    @pytest.fixture
    def address(self, recorded: tuple[Store, str]) -> Iterator[str]:
        with served(lambda: recorded[0]) as found:
            yield found

    @pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
    def test_a_finding_is_shown_over_the_loss_with_its_series_and_threshold(
        self, recorded, look, theme, width
    ):
        store, run = recorded
        first = store.findings(run)[0]
        page = look(f"/run/{run}/findings?finding={first.id}", theme=theme, width=width).page

        expect(page.locator("#run-tabs [aria-current]")).to_have_text("Findings")
        expect(page.locator(".lane-bar")).to_have_count(len(store.findings(run)))
        expect(page.locator(".finding-row.open .title")).to_have_text(first.title)
        wait_for_paint(page, ".picture canvas")
        limits = [item.threshold for item in first.because if item.threshold is not None]
        shown = page.evaluate("v => otoscope.number(v)", limits[0])
        expect(page.locator(".picture", has_text=f"threshold {shown}").first).to_be_visible()
        page.get_by_text("Why did this fire").click()
        expect(page.locator(".number", has_text="cool_down")).to_be_visible()
        assert page.evaluate(CONTRAST) == [] and page.evaluate(UNNAMED) == []

    def test_the_series_drawn_is_the_one_that_was_recorded(self, recorded, look):
        store, run = recorded
        finding = next(item for item in store.findings(run) if item.rule == "lr_too_high")
        page = look(f"/run/{run}/findings?finding={finding.id}").page
        wait_for_paint(page, ".picture canvas")

        answer = page.request.get(
            f"{page.url.split('/run/')[0]}/api/runs/{run}/evidence?finding={finding.id}"
        ).json()
        chart = next(item for item in answer["charts"] if item["quantity"] == "loss")
        read = store.read(run, "train", ["loss"], start=chart["steps"][0])
        wanted = dict(zip(read.steps.tolist(), read.column("loss").tolist(), strict=True))
        drawn = dict(zip(chart["steps"], (row[0] for row in chart["values"]), strict=True))
        assert len(drawn) >= 100
        whole = {step: value for step, value in drawn.items() if step in wanted}
        lowest, highest = min(wanted.values()), max(wanted.values())
        assert all(lowest - 1e-4 <= value <= highest * 1.0001 for value in whole.values())
        evidence = next(item for item in finding.because if item.column == "loss")
        assert chart["points"] == [[evidence.step, pytest.approx(evidence.value)]]

    def test_the_run_page_leads_there(self, recorded, look):
        store, run = recorded
        page = look(f"/run/{run}").page
        page.get_by_role("link", name="Evidence and charts").first.click()
        expect(page.locator(".finding-row.open")).to_have_count(1)
        expect(page.locator("#verdict:visible")).to_have_count(0)
        first = store.findings(run)[0]
        expect(page.locator(".finding-row.open .title")).to_have_text(first.title)


def over(run: str, i: int) -> Finding:
    """Return a finding that is over, with a critical one among ten."""
    finding = too_high(run, 100 + 4 * i, 130 + 4 * i)
    finding.id, finding.state, finding.caused = f"lr_too_high:run:1:{i}", "resolved", []
    finding.severity = "critical" if i % 10 == 0 else "info"
    return finding


@pytest.mark.parametrize("link", ["?finding={}", "#{}"])
def test_a_link_opens_its_finding_and_its_effects_lead_on(home, look, link):
    live_run(home)
    cause, effect = too_high(RUN), dead(RUN)
    page = look(PAGE + link.format(cause.id)).page

    expect(page.locator(".finding-row.open .title")).to_have_text(cause.title)
    page.locator(".caused a", has_text="Dead units").click()
    expect(page.locator(".finding-row.open .title")).to_have_text(effect.title)
    expect(page.locator(".detail .caused", has_text="Caused by")).to_contain_text(cause.title)
    assert f"finding={effect.id}".replace(":", "%3A") in page.url
    page.get_by_role("button", name="Critical: Learning rate too high").click()
    expect(page.locator(".finding-row.open .title")).to_have_text(cause.title)
    page.keyboard.press("]")
    expect(page.locator(".finding-row.open .title")).to_have_text(effect.title)
    page.keyboard.press("[")
    expect(page.locator(".finding-row.open .title")).to_have_text(cause.title)


def test_what_a_person_decides_of_a_finding_is_sent_and_shown(home, look, store):
    live_run(home)
    page = look(f"{PAGE}?finding={too_high(RUN).id}").page

    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator(".finding-row.open")).to_contain_text("acknowledged")
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.locator(".detail .told")).to_contain_text("Closed by hand")

    events = store.events(RUN)
    assert [event.kind for event in events] == ["lr", "acknowledged", "closed"]
    assert events[-1].body == {"finding": too_high(RUN).id}


def test_a_number_of_the_rule_is_set_for_the_run_refused_out_of_range_and_reset(home, look, store):
    live_run(home)
    watched = look(f"{PAGE}?finding={too_high(RUN).id}", expected=("400",))
    page = watched.page
    page.get_by_text("Why did this fire").click()
    clear = page.get_by_label("lr_too_high.clear", exact=True)

    clear.fill("7")
    page.get_by_role("button", name="Set lr_too_high.clear for this run").click()
    expect(page.locator(".numbers .error")).to_contain_text(
        "Lr_too_high.clear must be a number from 0 to 1, got 7"
    )
    clear.fill("0.5")
    clear.press("Enter")
    reset = page.get_by_role("button", name="Reset lr_too_high.clear")
    expect(reset).to_be_visible()
    expect(page.locator(".numbers .error")).to_be_empty()
    reset.click()
    expect(reset).to_have_count(0)

    told = [event.body for event in store.events(RUN) if event.kind == "override"]
    assert told == [
        {"key": "lr_too_high.clear", "value": 0.5},
        {"key": "lr_too_high.clear", "value": None},
    ]


def test_two_hundred_findings_are_listed_filtered_and_cost_a_tick_little(home, look, client):
    run = MadeRun(home, RUN).train(900)
    many = [too_high(RUN), *(over(RUN, i) for i in range(199))]
    many[0].caused = []
    run.judged(*many)
    page = look(PAGE).page

    expect(page.locator(".finding-row")).to_have_count(60)
    page.get_by_role("button", name="Show all 200").click()
    expect(page.locator(".finding-row")).to_have_count(200)
    page.get_by_label("Severity").select_option("critical")
    expect(page.locator(".finding-row")).to_have_count(21)
    expect(page.locator(".filters h2")).to_have_text("21 of 200 findings")
    page.get_by_label("State").select_option("open")
    expect(page.locator(".finding-row")).to_have_count(1)

    first = client.get(f"/api/runs/{RUN}/delta?page=findings")
    many[0].last_step = run.train(10).step
    run.judged(*many)
    url = f"/api/runs/{RUN}/delta?page=findings&since={first.get_json()['cursor']}"
    tick = client.get(url)
    assert len(zlib.compress(first.data)) < 300_000
    assert len(zlib.compress(tick.data)) < 5_000
    changed = tick.get_json()["findings"]
    assert [type(item) for item in changed].count(dict) == 1
    assert changed[1:] == [item.id for item in many[1:]]
    # and the page knows the others still
    expect(page.locator(".finding-row td[data-name=Steps]")).to_have_text("600–910")
    page.get_by_label("State").select_option("")
    expect(page.locator(".finding-row")).to_have_count(21)
    assert page.evaluate("otoscope.model.epoch") == 1  # nothing had to be asked for again


def test_without_a_finding_the_page_says_what_was_judged_and_one_that_comes_appears(home, look):
    run = MadeRun(home, RUN).train(200).judged()
    page = look(PAGE).page
    expect(page.locator("#view-findings")).to_contain_text("No finding")
    expect(page.locator("#view-findings")).to_contain_text("3 checks judged")
    expect(page.locator(".lane-bar")).to_have_count(0)

    wrong = too_high(RUN, 150, 200)
    wrong.caused = []
    run.train(5).judged(wrong)

    expect(page.locator(".finding-row")).to_have_count(1)
    expect(page.get_by_role("button", name="Critical: Learning rate")).to_be_visible()


def test_what_became_of_a_finding_stands_with_how_often_it_goes_away_by_itself(home, look):
    finding = over(RUN, 0)
    finding.outcome, finding.gone_by_itself = "helped", {"runs": 40, "gone": 3}
    finding.followed = {"parameter": "lr", "from": 0.1, "to": 0.034, "step": 120, "attempt": 1}
    finding.layers, finding.ranks = [f"net.{i}" for i in range(9)], [0, 1, 2, 5]
    MadeRun(home, RUN).train(300).judged(finding)
    page = look(f"{PAGE}?finding={finding.id}").page

    expect(page.locator(".outcome")).to_have_text(
        "Helped: lr 0.1 → 0.034 at step 120. "
        "A finding of this rule went away by itself in 3 of 40 untouched runs."
    )
    row = page.locator(".finding-row")
    expect(row).to_contain_text("9 layers: net.0 … net.8; ranks 0–2, 5")
    expect(row.locator("[data-name=Outcome]")).to_have_text("helped")
    expect(row.locator("[data-name=State]")).to_have_text("resolved")


def test_what_a_cause_has_left_behind_stands_by_itself_once_the_cause_is_over(home, look, client):
    root, effect = too_high(RUN, 100, 200), dead(RUN, 150)
    effect.state, root.state, root.caused = "firing", "resolved", [effect.id]
    MadeRun(home, RUN).train(300).judged(root, effect)

    assert client.get("/api/runs").get_json()["runs"][0]["open"]["warning"] == 1
    page = look(f"/run/{RUN}").page
    expect(page.locator(".finding:not(.aside) h2")).to_have_text(effect.title)
    page.get_by_role("link", name="Findings", exact=True).click()
    expect(page.locator(".finding-row")).to_have_count(2)
    page.get_by_role("button", name="Dead units").last.click()
    expect(page.locator(".detail .caused")).to_contain_text(root.title)
    expect(page.locator(".lane-label", has_text="dead units")).not_to_contain_text("caused")


def test_hostile_words_of_a_finding_stay_text(home, look):
    finding = too_high(RUN, 100, 200)
    finding.title = finding.why = finding.rule = HOSTILE
    finding.layers, finding.caused = [HOSTILE], [HOSTILE]
    finding.because = [Evidence(HOSTILE, "train", "loss", 150, 1.0, 0.5)]
    MadeRun(home, RUN).train(300).judged(finding)
    page = look(f"{PAGE}?finding={finding.id}").page

    expect(page.locator(".finding-row .title")).to_have_text(HOSTILE)
    wait_for_paint(page, ".picture canvas")
    assert page.locator("img").count() == 0


def test_the_endpoints_refuse_what_is_not_there(home, client):
    MadeRun(home, RUN).train(20).judged(too_high(RUN, 5, 15))
    api = f"/api/runs/{RUN}"

    assert "no finding 'nope'" in client.get(f"{api}/evidence?finding=nope").get_json()["error"]
    assert client.get(f"{api}/numbers?rule=nope").status_code == 400
    assert client.get("/api/runs/other-1/numbers?rule=plateau").status_code == 404
    answer = client.post(f"{api}/events", json={"kind": "override", "key": "platau.fire"})
    assert answer.status_code == 400 and "did you mean plateau" in answer.get_json()["error"]
    charts = client.get(f"{api}/evidence?finding={too_high(RUN, 5, 15).id}").get_json()["charts"]
    assert charts == []  # its evidence names no column
    numbers = client.get(f"{api}/numbers?rule=plateau").get_json()["numbers"]
    held = {row["name"]: row for row in numbers}
    assert held["fire"]["range"].startswith("a number from 0")
    assert held["severity"]["choices"] == ["info", "warning", "critical", "off"]
    assert np.isfinite(held["fire"]["default"])


def test_a_reader_may_look_but_not_set_a_number(home):
    from otoscope.dashboard import create_app

    MadeRun(home, RUN).train(20)
    app = create_app(lambda: Store(home), token="w", read_token="r").test_client()
    reader, url = {"Authorization": "Bearer r"}, f"/api/runs/{RUN}"
    body = {"kind": "override", "key": "plateau.fire", "value": 0.02}

    assert app.get(f"{url}/numbers?rule=plateau", headers=reader).status_code == 200
    assert app.get(f"{url}/numbers?rule=plateau").status_code == 401
    assert app.post(f"{url}/events", json=body, headers=reader).status_code == 403
    foreign = {"Authorization": "Bearer w", "Origin": "http://evil.example"}
    assert app.post(f"{url}/events", json=body, headers=foreign).status_code == 403
    assert Store(home).events(RUN) == []


def test_a_run_that_answers_a_finding_is_a_link_and_the_verdict_begins_with_no_bracket(home, look):
    finding = over(RUN, 0)
    finding.outcome = "helped"
    finding.followed = {"parameter": "lr", "from": 0.1, "to": 0.034, "run": "later-1"}
    MadeRun(home, RUN).train(300).judged(finding)
    page = look(f"{PAGE}?finding={finding.id}").page

    link = page.locator(".outcome").get_by_role("link", name="later-1")
    expect(link).to_have_attribute("href", "/run/later-1")
    expect(page.locator(".verdict strong")).to_have_text("Healthy so far (step 300)")


def test_one_change_that_answers_several_findings_is_told_once_and_what_ended_is_told_in_the_past(
    home, look
):
    """The parent's findings name this run, as the daemon writes them; the demo's advice is an activation."""
    first, second = too_high("parent-1"), over("parent-1", 0)
    change = {"parameter": "activation", "step": 1, "attempt": 1, "run": "heir-1"}
    ends = {"from": {"net.1": "ReLU"}, "to": {"net.1": "LeakyReLU"}}
    first.followed = second.followed = {**change, **ends}
    first.outcome = "helped"
    MadeRun(home, "parent-1").train(300).judged(first, second).end("finished")
    heir = MadeRun(home, "heir-1").train(300).judged().end("finished")
    home.write_meta("heir-1", {"parent": "parent-1", "probes": ["gradients"]})
    page = look(f"/run/{heir.run}").page

    told = page.locator(".answered")
    expect(told).to_have_count(1)
    expect(told).to_contain_text("with activation ReLU in net.1 → LeakyReLU in net.1")
    expect(told.locator("li")).to_have_count(2)
    expect(told.locator("li").first).to_contain_text("helped")
    expect(told.locator("li").last).to_contain_text("being followed")
    expect(page.locator(".obstacle")).to_contain_text("Never measured")
    expect(page.locator("#judged")).to_contain_text("cost 1.4 % of this run")
    page.goto(page.url + "/noise")
    expect(page.locator("#run-page")).to_contain_text('probes="all" adds it')
