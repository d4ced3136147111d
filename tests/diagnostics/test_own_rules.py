"""A reader's own rules: loaded with a clear error or judged by, and never in the others' way."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from otoscope.diagnostics import Daemon, active_rules, catalogue, judge, load_rules, summary
from otoscope.diagnostics.fold import Fold
from otoscope.diagnostics.judging import fold_run
from otoscope.diagnostics.own_rules import VARIABLE
from otoscope.diagnostics.rules import RULES
from otoscope.store import Column, ConfigError, Event, Frame, MemoryHome, Schema, Store
from otoscope.store.schemas import dumps

from tests.cli.conftest import otoscope, record

LOUD = '''"""Loud: a hum that is over its limit.

What: the hum of the last sample.
Why: nobody hears anything else.
Source: the neighbours.
"""
from otoscope.diagnostics import (
    Case, Evidence, Recommendation, breach, fine, unknown
)

FAMILY = "hum"
NUMBERS = {"fire": 3.0, "severity": "critical", "k": 1, "n": 2, "least": 1}


def judge(window, context):
    found = window.samples("hum", "volume", count=1).finite
    if len(found) < context.thresholds["least"]:
        return unknown("silence")
    volume = float(found.values[-1])
    if volume <= context.thresholds.fire:
        return fine(volume / context.thresholds.fire)
    advice = Recommendation("volume", volume, context.thresholds.fire)
    seen = (Evidence(f"volume {volume:g}", "hum", "volume", int(found.steps[-1]), volume),)
    return breach(volume / 3, Case("Too loud", "It hurts.", seen, advice, "A concert."))
'''
RUN = "hum-01"


def written(where: Path, text: str, name: str = "loud.py") -> Path:
    path = where / name
    path.write_text(text, encoding="utf-8")
    return path


def humming(volumes: list[float]) -> MemoryHome:
    """Return a home with a run whose hum was sampled at every tenth step."""
    home = MemoryHome()
    train = Schema("train", (Column.of("loss"), Column.of("non_finite")))
    hum = Schema("hum", (Column.of("volume"),))
    steps = 10 * len(volumes)
    home.write_meta(RUN, {"name": "hum", "world_size": 1, "progress": {"step": steps}})
    for schema in (train, hum):
        home.add_schema(RUN, schema)
    frames = [
        Frame("train", 0, 1, step, float(step), train.hash, np.array([1 / step, 0.0], np.float32))
        for step in range(1, steps + 1)
    ]
    frames += [
        Frame("hum", 0, 1, 10 * (i + 1), 0.0, hum.hash, np.array([volume], np.float32))
        for i, volume in enumerate(volumes)
    ]
    home.append(RUN, frames, [Event("started", body={"world_size": 1})])
    return home


RISING = LOUD.replace(
    "def judge(window, context):",
    """def remember(window, context):
    found = window.samples("hum", "volume", count=1).finite
    return {"most": max([context.memory.get("most", 0.0), *found.values.tolist()])}


def judge(window, context):
    context.thresholds["least"]
    if context.memory["most"] > 8:
        advice = Recommendation("volume", 1.0, 0.5)
        return breach(2.0, Case("Was loud", "It hurt.", (Evidence("it was"),), advice, ""))
