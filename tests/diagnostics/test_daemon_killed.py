"""Daemons that are killed at random points, over a real recorded run and all rules."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from otoscope.callbacks import attach
from otoscope.diagnostics import judge, request, set_number, summary
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.rules import RULES
from otoscope.store import Event, Frame, Store, connect, keys
from otoscope.store.redis_home import RedisHome
from otoscope.store.schemas import dumps
from torch import nn

from ..conftest import RedisProcess
from .lab import digits, mlp
from .scripted import frames, rule
from .test_daemon import CHILD, wait_for

STEPS = 300
RUN = "recorded-01"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run whose rate is raised too far after a while, recorded with every probe."""
    torch.manual_seed(0)
    x, y = digits()
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    recorder = attach(
        model,
        optimizer,
        loss_fn=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        spool=tmp_path_factory.mktemp("recorded"),
        probes="all",
        budget=0.5,
        verdict=False,
    )
    for step in range(STEPS):
        if step == 120:
            optimizer.param_groups[0]["lr"] = 0.3
        rows = torch.randint(len(x), (64,))
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder.step(loss, 64, (x[rows], y[rows]))
    recorder.finish()
    return connect(recorder.directory)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[RedisHome, str]]:
    server = RedisProcess(tmp_path).start()
    home = RedisHome(server.url)
    try:
        yield home, server.url
    finally:
        home.close()
        server.stop()


class Pair:
    """Two daemons that share the runs of a Redis; either can be killed and comes back."""

    def __init__(self, url: str, folder: Path) -> None:
        self._command = [sys.executable, "-c", CHILD, url]
        self._folder, self._url = folder, url
        self.children = [self._start(0, url), self._start(1, url)]

    def _start(self, which: int, url: str) -> subprocess.Popen[bytes]:
        beat = str(self._folder / f"beat-{which}")
        return subprocess.Popen([*self._command, beat], env={**os.environ, "OMP_NUM_THREADS": "1"})

    def kill(self, which: int, home: RedisHome) -> None:
        """Kill one, let go of what it held (else its lease runs out in ten seconds), start anew."""
        self.stop(which)
        held = home._client.get(keys.lease(RUN))
        if held is not None:
            home.release(RUN, held.decode())
        self.children[which] = self._start(which, self._url)

    def stop(self, which: int) -> None:
        self.children[which].send_signal(signal.SIGKILL)
        self.children[which].wait(10)


@pytest.mark.redis
def test_two_daemons_that_are_killed_at_random_points_find_what_one_pass_finds(
    recorded: Store, redis: tuple[RedisHome, str], tmp_path: Path
) -> None:
    home, url = redis
    source = recorded.runs()[0].id
    log, told = _log(recorded, source)
    home.begin_attempt(RUN)
    home.write_meta(RUN, recorded.home.meta(source).to_json())
    for schema in recorded.home.schemas(source).values():
        home.add_schema(RUN, schema)
    draw, store, sent = random.Random(0), Store(home), 0
    pair = Pair(url, tmp_path)
    try:
        for until in [*sorted(draw.sample(range(20, STEPS - 20), 6)), STEPS]:
            portion = [frame for frame in log if sent < frame.step <= until]
            events = [e for e in told if (e.step > sent or not sent) and e.step <= until]
            home.append(RUN, portion, events)
            sent = until
            if draw.random() < 0.5:  # at once, or after a while of judging
                wait_for(lambda seen=until - 20: _judged(home) >= seen // 10 * 10)
            if until == STEPS:
                break
            pair.kill(draw.randrange(2), home)
            wait_for(lambda: _judged(home) > 0)
            set_number(store, RUN, "plateau.fire", draw.choice([0.02, 0.5]))
            set_number(store, RUN, "lr_too_high.cool_down", draw.choice([0, 20]))
            if until < 100:  # a change keeps rules quiet for a while
                request(store, RUN, "action", {"parameter": "lr", "from": 0.1, "to": 0.001})
        wait_for(lambda: _judged(home) == STEPS and _has_read_all(home))
    finally:
        for which in (0, 1):
            pair.stop(which)
    found = summary(store, RUN)
    assert found["findings"]
    assert dumps(found) == dumps(judge(store, RUN))


def _judged(home: RedisHome) -> int:
    return int((home.judgement(RUN).state.get("place") or {}).get("step") or 0)


def _has_read_all(home: RedisHome) -> bool:
    last = home.events(RUN)[-1][0]
    return home.judgement(RUN).state["place"]["events"] == last


def _log(store: Store, run: str) -> tuple[list[Frame], list[Event]]:
    log = [f for stream in store.home.streams(run) for f in store.home.frames(run, stream)]
    # `train` of a step leaves last
    log.sort(key=lambda frame: (frame.step, frame.family == "train"))
    return log, [event for _, event in store.home.events(run)]


def test_a_recorded_run_is_judged_alike_from_any_cut_with_all_rules(recorded: Store) -> None:
    run = recorded.runs()[0].id
    log, events = _log(recorded, run)
    meta, schemas = recorded.home.meta(run), recorded.home.schemas(run)

    def fold() -> Fold:
        return Fold(run, meta, schemas, rules=RULES)

    whole = fold()
    whole.push(log, events)
    whole.judge()
    for cut in (95, 143, 215):
        first, second = fold(), fold()
        first.push([f for f in log if f.step <= cut], [e for e in events if e.step <= cut])
        first.judge()
        second.restore(first.state(), first.findings())
        second.rebuild([f for f in log if f.step <= cut])
        second.push(
            [f for f in log if f.step > first.place.step], [e for e in events if e.step > cut]
        )
        second.judge()
        assert second.state() == whole.state()
        assert dumps([f.to_json() for f in second.findings()]) == dumps(
            [f.to_json() for f in whole.findings()]
        )
    assert {"lr_too_high"} & {finding.rule for finding in whole.findings()}


def test_a_rule_that_raises_is_not_judged_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from dataclasses import replace

    from .scripted import judged

    monkeypatch.setattr(Fold, "strict", False)
    broken = replace(rule("dead_units"), judge=lambda window, context: 1 / 0)  # type: ignore[arg-type, return-value]
    fold = judged([broken, rule()], frames(range(1, 51), lambda step: 2.0))
    assert [finding.rule for finding in fold.findings()] == ["plateau"]
    assert "failed" in fold.coverage()[1]["dead_units"]
    assert caplog.text.count("rule dead_units failed") == 1
