"""The delta answer: a chain of answers equals one full read, whatever the numbers are."""

import json
import time

import numpy as np
import pytest
from otoscope.dashboard.delta import Query, delta
from otoscope.store import Column, ConfigError, Frame, Schema
from otoscope.store.retention import Retention
from otoscope.store.rollups import Rollups

from tests.dashboard.made_runs import GRADIENTS, LAYERS, MadeRun, too_high

RUN = "net-1"


def joined(answers):
    """Return the series that a page holds after a chain of answers."""
    held = {}
    for answer in answers:
        if answer["reset"]:
            held = {}
        for family, part in answer["series"].items():
            rows = held.setdefault(family, {"columns": part["columns"], "rows": []})
            assert rows["columns"] == part["columns"]
            rows["rows"] += list(zip(part["steps"], part["times"], part["values"], strict=True))
    return held


def test_a_chain_of_answers_equals_one_full_read(store, home):
    run = MadeRun(home, RUN)
    answers, cursor = [], ""
    for steps in (7, 1, 40, 3, 120):
        run.train(steps).event("note", text=f"after {steps}")
        answers.append(delta(store, RUN, cursor))
        cursor = answers[-1]["cursor"]
    full = delta(store, RUN)

    assert joined(answers) == joined([full])
    assert [len(answer["events"]) for answer in answers] == [1] * 5
    assert len(full["events"]) == 5
    assert [answer["reset"] for answer in answers] == [True, False, False, False, False]


def test_an_answer_that_brings_nothing_new_is_small(store, home):
    MadeRun(home, RUN).train(50).judged(too_high(RUN))
    first = delta(store, RUN)

    again = delta(store, RUN, first["cursor"])

    assert again["series"] == {} and again["events"] == [] and "findings" not in again
    assert again["cursor"] == first["cursor"]
    assert len(json.dumps(again)) < 1500


def test_a_new_judgement_comes_with_the_next_answer(store, home):
    run = MadeRun(home, RUN).train(50).judged()
    first = delta(store, RUN)
    run.train(10).judged(too_high(RUN))

    second = delta(store, RUN, first["cursor"])

    assert first["state"] == "healthy" and second["state"] == "needs_action"
    assert [finding["rule"] for finding in second["findings"]] == ["lr_too_high"]
    assert "0.034" in second["verdict"]


def test_numbers_that_are_none_cross_as_json(store, home):
    schema = Schema("train", (Column.of("loss"), Column.of("grad_sq")))
    home.begin_attempt(RUN)
    home.add_schema(RUN, schema)
    rows = [[np.nan, 1e-38], [np.inf, 3e38], [-np.inf, 0.0], [1e-45, np.nan]]
    frames = [
        Frame("train", 0, 1, step, 1.0, schema.hash, np.array(row, np.float32))
        for step, row in enumerate(rows, 1)
    ]
    home.append(RUN, frames, fields={"name": "x"})

    answer = delta(store, RUN)

    text = json.dumps(answer, allow_nan=False)
    values = json.loads(text)["series"]["train"]["values"]
    assert [row[0] for row in values[:3]] == [None, "Infinity", "-Infinity"]
    assert values[0][1] == pytest.approx(1e-38, rel=1e-4)
    assert values[3][0] == pytest.approx(1.4e-45, rel=1e-2) and values[3][1] is None


@pytest.mark.parametrize("cursor", ["nonsense", "a" * 9000, "WyJ4IiwiMS0wIix7fSwiIl0"])
def test_a_cursor_that_cannot_be_continued_brings_everything_again(store, home, cursor):
    MadeRun(home, RUN).train(30)

    answer = delta(store, RUN, cursor)

    assert answer["reset"]
    assert len(answer["series"]["train"]["steps"]) == 30


def test_a_new_attempt_brings_everything_again(store, home):
    run = MadeRun(home, RUN).train(30)
    cursor = delta(store, RUN)["cursor"]
    home.begin_attempt(RUN)
    frame = run.frame(GRADIENTS, np.ones(len(GRADIENTS.columns)))
    frame.attempt, frame.step = 2, 12
    home.append(RUN, [frame])

    answer = delta(store, RUN, cursor)

    assert answer["reset"] and answer["run"]["attempt"] == 2


def test_a_family_that_begins_later_needs_no_new_start(store, home):
    run = MadeRun(home, RUN).train(99)
    first = delta(store, RUN)
    run.train(1)

    second = delta(store, RUN, first["cursor"])

    assert "val_loss" in second["series"]["validation"]["columns"]
    assert not second["reset"] and second["series"]["train"]["steps"] == [100]


def test_another_quantity_brings_everything_again(store, home):
    MadeRun(home, RUN).train(30)
    cursor = delta(store, RUN)["cursor"]

    answer = delta(store, RUN, cursor, Query(quantity="dead"))

    assert answer["reset"]
    part = answer["series"]["activations"]
    assert part["layers"] == list(LAYERS)
    assert part["columns"] == [f"dead/{layer}" for layer in LAYERS]
    assert part["values"][0] == pytest.approx([3 / 128] * len(LAYERS), rel=5e-3)


def test_a_quantity_that_does_not_exist_is_refused(store, home):
    MadeRun(home, RUN).train(3)

    with pytest.raises(ConfigError, match="gradient, update"):
        delta(store, RUN, "", Query(quantity="<b>"))


