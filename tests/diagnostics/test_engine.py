"""The engine: when rules fire, clear, wait for a root cause and keep quiet."""

from __future__ import annotations

from dataclasses import replace

from otoscope.diagnostics.engine import Engine
from otoscope.diagnostics.inhibition import CAUSES, HOLD
from otoscope.diagnostics.rule import Case, Later, Verdict, breach, fine, unknown
from otoscope.diagnostics.thresholds import Thresholds, load
from otoscope.diagnostics.verdict import shown
from otoscope.store import Evidence, Recommendation

TWO_OF_THREE = replace(load("lr_too_high"), k=2, n=3, clear=0.8)


def case(basis: str = "rule of thumb", **changes: object) -> Case:
    first = Case(
        title="something is wrong",
        why="because",
        because=(Evidence("seen"),),
        recommendation=Recommendation("lr", 1.0, 0.1, basis=basis),
        may_be_normal="",
    )
    return replace(first, **changes)  # type: ignore[arg-type]


def feed(
    engine: Engine,
    rule: str,
    verdicts: list[Verdict],
    numbers: Thresholds = TWO_OF_THREE,
    at: int = 0,
) -> None:
    for i, verdict in enumerate(verdicts):
        engine.advance(rule, verdict, numbers, 1, at + 10 * (i + 1))


def test_one_breach_is_pending_and_k_of_n_fire_at_the_onset() -> None:
    engine = Engine("run-1")
    feed(engine, "plateau", [fine(), breach(2, case())])
    assert engine.entry("plateau").state == "pending"
    feed(engine, "plateau", [fine(), breach(2, case())], at=20)
    assert engine.entry("plateau").state == "firing"
    assert engine.findings[0].id == "plateau:run:1:20"


def test_a_finding_clears_only_below_its_own_threshold_and_after_n_calm_evaluations() -> None:
    engine = Engine("run-1")
    feed(engine, "plateau", [breach(2, case())] * 2)
    feed(engine, "plateau", [fine(0.9)] * 5, at=20)
    assert engine.entry("plateau").state == "firing"
    feed(engine, "plateau", [fine(0.1)] * 2, at=70)
    assert engine.entry("plateau").state == "clearing"
    feed(engine, "plateau", [fine(0.1)], at=90)
    assert engine.entry("plateau").state == "fine"
    assert engine.findings[0].state == "resolved"


def test_missing_data_keeps_a_finding_and_makes_it_stale() -> None:
    engine = Engine("run-1")
    feed(engine, "plateau", [breach(2, case())] * 2 + [unknown("no samples")])
    assert engine.findings[0].state == "firing"
    assert engine.findings[0].stale
    feed(engine, "plateau", [breach(2, case())], at=30)
    assert not engine.findings[0].stale


def test_missing_data_makes_a_pending_rule_unknown() -> None:
    engine = Engine("run-1")
    feed(engine, "plateau", [breach(2, case()), unknown("no samples")])
    assert engine.entry("plateau").state == "unknown"
    feed(engine, "plateau", [breach(2, case())], at=20)
    assert engine.entry("plateau").state == "pending"


def test_an_effect_waits_while_its_root_cause_is_pending_and_hangs_under_it() -> None:
    engine = Engine("run-1")
    feed(engine, "dead_units", [breach(2, case())])
    feed(engine, "plateau", [breach(2, case())] * 3)
    assert engine.entry("plateau").state == "pending"
    feed(engine, "dead_units", [breach(2, case())], at=30)
    feed(engine, "plateau", [breach(2, case())], at=30)
    root, effect = engine.ordered()
    assert (root.rule, root.caused) == ("dead_units", [effect.id])


def test_an_effect_waits_no_longer_than_it_must_for_a_root_cause_that_wants_samples() -> None:
    engine = Engine("run-1")
    feed(engine, "dead_units", [breach(2, case())])
    feed(engine, "plateau", [breach(2, case())] * 3)
    feed(engine, "plateau", [breach(2, case())], at=10 + HOLD)
    assert engine.entry("plateau").state == "firing"


