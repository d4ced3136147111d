"""The verdict: state, cause and one action, in the words that a person reads."""

from __future__ import annotations

from otoscope.diagnostics import judge, verdict_lines
from otoscope.diagnostics.verdict import action, sentence
from otoscope.store import Event, Finding, MemoryHome, Recommendation, Store

from .lab import RUN, Lab


def finding(**changes: object) -> Finding:
    body = {
        "id": "lr_too_high:run:1:10",
        "run": RUN,
        "attempt": 1,
        "rule": "lr_too_high",
        "severity": "critical",
        "state": "firing",
        "scope": "run",
        "first_step": 10,
        "last_step": 40,
        "title": "The learning rate is about 3 times too high",
        "recommendation": Recommendation("lr", 0.1, 0.034, range=[0.031, 0.037], basis="derived"),
    }
    return Finding(**{**body, **changes})  # type: ignore[arg-type]


def test_the_verdict_names_state_cause_and_one_action() -> None:
    said = sentence([finding()], ["lr_too_high"], {}, 40)
    assert said == (
        "Needs action: the learning rate is about 3 times too high; set 0.034 (0.031–0.037)."
    )


def test_a_healthy_run_says_what_was_not_judged_and_why() -> None:
    said = sentence([], ["lr_too_high", "non_finite"], {"plateau": "judged from step 210 on"}, 4200)
    assert said == (
        "Healthy so far (step 4,200): 2 checks passed, 1 not yet measurable "
        "(plateau: judged from step 210 on)."
    )


def test_a_run_of_which_nothing_is_known_is_not_called_healthy() -> None:
    assert (
        sentence([], [], {"plateau": "no sample yet"}, 0)
        == "Not judged yet (step 0): no sample yet."
    )


def test_what_was_acknowledged_or_snoozed_or_caused_asks_for_no_action() -> None:
    root = finding(caused=["plateau:run:1:20"], acknowledged=True)
    effect = finding(id="plateau:run:1:20", rule="plateau")
    said = sentence([root, effect], ["plateau", root.rule], {}, 40)
    assert said.startswith("Nothing new (step 40): 1 check passed. Put aside: ")
    assert root.title[1:] in said
    assert sentence([finding(snoozed_until_step=100)], ["plateau"], {}, 40).startswith(
        "Nothing new"
    )
    assert sentence([finding(snoozed_until_step=100)], ["plateau"], {}, 101).startswith(
        "Needs action"
    )


def test_a_rollback_says_where_to_and_with_what() -> None:
    proposed = {"step": 200, "path": "a.ckpt", "then": {"lr": 0.05}}
    advice = Recommendation("rollback", None, proposed)
    assert action(finding(recommendation=advice)) == "go back to step 200 with lr 0.05"


def test_the_three_lines_say_verdict_coverage_with_cost_and_where_to_look(healthy: Lab) -> None:
    judged = judge(healthy.train(), RUN) if not healthy.frames else _judged(healthy)
    lines = verdict_lines(judged, where="otoscope report x", overhead={"share": 0.014})
    assert len(lines) == 3
    assert lines[0].startswith("Healthy (step 300)")
    assert "learning rate" in lines[1]
    assert lines[1].endswith("Otoscope cost 1.4 % of the time.")
    assert lines[2] == "More: otoscope report x"


def test_judging_until_a_step_knows_nothing_of_what_came_after(faulty: Lab) -> None:
    early = judge(_store(faulty), RUN, until=9)
    assert early["state"] == "not_judged"
    assert early["findings"] == []
    later = judge(_store(faulty), RUN, until=100)
    assert all(item["last_step"] <= 100 for item in later["findings"])


def _store(lab: Lab) -> Store:
    home = MemoryHome()
    home.write_meta(RUN, lab.told())
    for schema in lab.schemas.values():
        home.add_schema(RUN, schema)
    home.append(RUN, lab.frames, [Event("started", body={"world_size": 1}, id="s"), *lab.events])
    return Store(home)


def _judged(lab: Lab) -> dict[str, object]:
    return judge(_store(lab), RUN)


def test_what_a_cause_has_left_behind_asks_for_action_once_the_cause_is_over() -> None:
    effect = finding(id="loss_spike:run:1:20", rule="loss_spike", title="The loss has diverged")
    root = finding(caused=[effect.id], state="resolved")
    said = sentence([root, effect], ["loss_spike", root.rule], {}, 400)
    assert said.startswith("Needs action: the loss has diverged")
    root.closed = True  # a person knows of it
    assert sentence([root, effect], [root.rule], {}, 400).startswith("Healthy so far")
    root.closed, effect.state = False, "resolved"
    assert sentence([root, effect], [root.rule], {}, 400).startswith("Healthy so far")


def test_a_change_that_is_being_followed_is_not_asked_for_again() -> None:
    changed = {"parameter": "lr", "from": 0.1, "to": 0.034, "step": 1352, "attempt": 1}
    followed = finding(followed=changed)
    assert sentence([followed], ["lr_too_high"], {}, 1400) == (
        "Needs action: the learning rate is about 3 times too high; "
        "lr went from 0.1 to 0.034 at step 1,352: wait for what becomes of it."
    )
    other = finding(id="dead:1", rule="dead_units", severity="warning", title="Dead units")
    assert "dead units; set" in sentence([followed, other], ["lr_too_high"], {}, 1400)
    followed.outcome = "no effect"
    assert "set 0.034" in sentence([followed], ["lr_too_high"], {}, 1400)
