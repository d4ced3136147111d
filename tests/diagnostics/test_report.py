"""The report: one page that holds everything it shows, and shows no markup of others."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
from otoscope.diagnostics import judge, render_report
from otoscope.diagnostics.charts import heatmap, loss_chart
from otoscope.diagnostics.evidence import evidence_charts
from otoscope.store import Event, MemoryHome, Store

from .lab import RUN, Lab

VOID = {"meta", "br", "path", "img"}


class Balanced(HTMLParser):
    """Raises where a tag is closed that was not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def store_of(lab: Lab, **meta: object) -> Store:
    home = MemoryHome()
    home.write_meta(RUN, {**lab.told(), **meta})
    for schema in lab.schemas.values():
        home.add_schema(RUN, schema)
    home.append(RUN, lab.frames, [Event("started", body={"world_size": 1}, id="s"), *lab.events])
    return Store(home)


def test_a_report_is_one_well_formed_page_without_script_or_request(faulty: Lab) -> None:
    store = store_of(faulty)
    page = render_report(store, RUN, judge(store, RUN))
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not parser.seen & {"script", "link", "iframe", "object"}
    assert not re.findall(r"(?:src|href|url\()\s*=?\s*[\"']?https?:", page)
    assert "prefers-color-scheme:dark" in page
    assert len(page) < 400_000


def test_a_report_shows_the_finding_with_its_value_and_what_was_judged(faulty: Lab) -> None:
    store = store_of(faulty)
    judged = judge(store, RUN)
    page = render_report(store, RUN, judged)
    first = judged["findings"][0]
    assert first["recommendation"]["basis"] in page
    assert "May be normal" in page
    assert "Verify" in page
    assert "checks judged" in page
    drawn = sum(len(evidence_charts(store, RUN, item)) for item in judged["findings"])
    assert drawn >= 1
    assert page.count("<svg") == 2 + drawn
    assert page.count('class="threshold"') >= 1


def test_names_from_a_run_are_escaped(healthy: Lab) -> None:
    store = store_of(healthy, name="<script>alert(1)</script>")
    page = render_report(store, RUN, judge(store, RUN))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_run_without_frames_has_a_report_that_says_so() -> None:
    home = MemoryHome()
    home.write_meta(RUN, {"name": "empty"})
    store = Store(home)
    page = render_report(store, RUN, judge(store, RUN))
    assert "Not judged yet" in page
    assert "No finite loss was recorded." in page


def test_a_loss_of_nan_and_thirty_decades_can_be_drawn() -> None:
    steps = np.arange(1, 101)
    losses = np.where(steps < 50, 1.0, 1e30)
    losses[80:] = np.nan
    assert "NaN" not in loss_chart(steps, losses, [], span=(1, 100)).replace("nan", "NaN")


def test_layers_of_zeros_and_infinities_can_be_drawn() -> None:
    steps = np.arange(10, 110, 10)
    values = np.ones((10, 3), dtype=np.float32)
    values[:, 1] = 0.0
    values[5:, 2] = np.inf
    drawn = heatmap(steps, values, ["a", "b", "c<"], [], span=(10, 100))
    assert 'class="zm4"' in drawn
    assert 'class="zbad"' in drawn
    assert "c&lt;" in drawn