def test_a_breach_that_is_certain_waits_for_no_other() -> None:
    engine = Engine("run-1")
    feed(engine, "dead_units", [breach(2, case(), certain=True)], load("dead_units"))
    assert engine.entry("dead_units").state == "firing"


def test_a_root_cause_that_fires_late_gathers_what_it_caused() -> None:
    engine = Engine("run-1")
    feed(engine, "exploding_gradients", [breach(2, case())] * 2)
    feed(engine, "lr_too_high", [breach(2, case())] * 2, at=50)
    assert [item.rule for item in engine.ordered()] == ["lr_too_high", "exploding_gradients"]
    assert engine.ordered()[0].caused == ["exploding_gradients:run:1:10"]


def test_numbers_that_break_off_name_the_cause_that_was_pending() -> None:
    engine = Engine("run-1")
    feed(engine, "lr_too_high", [breach(2, case(title="the rate"))])
    feed(engine, "non_finite", [breach(2, case(title="nan"))], load("non_finite"), at=10)
    root = engine.ordered()[0]
    assert (root.rule, root.severity) == ("lr_too_high", "critical")
    assert root.caused == ["non_finite:run:1:20"]


def test_numbers_that_break_off_alone_stand_alone_and_hide_what_comes_after() -> None:
    engine = Engine("run-1")
    feed(engine, "non_finite", [breach(2, case())], load("non_finite"))
    feed(engine, "dead_units", [breach(2, case())] * 2, at=20)
    assert engine.ordered()[0].rule == "non_finite"
    assert engine.ordered()[0].caused == ["dead_units:run:1:30"]


def test_advice_is_replaced_only_by_advice_of_a_better_basis() -> None:
    engine = Engine("run-1")
    worse = replace(case(), recommendation=Recommendation("lr", 1.0, 0.9))
    better = replace(
        case("derived"), recommendation=Recommendation("lr", 1.0, 0.2, basis="derived")
    )
    feed(engine, "plateau", [breach(2, case())] * 2 + [breach(2, worse)])
    advice = engine.findings[0].recommendation
    assert advice is not None
    assert advice.proposed == 0.1
    feed(engine, "plateau", [breach(2, better)], at=40)
    advice = engine.findings[0].recommendation
    assert advice is not None
    assert advice.proposed == 0.2


def test_a_setting_that_was_changed_keeps_the_rules_quiet_for_a_while() -> None:
    engine = Engine("run-1")
    engine.quieten({"plateau": TWO_OF_THREE}, step=0)
    feed(engine, "plateau", [breach(2, case())] * 5)
    assert engine.findings == []
    feed(engine, "plateau", [breach(2, case())], at=TWO_OF_THREE.cool_down)
    assert len(engine.findings) == 1


def test_a_state_survives_its_json() -> None:
    engine = Engine("run-1")
    feed(engine, "plateau", [breach(2, case())])
    again = Engine.restore("run-1", engine.to_json(), engine.findings)
    feed(again, "plateau", [breach(2, case())], at=10)
    assert again.findings[0].title == "something is wrong"


def test_a_finding_is_about_what_its_case_names() -> None:
    engine = Engine("run-1")
    feed(engine, "plateau", [breach(2, case(scope="rank:3"))] * 2)
    assert (engine.findings[0].id, engine.findings[0].scope) == ("plateau:rank:3:1:10", "rank:3")
    feed(engine, "plateau", [breach(2, case(scope="rank:5"))] * 5, at=20)
    assert {item.scope: item.state for item in engine.findings} == {
        "rank:3": "resolved",
        "rank:5": "firing",
    }


def test_what_is_mere_information_hides_no_warning() -> None:
    engine = Engine("run-1")
    told = breach(2, case(severity="info"))
    feed(engine, "dead_units", [told] * 3)
    feed(engine, "plateau", [breach(2, case())] * 3)
    assert [item.caused for item in engine.ordered()] == [[], []]


