"""Outcomes: what became of a finding after the setting was changed that it had asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from otoscope.diagnostics import Context, Verdict, Window, breach, fine, null_rates, outcome_words
from otoscope.diagnostics.advice import current_rate
from otoscope.diagnostics.rule import Case, Later, Rule
from otoscope.store import Event, Evidence, Recommendation

from .scripted import NUMBERS, frames, judged, rule

DONE = 400


def changed(step: int = 100, to: float = 0.03, parameter: str = "lr") -> Event:
    return Event("action", step=step, body={"parameter": parameter, "from": 0.1, "to": to}, id="a")


def after(loss: float, at: int = 100):  # type: ignore[no-untyped-def]
    return lambda step: 2.0 if step <= at else loss


def test_a_finding_that_goes_away_after_its_advice_was_taken_is_marked_helped() -> None:
    fold = judged([rule()], frames(range(1, DONE + 1), after(0.5)), [changed()])
    (finding,) = fold.findings()
    assert (finding.state, finding.outcome) == ("resolved", "helped")
    assert finding.followed == {
        "parameter": "lr", "from": 0.1, "to": 0.03, "step": 100, "attempt": 1,
    }  # fmt: skip


def test_a_finding_that_goes_away_by_itself_has_no_outcome() -> None:
    (finding,) = judged([rule()], frames(range(1, DONE + 1), after(0.5))).findings()
    assert (finding.state, finding.outcome, finding.followed) == ("resolved", None, None)


@pytest.mark.parametrize(("loss", "outcome"), [(2.0, "no effect"), (4.0, "worse")])
def test_a_finding_that_stands_for_two_windows_had_no_help(loss: float, outcome: str) -> None:
    early = judged([rule()], frames(range(1, 301), after(loss)), [changed()])
    assert early.findings()[0].outcome is None
    late = judged([rule()], frames(range(1, DONE + 1), after(loss)), [changed()])
    assert (late.findings()[0].state, late.findings()[0].outcome) == ("firing", outcome)


def test_a_critical_finding_that_comes_with_the_change_is_worse() -> None:
    rules = [rule(), rule("dead_units", 5.0, severity="critical")]

    def loss(step: int) -> float:
        return 2.0 if step <= 100 else 0.5 if step <= 200 else 9.0

    fold = judged(rules, frames(range(1, DONE + 1), loss), [changed()])
    first = next(item for item in fold.findings() if item.first_step < 100)
    assert first.outcome == "worse"


@pytest.mark.parametrize(
    "event",
    [changed(to=0.3), changed(parameter="dropout"), changed(step=5)],
    ids=["the other way", "another setting", "before the finding"],
)
def test_a_change_that_was_not_asked_for_is_not_followed(event: Event) -> None:
    (finding,) = judged([rule()], frames(range(1, DONE + 1), after(0.5)), [event]).findings()
    assert (finding.outcome, finding.followed) == (None, None)


def test_a_rate_that_its_user_lowers_at_once_is_followed_and_one_that_decays_is_not() -> None:
    def event(to: float) -> Event:
        return Event("lr", step=100, body={"from": 0.1, "to": to, "phase": "decay"}, id="lr")

    log = frames(range(1, DONE + 1), after(0.5))
    assert judged([rule()], log, [event(0.03)]).findings()[0].outcome == "helped"
    assert judged([rule()], log, [event(0.0999)]).findings()[0].outcome is None


def test_a_larger_batch_is_seen_in_the_steps_themselves() -> None:
    advice = Recommendation("batch_size", current=64, proposed=256)
    log = frames(range(1, DONE + 1), after(0.5), samples=lambda step: 64 if step <= 100 else 128)
    fold = judged([rule(advice=advice)], log, batch_size=64)
    (finding,) = fold.findings()
    assert finding.outcome == "helped"
    assert fold.place.why_since == "the batch size changed from 64 to 128"


def started(attempt: int, lr: float, step: int = 0) -> Event:
    settings = {"optimizers": [{"name": "SGD", "lr": lr}]}
    body = {"world_size": 1, "start_step": step, "settings": settings}
    return Event("started", step=step, attempt=attempt, body=body, id=f"started-{attempt}")


@pytest.mark.parametrize(
    ("lr", "loss", "outcome"), [(0.03, 0.5, "helped"), (0.03, 2.0, "no effect"), (0.1, 0.5, None)]
)
def test_an_attempt_that_resumes_with_the_advice_is_its_outcome(
    lr: float, loss: float, outcome: str | None
) -> None:
    log = [
        *frames(range(1, 201), lambda step: 2.0 if step > 100 else 0.5),
        *frames(range(81, 600), lambda step: loss, attempt=2, lr=lambda step: lr),
    ]
    fold = judged([rule()], log, [started(1, 0.1), started(2, lr, 80)])
    first = next(item for item in fold.findings() if item.attempt == 1)
    assert (first.state, first.outcome) == ("resolved", outcome)


def test_a_rollback_counts_as_the_action_where_one_was_advised() -> None:
    then = {"step": 80, "path": "80.ckpt", "then": {"weight_decay": 0.1}}
    advice = Recommendation("rollback", proposed=then)
    log = [
        *frames(range(1, 201), lambda step: 2.0 if step > 100 else 0.5),
        *frames(range(81, 600), lambda step: 0.5, attempt=2),
    ]
    (finding,) = judged([rule(advice=advice)], log).findings()
    assert finding.outcome == "helped"
    assert finding.followed
    assert (finding.followed["parameter"], finding.followed["to"]) == ("rollback", 80)


def test_an_outcome_is_said_with_how_often_that_happens_untouched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(null_rates, "_file", lambda: {"plateau": {"runs": 40, "gone": 10}})
    fold = judged([rule()], frames(range(1, DONE + 1), after(0.5)), [changed()])
    words = outcome_words(fold.findings()[0].to_json())
    assert words.startswith("helped: lr 0.1 → 0.03 at step 100; in 10 of 40 untouched runs (25 %)")


def test_the_counts_of_the_bench_can_be_read() -> None:
    from otoscope.diagnostics.thresholds import numbers

    folder = Path(null_rates.__file__).parent
    assert (folder / "null_rates.toml").is_file()
    assert set(null_rates._file()) <= set(numbers())


def test_what_is_followed_survives_a_restart() -> None:
    log, rules = frames(range(1, DONE + 1), after(0.5)), [rule()]
    whole = judged(rules, log, [changed()])
    half = judged(rules, log[:150], [changed()])
    from .scripted import RUN, TRAIN, Fold, Meta, said

    again = Fold(RUN, Meta(), {TRAIN.hash: TRAIN}, rules=rules)
    again.restore(half.state(), half.findings())
    again.rebuild(log[:150])
    again.push(log[150:])
    again.judge()
    assert said(again.findings()) == said(whole.findings())
    assert again.state() == whole.state()


def test_a_clip_value_that_was_changed_is_the_one_that_rules_see() -> None:
    seen: list[float | None] = []

    def look(window: Window, context: Context) -> Verdict:
        seen.append(context.meta.gradient_clip_val)
        return fine()

    looks = Rule("plateau", "train", look, numbers=NUMBERS)
    body = {"parameter": "gradient_clip_val", "from": 0.1, "to": 2.5}
    odd = {"parameter": "gradient_clip_val", "to": "wide"}
    events = [Event("action", 40, body=body, id="a"), Event("action", 70, body=odd, id="odd")]
    judged([looks], frames(range(1, 101)), events, gradient_clip_val=0.1)
    assert seen == [0.1] * 4 + [2.5] * 6


def test_a_change_of_the_batch_that_was_told_is_not_found_again_in_the_steps() -> None:
    advice = Recommendation("accumulate_grad_batches", current=1, proposed=4)
    body = {"parameter": "accumulate_grad_batches", "from": 1, "to": 2}
    told = Event("action", step=100, body=body, id="told")
    log = frames(range(1, DONE + 1), after(0.5), samples=lambda step: 64 if step <= 100 else 128)
    fold = judged([rule(advice=advice)], log, [told], batch_size=64)
    assert fold.place.why_since == "accumulate_grad_batches was changed"
    (finding,) = fold.findings()
    assert finding.followed is not None
    assert (finding.outcome, finding.followed["to"]) == ("helped", 2)


def at_hand(later: bool) -> Rule:
    """Return a rule that advises three tenths of the rate at hand wherever the loss is over 1."""

    def look(window: Window, context: Context) -> Verdict:
        loss = float(window.samples("train", "loss", count=1).values[-1])
        if loss <= 1.0:
            return fine(0.1)

        def made() -> Case:
            rate = current_rate(window, context)
            advice = Recommendation("lr", current=rate, proposed=0.3 * rate)
            seen = (Evidence("a loss", "train", "loss", window.step, loss, 1.0),)
            return Case(f"at {rate:g}", "it is so", seen, advice, "never")

        return breach(loss, Later(made, "rule of thumb") if later else made())

    return Rule("plateau", "train", look, numbers=NUMBERS)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(("to", "outcome"), [(0.03, "no effect"), (0.3, None)])
def test_advice_that_was_taken_in_vain_or_overtaken_is_given_anew_from_the_value_at_hand(
    to: float, outcome: str | None, later: bool
) -> None:
    log = frames(range(1, DONE + 1), after(2.0), lr=lambda step: 0.1 if step <= 100 else to)
    before = judged([at_hand(later)], log[:100]).findings()[0]
    (finding,) = judged([at_hand(later)], log, [changed(to=to)]).findings()
    assert before.recommendation is not None and finding.recommendation is not None
    assert (before.recommendation.current, before.recommendation.proposed) == (0.1, 0.03)
    assert (finding.state, finding.outcome) == ("firing", outcome)
    assert finding.recommendation.current == to
    assert finding.recommendation.proposed == pytest.approx(0.3 * to)
    assert finding.title == "at 0.1", "what was seen stays what was seen"
