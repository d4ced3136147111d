"""The page while its server or its store comes and goes, behind a token, below a prefix."""

from __future__ import annotations

import re

import pytest
from otoscope.store import Store, StoreUnavailableError
from playwright.sync_api import expect

from tests.conftest import find_free_port
from tests.dashboard.browser import Watched, served
from tests.dashboard.made_runs import RUN, MadeRun, live_run

pytestmark = pytest.mark.browser


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