""",
)


def with_rules(path: Path) -> tuple[Any, ...]:
    return (*RULES, *load_rules([path]))


def test_an_own_rule_fires_clears_and_is_judged_beside_the_others(tmp_path: Path) -> None:
    home = humming([1.0, 9.0, 9.0, 1.0, 1.0, 1.0])
    answer = judge(Store(home), RUN, rules=with_rules(written(tmp_path, LOUD)), until=30)
    assert answer["state"] == "needs_action"
    (finding,) = answer["findings"]
    assert (finding["rule"], finding["severity"], finding["state"]) == (
        "loud",
        "critical",
        "firing",
    )
    assert finding["because"][0]["value"] == 9.0
    assert {"loud", "non_finite"} <= set(answer["judged"])

    later = judge(Store(home), RUN, rules=with_rules(written(tmp_path, LOUD)))
    assert [item["state"] for item in later["findings"]] == ["resolved"]
    assert "loud" not in judge(Store(home), RUN, rules=RULES)["judged"]


def test_the_daemon_and_one_pass_find_the_same_by_own_rules(tmp_path: Path) -> None:
    home, rules = humming([1.0, 9.0, 9.0]), with_rules(written(tmp_path, LOUD))
    Daemon(home, heartbeat=tmp_path / "beat", rules=rules).tick()
    assert summary(Store(home), RUN)["findings"]
    live = summary(Store(home), RUN)
    assert dumps(live) == dumps(judge(Store(home), RUN, rules=rules))


def test_a_daemon_that_no_longer_has_the_rule_calls_its_finding_stale(tmp_path: Path) -> None:
    home = humming([1.0, 9.0, 9.0])
    rules = with_rules(written(tmp_path, LOUD))
    Daemon(home, token="a", heartbeat=tmp_path / "beat", rules=rules).tick()
    home.add_event(RUN, Event("note", step=30, body={"text": "go on"}))
    frame = Frame("train", 0, 1, 31, 0.0, "", np.zeros(2, np.float32))
    frame.schema = Schema("train", (Column.of("loss"), Column.of("non_finite"))).hash
    home.append(RUN, [frame], [Event("finished", step=31)])
    Daemon(home, token="a", heartbeat=tmp_path / "beat", rules=RULES).tick()
    assert [item["stale"] for item in summary(Store(home), RUN)["findings"]] == [True]


def test_its_numbers_can_be_overridden_as_those_of_any_rule(tmp_path: Path) -> None:
    home, rules = humming([1.0, 9.0, 9.0]), with_rules(written(tmp_path, LOUD))
    home.add_event(RUN, Event("override", body={"key": "loud.fire", "value": 10.0}))
    assert judge(Store(home), RUN, rules=rules)["findings"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    raise KeyError('volume')", "KeyError: 'volume'"),
        ("    raise SystemExit(1)", "SystemExit: 1"),
        ("    return None", "must return fine(), unknown() or breach(), got None"),
        ("    return fine(float('nan'))", "must be finite"),
        ("    return breach(2.0, None)", "needs a Case"),
        ("    return breach(2.0, Case('a', 'b', ('c',), None, 'd'))", "needs a Recommendation"),
        (
            "    return breach(2.0, Case('a', 'b', (), Recommendation('x', (i for i in ())), 'd'))",
            "TypeError: cannot pickle",
        ),
    ],
)
def test_a_rule_that_fails_is_not_judged_and_the_others_go_on(
    body: str, said: str, tmp_path: Path
) -> None:
    text = LOUD.partition("def judge")[0] + f"def judge(window, context):\n{body}\n"
    home, rules = humming([1.0, 9.0, 9.0]), with_rules(written(tmp_path, text))
    Daemon(home, heartbeat=tmp_path / "beat", rules=rules).tick()
    answer = summary(Store(home), RUN)
    assert said in answer["not_judged"]["loud"]
    assert answer["not_judged"]["loud"].startswith("its rule failed in line ")
    assert "non_finite" in answer["judged"]
    if "KeyError" in said:
        line = text[: text.index("raise")].count("\n") + 1
        assert f"line {line}:" in answer["not_judged"]["loud"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("FAMILY =", "FAMILY ="), None),
        (('FAMILY = "hum"', ""), "FAMILY must name the family"),
        (("def judge(window, context)", "def judge(window)"), "line 15: judge must take"),
        (("def judge(", "def judged("), "must define judge"),
        (("import (", "import (("), "SyntaxError"),
        (("FAMILY =", "1 / 0\nFAMILY ="), "line 11: ZeroDivisionError"),
        (("FAMILY =", "raise SystemExit(3)\nFAMILY ="), "line 11: SystemExit: 3"),
        (('"severity": "critical"', '"severity": "loud"'), "must be one of info, warning"),
        (('"k": 1', '"k": "one"'), "NUMBERS['k'] must be a whole number"),
        (('"k": 1', '"k": 3'), "k <= n"),
        (('"k": 1', '"span": 5000'), "span <= 2000"),
        (("3.0", "float('inf')"), "must be a finite number, got inf"),
        ((LOUD.partition("from")[0], ""), "docstring must say"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_by_file_and_line(
    change: tuple[str, str], said: str | None, tmp_path: Path
) -> None:
    path = written(tmp_path, LOUD.replace(*change))
    if said is None:
        assert [rule.id for rule in load_rules([path])] == ["loud"]
        return
    with pytest.raises(ConfigError) as refused:
        load_rules([path])
    assert said in str(refused.value) and str(path) in str(refused.value)


def test_names_that_are_taken_odd_or_nowhere_are_refused(tmp_path: Path) -> None:
    for name, said in (("plateau.py", "the name of another rule"), ("Too-Loud.py", "lower case")):
        with pytest.raises(ConfigError, match=said):
            load_rules([written(tmp_path, LOUD, name)])
    for nowhere in (str(tmp_path / "none.py"), "no.such.module", str(tmp_path / "empty")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match=r"no such rule file|neither a file|no rule in"):
            load_rules([nowhere])


def test_rules_come_from_folders_modules_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    written(folder, LOUD)
    written(folder, "raise RuntimeError", "_shared.py")
    package = tmp_path / "library"
    package.mkdir()
    written(package, LOUD, "very_loud_rule.py")
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(folder), "very_loud_rule"]))
    own = [rule.id for rule in active_rules()[len(RULES) :]]
    assert own == ["loud", "very_loud_rule"]
    info = {row.id: row for row in catalogue()}["very_loud_rule"]
    assert (info.name, info.severity, info.what) == (
        "very loud rule",
        "critical",
        "the hum of the last sample.",
    )
    assert info.thresholds["fire"] == 3.0 and info.thresholds["cadence"] == 10


def test_a_package_whose_rule_ends_the_process_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "raise SystemExit(3)", "ending_rule.py")
    written(tmp_path, "raise SystemExit(3)", "named_rule.py")
    dist = tmp_path / "ending-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: ending\nVersion: 1.0\n")
    (dist / "entry_points.txt").write_text("[otoscope.rules]\nending = ending_rule\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.chdir(tmp_path)
    assert active_rules() == RULES
    with pytest.raises(ConfigError, match="SystemExit"):
        load_rules(["named_rule"])


def test_the_command_line_takes_own_rules_and_refuses_bad_ones_at_the_start(
    tmp_path: Path,
) -> None:
    path = record(tmp_path / "run", RUN)
    rule = written(
        tmp_path, LOUD.replace('"hum"', '"train"').replace('"volume"', '"loss"', 1), "low.py"
    )
    answer = otoscope("diagnose", path, "--rules", rule, "--json")
    assert "low" in json.loads(answer.stdout)["judged"], answer.stderr
    assert "Loud: a hum" in otoscope("rules", "--rules", rule).stdout

    written(tmp_path, "FAMILY = 3", "low.py")
    for command in (["diagnose", str(path)], ["daemon"], ["rules"], ["up", "--no-browser"]):
        refused = otoscope(*command, environment={VARIABLE: str(rule)})
        assert refused.returncode == 1
        assert "low.py, line 1: a docstring must say" in refused.stderr


def test_an_own_rule_remembers_what_no_window_holds_also_after_a_restart(tmp_path: Path) -> None:
    rules = with_rules(written(tmp_path, RISING))
    home = humming([9.0, *[1.0] * 249])
    whole = judge(Store(home), RUN, rules=rules)
    assert [finding["title"] for finding in whole["findings"]] == ["Was loud"]
    assert whole["findings"][0]["last_step"] == 2500, "2,490 steps after it was loud"
    log = [f for stream in home.streams(RUN) for f in home.frames(RUN, stream)]
    told = (RUN, home.meta(RUN), home.schemas(RUN))
    half, again = Fold(*told, rules=rules), Fold(*told, rules=rules)
    half.push(f for f in log if f.step <= 1200)
    half.judge()
    again.restore(json.loads(dumps(half.state())), half.findings())
    again.rebuild(f for f in log if f.step <= 1200)
    again.push(f for f in log if f.step > 1200)
    again.judge()
    assert again.memory["loud"] == {"most": 9.0}
    assert [finding.to_json() for finding in again.findings()] == whole["findings"]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("[1]", "must return a dict"),
        ("{'a': object}", "type is not JSON"),
        ("{'a': 'x' * 30_000}", "at most 20,000 characters"),
        ("{'a': 1 / 0}", "ZeroDivisionError"),
    ],
    ids=["no dict", "no JSON", "too much", "an error"],
)
def test_a_memory_that_cannot_be_kept_costs_its_own_rule_alone(
    returned: str, words: str, tmp_path: Path
) -> None:
    text = f"{LOUD}\n\ndef remember(window, context):\n    return {returned}\n"
    answer = judge(Store(humming([1.0] * 4)), RUN, rules=with_rules(written(tmp_path, text)))
    assert "its memory failed in line" in answer["not_judged"]["loud"]
    assert words in answer["not_judged"]["loud"]
    assert "non_finite" in answer["judged"]


def test_a_remember_of_another_shape_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, f"{LOUD}\n\ndef remember(window):\n    return {{}}\n")
    line = path.read_text().splitlines().index("def remember(window):") + 1
    with pytest.raises(ConfigError, match=rf"line {line}: remember must take \(window, context\)"):
        load_rules([path])


def test_arrays_that_a_rule_remembers_come_back_as_lists_and_what_is_changed_in_place_is_kept(
    tmp_path: Path,
) -> None:
    body = """import numpy as np

def remember(window, context):
    memory = context.memory
    memory.setdefault("steps", []).append(np.int64(window.step))
    return {**memory, "twice": np.array([window.step, 2 * window.step])}
"""
    rules = with_rules(written(tmp_path, f"{LOUD}\n{body}"))
    home = humming([1.0] * 4)
    fold = fold_run(home, RUN, rules=rules)
    assert fold.memory["loud"] == {"steps": [10, 20, 30, 40], "twice": [40, 80]}
    assert json.dumps(fold.memory["loud"]), "of numbers that JSON has"
