"""What the commands print of a run and of the demonstration."""

import io
from dataclasses import replace

import pytest
from otoscope.cli.demo import show
from otoscope.cli.demonstration import Outcome
from otoscope.cli.diagnose import exit_code
from otoscope.cli.printing import print_run
from otoscope.cli.rule_list import grouped, print_rules
from otoscope.diagnostics import catalogue
from otoscope.diagnostics.groups import GROUPS
from rich.console import Console


def finding(name: str, title: str, *, caused: tuple[str, ...] = ()) -> dict:
    return {
        "id": name,
        "rule": name,
        "title": title,
        "severity": "warning",
        "state": "firing",
        "first_step": 7,
        "caused": list(caused),
    }


def test_what_a_finding_caused_is_named_with_it_and_not_advised_on_its_own(capsys):
    stuck = finding("plateau:run:1:9", "Stuck: the loss stands still")
    root = finding("lr_too_high:run:1:7", "The rate is too high", caused=(stuck["id"],))

    print_run({"run": "a", "state": "needs_action", "findings": [root, stuck]})

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "▲ warning" in line] == ["▲ warning  The rate is too high"]
    assert any(line.split() == ["Caused", *stuck["title"].split()] for line in lines)
    assert "plateau:run:1:9" not in "".join(lines)


def test_steps_that_could_not_be_judged_are_named(capsys):
    gaps = [{"attempt": 1, "from": 1, "to": 31_808}, {"attempt": 2, "from": 40_000, "to": 40_100}]

    print_run({"run": "a", "state": "healthy", "missed": gaps})

    text = " ".join(capsys.readouterr().out.split())
    assert "Not judged: steps 1 to 31,808 (attempt 1): their samples were lost, or" in text
    assert "Not judged: steps 40,000 to 40,100 (attempt 2)" in text


@pytest.mark.parametrize(
    ("served", "told"),
    [(True, "See http://127.0.0.1:8050"), (False, "`otoscope up` shows them")],
)
def test_the_demo_names_a_page_only_while_it_is_served(capsys, served, told):
    outcome = Outcome("lr_too_high", 0, "http://127.0.0.1:8050", found=True, rule="lr_too_high")
    outcome.recommendation = {
        "parameter": "lr",
        "current": 3.0,
        "proposed": 0.05,
        "basis": "derived",
        "also": [],
    }
    outcome.before, outcome.after, outcome.healthy, outcome.gap_closed = 2.3, 0.1, 0.1, 1.0

    show(outcome, as_json=False, served=served)

    printed = capsys.readouterr().out
    assert told in printed
    assert ("http" in printed) is served


def test_the_obstacles_are_a_line_each_where_measured_and_say_why_where_not(capsys):
    measured = {"measured": True, "sentence": "12 % of a step is noise", "trend": "rising"}
    run = {
        "run": "a-1",
        "verdict": "Healthy so far.",
        "obstacles": {
            "conditioning": {
                "measured": False,
                "sentence": "sampled once, without a result so far",
            },
            "noise": {**measured, "levers": ["a larger batch"]},
        },
    }
    print_run(run)
    printed = capsys.readouterr().out
    assert "Noise: 12 % of a step is noise (rising); lowered by a larger batch\n" in printed
    assert "Conditioning: sampled once, without a result so far\n" in printed


def test_of_many_findings_the_open_ones_come_whole_and_the_others_in_a_line_each(capsys):
    findings = [finding(f"plateau:run:1:{i}", f"Stuck at {i}") for i in range(40)]
    for i, item in enumerate(findings):
        item["last_step"], item["acknowledged"] = 90, i == 2
        item["state"] = "firing" if i < 9 else "resolved"
        item["outcome"], item["because"] = ("helped" if i == 9 else None), [{"text": "flat"}]

    print_run({"run": "a", "state": "needs_action", "findings": findings})

    printed = capsys.readouterr().out
    assert printed.count("Seen ") == 5
    assert "▲ warning  Stuck at 2  (put aside, steps 7–90)" in printed
    assert "▲ warning  Stuck at 9  (resolved, steps 7–90, helped)" in printed
    assert "… and 15 further findings" in printed


def test_checks_that_were_not_judged_for_one_reason_are_told_together(capsys):
    print_run(
        {"run": "a", "not_judged": {"b": "no sample yet", "c": "one rank", "a": "no sample yet"}}
    )

    printed = capsys.readouterr().out
    assert "Not judged: a, b: no sample yet\nNot judged: c: one rank\n" in printed


def test_rules_are_read_in_groups_at_80_columns_and_none_is_left_out():
    rows = catalogue()
    paper = io.StringIO()
    print_rules(rows, Console(width=80, file=paper, highlight=False))
    lines = paper.getvalue().splitlines()

    assert max(map(len, lines)) <= 80
    assert [line for line in lines if line in GROUPS] == list(GROUPS)
    told = [line.split()[2] for line in lines if line[:1] in "✖▲●" and line]
    assert sorted(told) == sorted(row.id for row in rows)
    assert {rule for rules in GROUPS.values() for rule in rules} == {row.id for row in rows}


def test_a_rule_of_the_readers_own_has_a_group_of_its_own():
    own = replace(catalogue()[0], id="my_rule")
    assert [row.id for row in grouped([*catalogue(), own])["Your own"]] == ["my_rule"]


def test_what_a_person_has_put_aside_neither_fails_a_pipeline_nor_is_printed_whole(capsys):
    open_ = finding("plateau:run:1:9", "Stuck")
    snoozed = {**open_, "snoozed_until_step": 900, "because": [{"text": "it stands still"}]}
    for step, code, whole in ((400, 0, False), (900, 3, True)):
        answer = {"run": "a", "step": step, "judged": ["plateau"]}
        for told in (snoozed, {**snoozed, "acknowledged": True}):
            aside = told.get("acknowledged", False)
            run = {**answer, "findings": [{**open_, "id": "b", "state": "resolved"}, told]}
            assert exit_code(run, "warning") == (0 if aside else code)
            print_run(run)
            assert ("it stands still" in capsys.readouterr().out) is (whole and not aside)


def test_an_effect_whose_cause_is_over_says_what_left_it_behind(capsys):
    stuck = finding("plateau:run:1:9", "Stuck: the loss stands still")
    root = finding("lr_too_high:run:1:7", "The rate is too high", caused=(stuck["id"],))
    over = {**root, "state": "resolved", "last_step": 410}

    print_run({"run": "a", "state": "needs_action", "findings": [over, stuck]})

    text = capsys.readouterr().out
    assert "The rate is too high (over since step 410)" in text
    assert text.index("Stuck") < text.index("The rate is too high  (resolved")


def test_a_finding_says_how_its_value_came_about_and_what_to_paste(capsys):
    stuck = finding("plateau:run:1:9", "Stuck")
    advice = {"parameter": "lr", "current": 0.1, "proposed": 0.03, "formula": "0.1 × 0.3"}
    line = "lr = 0.03  # in place of 0.1; " + "in each other group by the same factor; " * 7
    for snippet, is_printed in ((f"if step:\n    {line}", True), ("x = 1\n" * 60, False)):
        stuck["recommendation"] = {**advice, "snippet": snippet}
        print_run({"run": "a", "state": "needs_action", "findings": [stuck]})
        out = capsys.readouterr().out
        assert "How 0.1 × 0.3" in " ".join(out.split())
        # as it is to be pasted: no line is broken or moved, and none is left out
        assert (f"\n{snippet}\n" in out) == is_printed
        assert ("60 lines: --json" in out) != is_printed
