"""The whole path in a browser: a net trains, the daemon judges, the page shows it while it happens."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from otoscope.diagnostics import Daemon
from otoscope.store import Finding, Store, connect
from playwright.sync_api import expect

from tests.conftest import RedisProcess
from tests.dashboard.browser import Watched, served

pytestmark = pytest.mark.browser
STEPS = 400


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A server of this test's own: the list of runs begins empty."""
    redis = RedisProcess(tmp_path).start()
    yield redis
    redis.stop()


@pytest.fixture
def store(server: RedisProcess, tmp_path: Path) -> Iterator[Store]:
    """The store, with a daemon that judges what arrives."""
    store, stop = connect(server.url), threading.Event()
    judging = connect(server.url)
    daemon = Daemon(judging.home, poll=0.1, heartbeat=tmp_path / "beat")
    thread = threading.Thread(target=daemon.run, args=(stop,), daemon=True)
    thread.start()
    yield store
    stop.set()
    thread.join(20)
    judging.close()
    store.close()


def training(url: str, role: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "otoscope.callbacks.demo", "--role", role]
    command += ["--fault", "lr_too_high", "--steps", str(STEPS), "--run-name", f"digits {role}"]
    environment = {**os.environ, "OTOSCOPE_URL": url, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def root_findings(store: Store, run: str) -> list[Finding]:
    findings = store.findings(run)
    caused = {name for finding in findings for name in finding.caused}
    return [f for f in findings if f.id not in caused and f.state == "firing"]


def test_a_faulty_training_is_shown_judged_and_advised_while_it_runs(browser, server, store):
    with served(lambda: store) as address:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        watched = Watched(page, address)
        watched.open("/")
        expect(page.locator("pre")).to_contain_text("callbacks=[Otoscope()]")

        process = training(server.url, "faulty")
        try:
            page.get_by_role("link", name="digits faulty").click(timeout=60_000)
            expect(page.locator("#verdict")).to_contain_text("Needs action", timeout=60_000)
            expect(page.locator(".finding").first).to_be_visible()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
        expect(page.locator("#run-head .badge")).to_have_text("finished", timeout=20_000)
        expect(page.locator("#run-head")).to_contain_text(f"step {STEPS} of {STEPS}")
        expect(page.locator("#judged")).to_contain_text("of this run")

        run = store.runs()[0].id
        recorded = store.read(run, "train", ["loss"])
        page.wait_for_function(f"otoscope.model.tables.train.steps.length === {STEPS}")
        shown = page.evaluate("otoscope.model.tables.train.column('loss').map(String)")
        np.testing.assert_allclose(
            [float(text.replace("Infinity", "inf")) for text in shown],
            recorded.column("loss"),
            rtol=1e-5,
        )
        first = root_findings(store, run)[0]
        assert first.recommendation is not None
        expect(page.locator(".finding").first).to_have_attribute("data-rule", first.rule)
        proposed = page.locator(".set").first.inner_text().removeprefix("lr = ")
        assert float(proposed) == pytest.approx(first.recommendation.proposed, rel=1e-3)
        watched.check()
        page.close()


def test_a_healthy_training_is_called_healthy_and_shows_no_finding(browser, server, store):
    process = training(server.url, "healthy")
    assert process.wait(90) == 0

    with served(lambda: store) as address:
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        watched = Watched(page, address)
        watched.open(f"/run/{store.runs()[0].id}")

        expect(page.locator("#verdict")).to_contain_text("Healthy (step 400)", timeout=20_000)
        expect(page.locator(".finding")).to_have_count(0)
        expect(page.locator(".strip").first).to_be_visible()
        watched.check()
        page.close()