def test_a_slow_rank_holds_its_steps_back_until_it_has_sent_them(store, home):
    schema = Schema("train", (Column.of("loss", ranks="mean"),))
    home.begin_attempt(RUN)
    home.add_schema(RUN, schema)

    def send(rank, *steps):
        frames = [
            Frame("train", rank, 1, step, 1.0, schema.hash, np.array([rank], np.float32))
            for step in steps
        ]
        home.append(RUN, frames, fields={"heartbeat": {str(rank): time.time()}})

    send(0, 1, 2, 3)
    send(1, 1)
    first = delta(store, RUN)
    send(1, 2, 3)
    second = delta(store, RUN, first["cursor"])

    assert first["series"]["train"]["steps"] == [1]
    assert second["series"]["train"]["steps"] == [2, 3]
    assert second["series"]["train"]["values"] == [[0.5], [0.5]]


def test_a_rank_that_fell_silent_holds_nobody_up(store, home):
    schema = Schema("train", (Column.of("loss", ranks="mean"),))
    home.begin_attempt(RUN)
    home.add_schema(RUN, schema)
    for rank, steps, beat in ((0, (1, 2, 3), 1000.0), (1, (1,), 900.0)):
        frames = [
            Frame("train", rank, 1, step, 1.0, schema.hash, np.array([1], np.float32))
            for step in steps
        ]
        home.append(RUN, frames, fields={"heartbeat": {str(rank): beat}})

    assert delta(store, RUN)["series"]["train"]["steps"] == [1, 2, 3]


def test_a_long_run_is_reduced_and_goes_on_without_a_gap(store, home):
    run = MadeRun(home, RUN).train(5000)
    first = delta(store, RUN)
    part = first["series"]["train"]
    run.train(3)
    second = delta(store, RUN, first["cursor"])

    assert 1000 <= len(part["steps"]) <= 2000
    assert part["steps"] == sorted(set(part["steps"]))
    low, high = np.array(part["low"])[:, 0], np.array(part["high"])[:, 0]
    assert (low < high).all() and (np.array(part["values"])[:, 0] <= high).all()
    assert second["series"]["train"]["steps"] == [5001, 5002, 5003]
    assert "low" not in second["series"]["train"]


def test_the_worst_layer_is_named_without_asking_for_its_quantity(store, home):
    MadeRun(home, RUN, faulty_from=10).train(50)

    worst = delta(store, RUN)["worst"]

    assert worst["dead"] == {"layer": LAYERS[3], "value": pytest.approx(93 / 128, rel=1e-3)}
    assert worst["saturated"]["value"] == pytest.approx(0.01)


def test_a_failed_run_says_which_exception_ended_it(store, home):
    run = MadeRun(home, RUN).train(20)
    run.event("exception", type="RuntimeError", message="CUDA out of memory").end("failed")

    told = delta(store, RUN)["run"]

    assert told["status"] == "failed"
    assert told["error"] == {"type": "RuntimeError", "message": "CUDA out of memory"}


def test_a_run_that_has_not_begun_is_no_error(store, home):
    MadeRun(home, RUN)

    answer = delta(store, RUN)

    assert answer["run"]["step"] == 0 and answer["state"] == "not_judged"
    assert answer["series"] == {}


def test_the_first_view_of_a_long_run_misses_no_step_though_its_raw_is_gone(store, home):
    schema = Schema("train", (Column.of("loss"), Column.of("lr")))
    home.write_meta(RUN, {"name": RUN, "attempt": 1, "heartbeat": {"0": time.time()}})
    home.add_schema(RUN, schema)
    rollups, retention = Rollups(), Retention(cap=2_000)
    values = np.ones((60_000, 2), np.float32)
    values[12_345, 0], values[34_567, 0], values[45_678, 0] = 40.0, np.inf, -np.inf
    for first in range(0, len(values), 1_000):
        frames = [
            Frame("train", 0, 1, first + i, 1e9 + first + i, schema.hash, row)
            for i, row in enumerate(values[first : first + 1_000], 1)
        ]
        home.append(RUN, frames, buckets=rollups.take(frames))
        retention.note(frames)
        retention.enforce(home, RUN)
    answer = delta(store, RUN)
    part = answer["series"]["train"]
    high = [row[0] for row in part["high"]]
    drawn = [row[0] for row in part["values"]]
    assert 128 <= len(drawn) <= 2_000
    assert high.count(40.0) == 1 and high.count("Infinity") == 1
    # what broke off is marked by the value of its row, beside finite ones
    assert drawn.count("Infinity") == drawn.count("-Infinity") == 1
    later = [Frame("train", 0, 1, 60_001, 2e9, schema.hash, values[0])]
    home.append(RUN, later, buckets=rollups.take(later))
    more = delta(store, RUN, answer["cursor"])
    assert not more["reset"]
    assert more["series"]["train"]["steps"] == [60_001]


def test_more_columns_than_an_answer_has_room_for_come_in_one_row(store, home):
    rates = tuple(Column.of(f"lr/0.{group}") for group in range(30_001))
    train = Schema("train", (Column.of("loss"), *rates))
    home.write_meta(RUN, {"name": "groups"})
    home.add_schema(RUN, train)
    values = np.ones(len(train.columns), np.float32)
    home.append(RUN, [Frame("train", 0, 1, s, 1.0, train.hash, values) for s in (1, 2)], [])
    assert len(delta(store, RUN)["series"]["train"]["steps"]) == 1
