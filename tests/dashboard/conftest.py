"""What the tests of the page share: an app over a home in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from otoscope.dashboard import create_app
from otoscope.store import MemoryHome, Store
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import missing
from tests.dashboard.browser import Watched, launch, served

# a live page asks every 1.5 s; the usual 5 s are short on a machine that has other work
expect.set_options(timeout=15_000)


@pytest.fixture
def home() -> MemoryHome:
    return MemoryHome()


@pytest.fixture
def store(home: MemoryHome) -> Store:
    return Store(home)


@pytest.fixture
def client(store: Store) -> FlaskClient:
    return create_app(lambda: store).test_client()


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