def test_a_root_cause_is_as_severe_as_what_it_did() -> None:
    engine = Engine("run-1")
    feed(engine, "lr_too_high", [breach(2, case())] * 3)
    feed(engine, "exploding_gradients", [breach(2, case(severity="critical"))] * 3, at=30)
    root = engine.ordered()[0]
    assert (root.rule, root.severity) == ("lr_too_high", "critical")


def test_what_hangs_under_an_effect_hangs_under_its_root_cause_too() -> None:
    engine = Engine("run-1")
    feed(engine, "lr_too_high", [breach(2, case())] * 3)
    feed(engine, "frozen_layer", [breach(2, case())] * 3)
    feed(engine, "dead_units", [breach(2, case())] * 3, at=30)
    root = engine.ordered()[0]
    assert root.rule == "lr_too_high"
    assert {name.partition(":")[0] for name in root.caused} == {"dead_units", "frozen_layer"}


def test_no_rule_is_its_own_cause_by_any_way_round() -> None:
    def reached(rule: str) -> set[str]:
        below = set(CAUSES.get(rule, ()))
        return below.union(*(reached(effect) for effect in below))

    order = list(CAUSES)
    assert all(rule not in reached(rule) for rule in order)
    for rule, effects in CAUSES.items():
        for effect in set(effects) & set(order):
            assert order.index(effect) > order.index(rule), f"{effect} stands before {rule}"


def test_what_an_ended_cause_left_behind_hangs_under_the_deepest_of_it_that_fires() -> None:
    engine = Engine("run-1")
    for rule in ("lr_too_high", "plateau", "vanishing_gradients", "dead_units"):
        feed(engine, rule, [breach(2, case())] * 2)
    root = engine.ordered()[0]
    assert (root.rule, len(root.caused)) == ("lr_too_high", 3)
    feed(engine, "lr_too_high", [fine(0.1)] * 3, at=20)
    assert root.state == "resolved"
    asking = shown(engine.findings, 50)
    assert [item.rule for item in asking] == ["dead_units"]
    assert {name.partition(":")[0] for name in asking[0].caused} == {
        "plateau",
        "vanishing_gradients",
    }
    assert engine.ordered()[0] is root, "a reader still learns the cause first"
    feed(engine, "saturated_activations", [breach(2, case())] * 2, at=60)
    assert [item.rule for item in shown(engine.findings, 80)] == ["dead_units"]


def test_a_case_that_was_put_off_is_made_while_it_is_pending_and_not_for_what_stands() -> None:
    made: list[int] = []

    def make() -> Case:
        made.append(1)
        return case()

    engine, eager = Engine("run-1"), Engine("run-1")
    feed(engine, "plateau", [breach(2, Later(make, "rule of thumb"))] * 5)
    feed(eager, "plateau", [breach(2, case())] * 5)
    assert len(made) == 2
    assert engine.to_json() == eager.to_json()
    assert [f.to_json() for f in engine.findings] == [f.to_json() for f in eager.findings]
    better = breach(2, Later(lambda: case("derived"), "derived"))
    feed(engine, "plateau", [better], at=50)
    assert engine.findings[0].recommendation == case("derived").recommendation


def test_a_case_that_was_put_off_tells_its_severity_and_onset_all_the_same() -> None:
    worse = case(severity="critical", onset=7)
    engine, eager = Engine("run-1"), Engine("run-1")
    put_off = Later(lambda: worse, "rule of thumb", "critical", 7)
    for of, verdict in ((engine, breach(2, put_off)), (eager, breach(2, worse))):
        feed(of, "plateau", [breach(2, case())] * 2)
        feed(of, "plateau", [fine(0.9)] * 3, at=20)
        feed(of, "plateau", [verdict], at=50)
    assert engine.findings[0].severity == "critical"
    assert engine.entry("plateau").onset == 7
    assert not engine.wants("plateau", put_off)
    assert engine.to_json() == eager.to_json()
    assert [f.to_json() for f in engine.findings] == [f.to_json() for f in eager.findings]
