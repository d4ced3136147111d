"""What the commands print of a run and of the demonstration."""

import pytest
from otoscope.cli.demo import show
from otoscope.cli.demonstration import Outcome
from otoscope.cli.printing import print_run


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
