"""Overriding: numbers of a project and of a run, what is refused, and that a replay obeys them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from otoscope.callbacks import attach
from otoscope.cli.rules import rules as command
from otoscope.diagnostics import Daemon, judge, numbers_in_force, set_number, summary
from otoscope.diagnostics.overriding import parsed, project_numbers
from otoscope.diagnostics.ranges import allowed
from otoscope.diagnostics.rules import RULES
from otoscope.diagnostics.thresholds import load, numbers
from otoscope.store import ConfigError, Event, MemoryHome, Store, connect
from otoscope.store.project import find_project
from otoscope.store.schemas import dumps
from torch import nn

from .scripted import RUN, frames, judged, rule
from .test_requests import a_home


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a project's otoscope.toml; the working directory is a folder below it."""
    (tmp_path / "scripts").mkdir()
    monkeypatch.chdir(tmp_path / "scripts")
    monkeypatch.delenv("OTOSCOPE_CONFIG", raising=False)
    return tmp_path / "otoscope.toml"


def test_every_number_of_every_rule_lies_in_its_own_range() -> None:
    for name, body in numbers().items():
        load(name)
        for number, value in body.items():
            limits = allowed(name, number, body)
            assert limits is None or limits.holds(value), f"{name}.{number} = {value}: {limits}"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("plateau.fire", "lots", r"plateau\.fire must be a number from 0 to 1, got 'lots'"),
        ("plateau.fire", 7, r"plateau\.fire must be a number from 0 to 1, got 7"),
        ("plateau.fire", float("nan"), r"plateau\.fire must be a number from 0 to 1, got nan"),
        ("plateau.fire", True, r"plateau\.fire must be a number from 0 to 1, got True"),
        ("plateau.fire", 10**400, r"plateau\.fire must be a number from 0 to 1, got 10{40}"),
        ("plateau.warm_up", 10**400, r"plateau\.warm_up must be a whole number from 0 to 1,000"),
        ("plateau.window", 2.5, r"plateau\.window must be a whole number from 1 to 2,000, got 2.5"),
        ("plateau.span", 4000, r"plateau\.span must be a whole number from 1 to 2,000, got 4000"),
        ("plateau.k", 5, r"plateau\.k must be a whole number from 1 to 4 \(k of the last n = 4"),
        ("plateau.n", 2, r"plateau\.k must be a whole number from 1 to 2 .* got 4"),
        ("plateau.severity", "loud", r"one of info, warning, critical, off, got 'loud'"),
        ("plateau.fier", 1, r"plateau has no number 'fier' .*did you mean plateau\.fire\?"),
        ("plato.fire", 1, r"there is no rule 'plato' .*did you mean plateau\?"),
    ],
)
def test_an_override_that_cannot_be_is_refused_with_what_is_allowed(
    key: str, value: object, said: str
) -> None:
    home = a_home()
    with pytest.raises(ConfigError, match=said):
        set_number(Store(home), RUN, key, value, rules=RULES)
    assert [event.kind for _, event in home.events(RUN)] == ["started"]


def test_a_number_of_one_run_counts_while_it_trains_and_can_be_taken_back(tmp_path: Path) -> None:
    home, rules = a_home(), (rule(),)
    store = Store(home)
    daemon = Daemon(home, heartbeat=tmp_path / "beat", rules=rules)
    log = frames(range(1, 401), lambda step: 2.0)
    for until, value in ((100, 2.5), (250, None), (400, None)):
        home.append(RUN, [frame for frame in log if until - 150 < frame.step <= until][-150:])
        daemon.tick()
        if until < 400:
            set_number(store, RUN, "plateau.fire", value, rules=rules)
            daemon.tick()
            assert numbers_in_force(store, RUN).get("plateau.fire") == value
    states = sorted((f.first_step, f.state) for f in home.judgement(RUN).findings)
    assert states == [(10, "resolved"), (260, "firing")]
    assert dumps(summary(store, RUN)) == dumps(judge(store, RUN, rules=rules))


