"""The fault bench: its cases are sound, its runs are kept, its figures are right on made-up rows."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.diagnostics.rules import RULES

from benchmarks.faults import efficacy, null_rates, runs
from benchmarks.faults.advice import FOLK, NoSettingError, applied
from benchmarks.faults.card import INFO_RULES, card, interval, row_of
from benchmarks.faults.case import UNPLANTED, Case, CaseError, load_cases, text_of
from benchmarks.faults.page import PAGE, RESULT, missed, page
from benchmarks.faults.quick import FLOORS, fallen, quick_tasks
from benchmarks.faults.training import Loop, train

CASES = load_cases()
BY_NAME = {case.name: case for case in CASES}
TINY = """
[tiny]
kind = "fault"
set = "tuning"
net = {name = "mlp", inputs = 13, outputs = 3, width = 8, depth = 1}
data = "wine"
batch = 32
steps = 12
validate_every = 6
optimizer = {name = "sgd", lr = 0.1}
expect = ["lr_too_high"]
twin = {optimizer = {name = "sgd", lr = 0.01}}
"""


def tiny(folder: Path, text: str = TINY) -> Case:
    (folder / "tiny.toml").write_text(text, encoding="utf-8")
    return load_cases(folder)[0]


# ---- cases ---------------------------------------------------------------------------------


def test_every_rule_that_can_fire_has_a_fault_and_a_look_alike() -> None:
    told = [rule.id for rule in RULES if rule.id not in UNPLANTED]
    for held in ("tuning", "held-out"):
        faults = [case for case in CASES if case.set == held and case.kind == "fault"]
        expected = {rule for case in faults for rule in case.expect}
        assert not [rule for rule in told if rule not in expected], held
        tempted = {rule for case in CASES if case.set == held for rule in case.tempts}
        assert not [rule for rule in told if rule not in tempted], held


def test_there_are_as_many_cases_as_the_bench_promises() -> None:
    count = {(c.set, c.kind): 0 for c in CASES}
    for case in CASES:
        count[case.set, case.kind] += 1
    for held in ("tuning", "held-out"):
        assert count[held, "healthy"] >= 12
        assert count[held, "look-alike"] >= 14
    assert count["held-out", "fault"] >= 36
    assert count["published", "fault"] >= 12
    well = count["held-out", "healthy"] + count["held-out", "look-alike"]
    assert 8 * well >= 312


def test_a_training_of_every_case_can_be_set_up() -> None:
    for case in (case for case in CASES if case.body["loop"] == "plain"):
        loop = Loop({**case.body, "steps": 1}, 0)
        x, y = next(loop.stream)
        assert math.isfinite(loop.on(loop.net, (x[:2], y[:2])).item()), case.name


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('colour = "red"', "colour"),
        ('expect = ["lr_to_high"]', "lr_to_high"),
        ('data = "whine"', "whine"),
        ('net = {name = "mlp", inputs = 13, outputs = 3, hight = 3}', "hight"),
        ('data = "gestures"', "held out"),
        ('set = "held-out"', "tuned on"),
        ("expect = []", "expect"),
        ("twin = {sets = 1}", "sets"),
    ],
)
def test_a_case_that_says_what_the_bench_does_not_know_is_refused(
    tmp_path: Path, line: str, word: str
) -> None:
    key = line.partition(" ")[0]
    kept = [row for row in TINY.splitlines() if row.partition(" ")[0] != key]
    with pytest.raises(CaseError, match=word):
        tiny(tmp_path, "\n".join([*kept, line]))


def test_the_same_training_has_the_same_text_whatever_is_said_about_it(tmp_path: Path) -> None:
    case = tiny(tmp_path)
    other = tiny(
        tmp_path,
        TINY.replace("[tiny]", "[other]").replace("steps = 12", "accumulate = 1\nsteps = 12"),
    )
    assert text_of(other.body) == text_of(case.body)
    assert case.healthy is not None
    assert text_of(case.healthy) != text_of(case.body)


@pytest.mark.parametrize(
    ("twin", "steps"),
    [
        ("{batch = 64}", 6),
        ("{batch = 16}", 12),
        ("{accumulate = 4}", 3),
        ("{batch = 64, steps = 9}", 9),
    ],
    ids=["larger", "smaller", "accumulated", "told"],
)
def test_a_healthy_twin_in_larger_batches_sees_no_more_samples(
    twin: str, steps: int, tmp_path: Path
) -> None:
    lines = [row for row in TINY.splitlines() if row.partition(" ")[0] not in ("twin", "batch")]
    case = tiny(tmp_path, "\n".join([*lines, "batch = 32", f"twin = {twin}"]))
    assert case.healthy is not None and case.healthy["steps"] == steps


# ---- runs ----------------------------------------------------------------------------------


def test_a_run_is_the_same_for_a_seed_and_otoscope_does_not_change_it(tmp_path: Path) -> None:
    body = tiny(tmp_path).body
    plain, again, other = train(body, 3), train(body, 3), train(body, 4)
    seen = train(body, 3, tmp_path / "seen", "tiny", budget=0.2)
    assert plain["last"] == again["last"] == seen["last"] != other["last"]
    assert plain["losses"] == seen["losses"]


def test_a_kept_run_is_not_trained_again_and_is_judged_anew_by_other_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = tiny(tmp_path)
    trained = []
    real = runs.train

    def counted(*arguments: Any, **how: Any) -> dict[str, Any]:
        trained.append(arguments)
        return real(*arguments, **how)

    monkeypatch.setattr(runs, "train", counted)
    first = runs.judged(case, 0, "defaults", tmp_path)
    assert runs.judged(case, 0, "defaults", tmp_path) == first
    assert len(trained) == 1
    code = runs.code

    def edited(folders: tuple[str, ...], reserved: bool = False) -> str:
        return code(folders, reserved) + ("edited" if folders == runs.JUDGES else "")

    monkeypatch.setattr(runs, "code", edited)
    judged = []
    watched = runs.watched
    monkeypatch.setattr(runs, "watched", lambda *of: judged.append(of) or watched(*of))
    assert runs.judged(case, 0, "defaults", tmp_path)["report"] == first["report"]
    assert (len(trained), len(judged)) == (1, 1)
    # what was recorded is known to efficacy, too
    runs.trained(case.body, 0, tmp_path)
    assert len(trained) == 1


def test_a_run_that_was_cut_off_is_made_anew(tmp_path: Path) -> None:
    case = tiny(tmp_path)
    folder = runs.recorded(case, 0, "defaults", tmp_path)
    (folder / "told.json").write_text('{"run": "tin', encoding="utf-8")
    runs.recorded(case, 0, "defaults", tmp_path)
    assert runs.judged(case, 0, "defaults", tmp_path)["ended"]["case"] == "tiny"


def test_two_nets_against_each_other_are_recorded_in_their_own_profile(tmp_path: Path) -> None:
    gan = BY_NAME["circles-gan"]
    case = replace(gan, body={**gan.body, "steps": 12})
    report = runs.judged(case, 0, "defaults", tmp_path)["report"]
    assert "profile gan" in report["not_judged"]["plateau"]


# ---- advice --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "proposed", "key", "value"),
    [
        ("lr", 0.5, "optimizer", {"name": "sgd", "lr": 0.5}),
        ("gradient_clip_val", 2.0, "clip", 2.0),
        ("warmup_steps", 7, "warmup", 7),
        ("shuffle", True, "order", "shuffled"),
        ("optimizer", {"name": "AdamW", "lr": 0.01}, "optimizer", {"name": "adamw", "lr": 0.01}),
        ("stop", {"best_step": 5, "path": None}, "stop", 5),
        ("class_weights", [1.0, 2.0, 3.0], "class_weights", [1.0, 2.0, 3.0]),
    ],
)
def test_a_recommendation_is_applied_unedited(
    tmp_path: Path, parameter: str, proposed: Any, key: str, value: Any
) -> None:
    body = tiny(tmp_path).body
    advised = applied(body, {"parameter": parameter, "proposed": proposed, "also": []})
    assert advised[key] == value
    assert train({**advised, "steps": 3}, 0)["run"] == ""


def test_another_batch_sees_as_many_samples(tmp_path: Path) -> None:
    body = tiny(tmp_path).body
    advised = applied(body, {"parameter": "batch_size", "proposed": 64})
    assert int(advised["batch"]) * int(advised["steps"]) == int(body["batch"]) * int(body["steps"])


def test_what_changes_the_net_reaches_the_net(tmp_path: Path) -> None:
    body = tiny(tmp_path).body
    advice = {
        "parameter": "weight_init",
        "proposed": {"0": {"kind": "kaiming_normal", "std": 0.0}},
        "also": [{"parameter": "activation", "proposed": {"1": "LeakyReLU"}}],
    }
    net = Loop(applied(body, advice), 0).net
    assert not net.get_parameter("0.weight").any()
    assert isinstance(net.get_submodule("1"), torch.nn.LeakyReLU)


def test_after_a_rollback_the_run_goes_on_with_the_new_setting(tmp_path: Path) -> None:
    body = tiny(tmp_path).body
    proposed = {"step": 4, "path": "x.ckpt", "then": {"lr": 0.0}}
    loop = Loop(applied(body, {"parameter": "rollback", "proposed": proposed}), 0)
    for step in range(1, 5):
        loop.step(step)
    before = loop.net.get_parameter("0.weight").clone()
    loop.step(5)
    assert torch.equal(before, loop.net.get_parameter("0.weight"))


def test_what_only_a_person_can_do_is_no_setting(tmp_path: Path) -> None:
    body = tiny(tmp_path).body
    with pytest.raises(NoSettingError, match="num_workers"):
        applied(body, {"parameter": "num_workers", "proposed": 4})
    with pytest.raises(NoSettingError, match="weight_init"):
        applied(body, {"parameter": "weight_init", "proposed": "he"})


def test_a_rate_that_was_set_already_is_held_where_a_schedule_had_decayed_it() -> None:
    body = BY_NAME["solids-decayed-each-step"].body
    own = body["optimizer"]["lr"]
    assert applied(body, {"parameter": "lr", "proposed": own})["schedule"] is None
    lower = applied(body, {"parameter": "lr", "proposed": own / 2})
    assert lower["schedule"] == body["schedule"]  # another rate is decayed as before


def test_the_rate_of_a_run_whose_rate_jumps_is_what_it_jumps_to(tmp_path: Path) -> None:
    case = BY_NAME["mlp-jump-20"]
    loop = Loop(applied({**case.body, "steps": 303}, {"parameter": "lr", "proposed": 0.15}), 0)
    assert loop.scheduler is not None
    shape = loop.scheduler.lr_lambdas[0]
    assert (shape(10), shape(301)) == (1.0, pytest.approx(1.5))


# ---- figures -------------------------------------------------------------------------------


def told(*findings: dict[str, Any], fired: dict[str, int] | None = None) -> dict[str, Any]:
    report = {"findings": list(findings), "judged": ["plateau"], "not_judged": {}}
    return {"report": report, "fired": fired or {}, "old": False}


def finding(rule: str, severity: str = "warning", **more: Any) -> dict[str, Any]:
    body = {"id": f"{rule}:run:1:5", "rule": rule, "severity": severity, "caused": []}
    return {**body, "state": "firing", "first_step": 5, "title": "", "recommendation": None, **more}


def test_a_fault_counts_as_found_and_named_first_by_its_root_cause() -> None:
    case = replace(BY_NAME["mlp-sgd-5"], onset=20)
    root = finding("dead_units", caused=["lr_too_high:run:1:5"])
    row = row_of(case, 0, "defaults", told(root, finding("lr_too_high"), fired={"lr_too_high": 50}))
    assert (row["found"], row["first"], row["delay"]) == (True, False, 30)
    row = row_of(
        case, 0, "defaults", told(finding("lr_too_high", "info"), fired={"lr_too_high": 9})
    )
    assert not row["found"]


def test_an_alarm_in_a_healthy_run_counts_even_where_it_went_away() -> None:
    case = BY_NAME["cosine-to-zero"]
    row = row_of(case, 0, "defaults", told(finding("dead_units", state="resolved")))
    assert [alarm["rule"] for alarm in row["alarms"]] == ["dead_units"]
    row = row_of(case, 0, "defaults", told(finding(case.tempts[0], "info")))
    assert (row["alarms"], row["tempted"]) == ([], [case.tempts[0]])


def test_the_interval_is_clopper_and_pearsons() -> None:
    assert interval(0, 312) == (0.0, pytest.approx(1 - 0.025 ** (1 / 312)))
    assert interval(10, 10) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    low, high = interval(3, 100)
    assert (low, high) == (pytest.approx(0.00623, abs=1e-5), pytest.approx(0.08518, abs=1e-5))


def well(alarms: int) -> dict[str, Any]:
    alarm = {"rule": "plateau", "severity": "warning", "first_step": 9, "title": ""}
    shared = {"kind": "healthy", "case": "a", "net": "mlp", "seed": 0, "infos": [], "tempted": []}
    return {**shared, "steps": 500, "judged": 4, "alarms": [alarm] * alarms}


def ill(found: bool, first: bool, delay: int | None, case: str = "b") -> dict[str, Any]:
    shared = {"kind": "fault", "case": case, "net": "mlp", "expect": ["plateau"], "rules": []}
    return {**shared, "found": found, "first": first, **({} if delay is None else {"delay": delay})}


def test_the_card_counts_runs_alarms_and_steps() -> None:
    counted = card(
        [well(0), well(2), ill(True, True, 10), ill(True, False, 30), ill(False, False, None)]
    )
    healthy, faults = counted["healthy"], counted["faults"]
    assert (healthy["runs_with_an_alarm"], healthy["alarms"], healthy["steps"]) == (1, 2, 1000)
    assert (healthy["runs_per_100"], healthy["alarms_per_1000_steps"]) == (50.0, 2.0)
    assert faults["recall"] == pytest.approx(2 / 3)
    assert faults["right_cause_first"] == pytest.approx(1 / 3)
    assert faults["delay_median"] == 20


def ends(nothing: float, healthy: float, advised: float | None, folk: float) -> dict[str, Any]:
    why = "" if advised is not None else "nothing was recommended"
    shared = {"case": "a", "parameter": "lr", "why_not": why, "folk": dict.fromkeys(FOLK, folk)}
    return {**shared, "nothing": nothing, "healthy": healthy, "advised": advised}


def test_efficacy_is_the_share_of_the_gap_that_is_closed() -> None:
    rows = [ends(2.0 + 0.01 * seed, 1.0, 1.1, 2.5) for seed in range(5)]
    case = efficacy.summary(rows)
    assert case["clear"]
    assert case["closed"] == pytest.approx(0.92 / 1.02)
    assert case["mended"]
    assert not any(case["folk_mended"].values())
    figures = efficacy.figures([case])
    assert (figures["mended"], figures["no_folk_remedy_mends"], figures["worse"]) == (1.0, 1, 0)


def test_without_a_recommendation_nothing_is_closed_and_a_small_gap_is_left_out() -> None:
    idle = efficacy.summary([ends(2.0, 1.0, None, 1.0), ends(2.1, 1.0, None, 1.0)])
    assert (idle["closed"], idle["mended"], idle["worse"]) == (0.0, False, False)
    vague = efficacy.summary([ends(2.0, 1.0, 1.0, 1.0), ends(1.0, 1.9, 1.0, 1.0)])
    assert not vague["clear"]
    assert efficacy.figures([vague])["left_out"] == ["a"]


def test_advice_that_makes_a_run_worse_than_doing_nothing_is_told() -> None:
    case = efficacy.summary([ends(2.0 + 0.01 * seed, 1.0, 2.3, 1.0) for seed in range(5)])
    assert case["worse"]
    assert efficacy.figures([case])["worse"] == 1


def test_null_rates_count_what_went_away_by_itself() -> None:
    fired = [{"plateau": "resolved"}, {"plateau": "firing", "dead_units": "firing"}]
    rows = [{"kind": "fault", "fired": some} for some in fired]
    counted = null_rates.rates([*rows, {"kind": "healthy"}])
    assert counted == {"dead_units": (1, 0), "plateau": (2, 1)}
    assert "[plateau]\nruns = 2\ngone = 1\n" in null_rates.text(counted)


def test_the_page_says_where_a_target_is_missed_with_the_cases() -> None:
    rows = [ill(False, False, None, "mixer-jump"), well(1)]
    result = {"cards": {"held-out, defaults": card(rows)}, "seeds": {"fault": 5}}
    lines = missed(result["cards"])
    assert any("mixer-jump" in line for line in lines)
    assert any(f"plateau (1: {well(1)['case']})" in line for line in lines)
    assert all(line in page(result) for line in lines)
    fine = {"cards": {"held-out, defaults": card([ill(True, True, 9), well(0)])}}
    assert "No target is missed" in page(fine)


def test_the_quick_part_falls_under_its_floors() -> None:
    good = {"tuning, defaults": card([ill(True, True, 9), well(0)])}
    assert not fallen(good)
    alarmed = [well(1) for _ in range(int(FLOORS["runs_with_an_alarm"]) + 1)]
    bad = {"tuning, defaults": card([ill(False, False, None), *alarmed])}
    assert len(fallen(bad)) == 3


def test_the_quick_part_has_a_fault_for_every_rule_that_the_tuning_cases_plant() -> None:
    tasks = quick_tasks(CASES)
    assert {task.case.set for task in tasks} == {"tuning"}
    planted = {task.case.expect[0] for task in tasks if task.case.kind == "fault"}
    assert {"lr_too_high", "dead_units", "vanishing_gradients"} <= planted
    assert any(task.case.kind == "look-alike" for task in tasks)


def test_rules_that_speak_as_an_info_are_rules() -> None:
    known = {rule.id for rule in RULES}
    assert len(INFO_RULES & known) >= 1


def test_the_page_holds_the_figures_of_the_result() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(result)
