"""A real browser on a real server: what it complains of fails the test."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from otoscope.dashboard import create_app
from otoscope.store import Store
from playwright.sync_api import Browser, Page, Playwright
from werkzeug.serving import WSGIRequestHandler, make_server

OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=list(OPTIONS), timeout=60_000
    )


class Quiet(WSGIRequestHandler):
    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        return None


@contextmanager
def served(connect: Callable[[], Store], port: int = 0, **options: Any) -> Iterator[str]:
    """Serve the page from a thread; yields its address."""
    app = create_app(connect, **options)
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@dataclass
class Watched:
    """A page whose complaints are collected: console, uncaught errors, foreign requests."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("request", self._request)

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            text = f"{message.text} ({message.location.get('url')})"
            if not any(part in text for part in self.expected):
                self.complaints.append(f"console {message.type}: {text}")

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https") and parts.netloc != urlsplit(self.address).netloc:
            self.complaints.append(f"foreign request: {request.url}")

    def open(self, path: str = "/") -> Page:
        self.page.goto(self.address + path)
        return self.page

    def check(self) -> None:
        """Fail where the browser complained, or where the page is wider than its window."""
        assert self.complaints == []
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(wider) <= 0, "the page scrolls sideways"


CONTRAST = """() => {
  const parse = (text) => (text.match(/[0-9.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, under) => {
    const a = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => a * top[i] + (1 - a) * under[i]);
  };
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest(":disabled") || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(element.tagName)) continue;
    const under = ground(element), text = over(parse(getComputedStyle(element).color), under);
    const [a, b] = [light(text), light(under)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
"""Texts whose contrast with what lies under them is under 4.5 (WCAG 2.2, 1.4.3)."""

UNNAMED = """() => [...document.querySelectorAll("button, a, input, select, textarea, canvas")]
  .filter((e) => e.checkVisibility() && !e.closest("[aria-hidden=true]"))
  .filter((e) => !(e.innerText || "").trim() && !e.getAttribute("aria-label") && !(e.labels && e.labels.length))
  .map((e) => e.outerHTML.slice(0, 120))"""
"""Controls and pictures without a name that a screen reader could say."""


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