def test_a_rule_can_be_switched_off_by_its_severity() -> None:
    event = Event("override", body={"key": "plateau.severity", "value": "off"})
    fold = judged([rule()], frames(range(1, 101), lambda step: 2.0), [event])
    assert fold.findings() == []
    assert fold.coverage() == ([], {"plateau": "switched off by plateau.severity"})


def test_the_file_of_a_project_is_found_upwards_or_by_its_variable(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_project() != project
    project.write_text("[rules.plateau]\nk = 2\nn = 3\nfire = 0.02\n")
    assert project_numbers(RULES) == {"plateau.k": 2, "plateau.n": 3, "plateau.fire": 0.02}
    other = project.parent / "other.toml"
    other.write_text("")
    monkeypatch.setenv("OTOSCOPE_CONFIG", str(other))
    assert project_numbers(RULES) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rules.plateau\n", "is no TOML"),
        (f"x = {'[' * 3000}", "is no TOML"),
        (f"[rules.plateau]\nfire = {'1' * 5000}\n", "is no TOML"),
        (f"[rules.plateau]\nfire = {'1' * 400}\n", r"plateau\.fire must be a number from 0 to 1"),
        ("fire = 1\n", r"unknown 'fire'; numbers stand in tables by their rule"),
        ("[rules]\nplateau = 1\n", r"rules\.plateau must be a table"),
        ("[rules.plateau]\nfire = [1]\n", r"plateau\.fire must be a number or a word"),
        ("[rules.plateau]\nfire = 3\n", r"plateau\.fire must be a number from 0 to 1, got 3"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_those_who_can_mend_it(
    project: Path, text: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    project.write_text(text)
    with pytest.raises(ConfigError, match=said):
        project_numbers(RULES)
    Daemon(MemoryHome(), heartbeat=project.parent / "beat")
    assert "the defaults of all rules hold" in caplog.text


def test_a_file_that_begins_with_a_byte_order_mark_is_read(project: Path) -> None:
    project.write_text("[rules.plateau]\nfire = 0.02\n", encoding="utf-8-sig")
    assert project_numbers(RULES) == {"plateau.fire": 0.02}


def test_a_daemon_writes_its_projects_numbers_into_the_log_so_that_a_replay_obeys_them(
    project: Path,
) -> None:
    project.write_text("[rules.plateau]\nfire = 1.0\nk = 1\n[rules.dead_units]\nseverity = 'off'\n")
    rules = (rule(), rule("dead_units"))
    home = a_home()
    home.append(RUN, frames(range(1, 41), lambda step: 2.0))
    Daemon(home, heartbeat=project.parent / "beat", rules=rules).tick()
    project.unlink()
    assert [f.rule for f in home.judgement(RUN).findings] == ["plateau"]
    assert dumps(summary(Store(home), RUN)) == dumps(judge(Store(home), RUN, rules=rules))
    assert [e.kind for _, e in home.events(RUN)].count("project") == 1


def test_numbers_that_a_run_recorded_and_that_cannot_be_are_left_out_and_named() -> None:
    told = {"plateau.fire": 2.5, "plateau.k": 9, "no.such": 1}
    rules = [rule(fire=1.5)]
    fold = judged(rules, frames(range(1, 41)), [Event("project", body={"numbers": told})])
    assert fold.settings.project == {"plateau.fire": 2.5}
    assert set(fold.settings.refused) == {"plateau.k", "no.such"}


def test_what_is_typed_is_read_as_a_number_where_it_is_one() -> None:
    assert parsed("plateau.k=3") == ("plateau.k", 3)
    with pytest.raises(ConfigError, match="a number is set as"):
        parsed("plateau.k")


def test_the_command_sets_a_number_of_a_recording_and_refuses_a_bad_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(a_home())
    monkeypatch.setattr("otoscope.cli.rules.open_run", lambda name, url: (store, RUN))
    run = CliRunner().invoke
    shown = run(command, ["--run", "x", "--set", "plateau.fire=0.02", "--json"])
    assert json.loads(shown.output)["set"] == {"plateau.fire": 0.02}
    bad = run(command, ["--run", "x", "--set", "plateau.fire=20"])
    assert (bad.exit_code, "from 0 to 1, got 20" in bad.output) == (2, True)
    assert run(command, ["--set", "plateau.fire=0.02"]).exit_code == 2
    folder = run(command, ["--run", ".", "--set", "plateau.fire=0.02"])
    assert (folder.exit_code, "is a recording" in folder.output) == (2, True)
    assert [event.kind for _, event in store.home.events(RUN)].count("override") == 1


def test_what_was_set_is_listed_before_a_daemon_has_read_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_text("[rules.plateau]\nfire = 0.02\n")
    store = Store(a_home())
    store.home.append(RUN, frames(range(1, 41)))
    Daemon(store.home, heartbeat=project.parent / "beat", rules=RULES).tick()
    monkeypatch.setattr("otoscope.cli.rules.open_run", lambda name, url: (store, RUN))

    def listed(*asked: str) -> dict[str, object]:
        shown = CliRunner().invoke(command, ["--run", "x", *asked, "--json"])
        return json.loads(shown.output)["set"]

    told = {"plateau.fire": 0.03, "plateau.n": 8}
    assert listed("--set", "plateau.n=8", "--set", "plateau.fire=0.03") == told
    assert listed("--set", "plateau.k=6") == {**told, "plateau.k": 6}, "of the eight just set"
    store.home.add_event(RUN, Event("override", body={"key": "no.such", "value": 1}))
    unset = [word for key in ("k", "n", "fire") for word in ("--unset", f"plateau.{key}")]
    assert listed(*unset) == listed() == {"plateau.fire": 0.02}, "the project's own"


def test_of_several_numbers_all_are_set_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(a_home())
    monkeypatch.setattr("otoscope.cli.rules.open_run", lambda name, url: (store, RUN))
    run = CliRunner().invoke
    good, bad = ["--set", "plateau.fire=0.02"], ["--set", "dead_units.severity=nope"]
    assert run(command, ["--run", "x", *good, *bad]).exit_code == 2
    both = run(command, ["--run", "x", *good, "--unset", "plateau.fire"])
    assert (both.exit_code, "at once" in both.output) == (2, True)
    assert run(command, ["plateau", "--run", "x"]).exit_code == 2
    assert not [event for _, event in store.home.events(RUN) if event.kind == "override"]
    assert run(command, ["--run", "x", *good, "--set", "dead_units.severity=off"]).exit_code == 0
    assert [event.kind for _, event in store.home.events(RUN)].count("override") == 2


def test_a_folder_in_the_place_of_the_projects_file_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OTOSCOPE_CONFIG", raising=False)
    (tmp_path / "otoscope.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        project_numbers(folder=tmp_path)
    (tmp_path / "otoscope.toml").rmdir()
    (tmp_path / "otoscope.toml").symlink_to("otoscope.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        project_numbers(folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [("[rules.plateau]\nfire = 0.02\nk = 99\n", {"plateau.fire": 0.02}), ("[rules\n", {})],
    ids=["a number that cannot be", "no TOML"],
)
def test_a_training_records_the_numbers_of_its_project_and_never_breaks_on_them(
    project: Path, text: str, found: dict[str, float]
) -> None:
    project.write_text(text)
    model = nn.Linear(2, 1)
    recorder = attach(model, torch.optim.SGD(model.parameters(), 0.1), verdict=False)
    for _ in range(12):
        recorder.step(torch.tensor(1.0), 4)
    recorder.finish()
    assert recorder.steps == 12
    store = connect(recorder.directory)
    answer = judge(store, store.runs()[0].id)
    assert answer["thresholds"]["set"] == found
    assert ("plateau.k" in answer["thresholds"]["refused"]) is bool(found)
    events = {e.kind: e for _, e in store.home.events(store.runs()[0].id)}
    assert events["started"].body["settings"]["optimizers"][0]["lr"] == 0.1
