"""The three obstacles: what was read of each, in numbers and in words, however the log was cut."""

from __future__ import annotations

import numpy as np
import pytest
from otoscope.diagnostics import judge, render_report
from otoscope.diagnostics.fold import Fold, fold
from otoscope.diagnostics.judging import report_of
from otoscope.diagnostics.verdict import sentence
from otoscope.diagnostics.words import percent
from otoscope.store import Column, Event, Frame, MemoryHome, Meta, Schema, Store
from otoscope.store.schemas import dumps

RUN = "obstacles-01"
TRAIN = Schema("train", (Column.of("loss"), Column.of("samples", ranks="sum")))
CURVATURE = Schema("curvature", (Column.of("newton_gain"), Column.of("preconditioned_newton_gain")))
LANDSCAPE = Schema("landscape", (Column.of("horizon"),))
NOISE = Schema("noise", tuple(Column.of(n) for n in ("small_sq", "big_sq", "small", "big")))
SCHEMAS = {schema.hash: schema for schema in (TRAIN, CURVATURE, LANDSCAPE, NOISE)}
SGD = {"name": "SGD", "lr": 0.1, "momentum": 0.0}
ADAM = {"name": "Adam", "lr": 0.001, "betas": [0.9, 0.999]}


def frame(schema: Schema, step: int, *values: float, attempt: int = 1) -> Frame:
    vector = np.array(values, dtype=np.float32)
    return Frame(schema.family, 0, attempt, step, 1e9 + step, schema.hash, vector)


def trained(steps: int, batch: int = 64, first: int = 1, attempt: int = 1) -> list[Frame]:
    return [frame(TRAIN, step, 1.0, batch, attempt=attempt) for step in range(first, steps + 1)]


def panel(frames: list[Frame], *events: Event, optimizer: dict | None = None) -> dict:
    folded = Fold(RUN, Meta(optimizers=[optimizer or SGD]), SCHEMAS)
    folded.push(frames, events)
    folded.judge()
    return report_of(folded)["obstacles"]


def test_of_what_was_not_sampled_nothing_is_said() -> None:
    found = panel(trained(40))
    assert list(found) == ["non_linearity", "conditioning", "noise"]
    for item in found.values():
        assert item["sentence"] == "not yet measured" and not item["measured"]
        assert item["value"] is None and item["levers"] == []


def test_a_switched_off_probe_says_why() -> None:
    off = Event("probe_off", 0, body={"probe": "curvature", "why": "the parameters are sharded"})
    found = panel(trained(40), off)["conditioning"]
    assert found["sentence"].endswith("the curvature probe is off: the parameters are sharded")


def test_a_rare_sample_is_still_known_when_the_windows_have_forgotten_it() -> None:
    frames = [*trained(4000), frame(CURVATURE, 20, 28.0, np.nan), frame(LANDSCAPE, 30, 0.5)]
    found = panel(frames)
    assert found["conditioning"]["value"] == 28.0 and found["conditioning"]["step"] == 20
    assert found["non_linearity"]["value"] == 0.5
    assert "steps are too long" in found["non_linearity"]["sentence"]


def test_the_value_is_a_median_of_five_with_its_range_and_its_trend() -> None:
    gains = [4.0, 4.0, 4.0, 8.0, 9.0, 30.0, 10.0, 11.0, 10.0]
    frames = [frame(CURVATURE, 10 * (i + 1), gain, np.nan) for i, gain in enumerate(gains)]
    found = panel([*trained(100), *frames])["conditioning"]
    assert (found["value"], found["low"], found["high"]) == (10.0, 9.0, 30.0)
    assert found["trend"] == "rising" and found["samples"] == 9


@pytest.mark.parametrize(
    ("optimizer", "own", "words", "lever"),
    [
        (SGD, np.nan, "worth 28 plain gradient steps", "Adam or AdamW"),
        (ADAM, 6.0, "; 6 as Adam scales the weights", "normalization layers"),
        (ADAM, 40.0, "; 40 as Adam scales the weights", "normalization layers"),
    ],
)
def test_conditioning_is_told_with_and_without_the_preconditioner(
    optimizer, own, words, lever
) -> None:
    frames = [*trained(40), frame(CURVATURE, 20, 28.0, own)]
    found = panel(frames, optimizer=optimizer)["conditioning"]
    assert found["value"] == 28.0 and words in found["sentence"]
    assert found["levers"][0] == lever
    assert found["preconditioned"] == (None if np.isnan(own) else own)


def test_of_several_optimizers_the_one_that_leaves_most_counts() -> None:
    name = "preconditioned_newton_gain"
    of_each = [Column(f"{name}/{i}", name, optimizer=i) for i in (0, 1)]
    schema = Schema("curvature", (Column.of("newton_gain"), *of_each))
    folded = Fold(RUN, Meta(optimizers=[ADAM, ADAM]), {**SCHEMAS, schema.hash: schema})
    folded.push([*trained(40), frame(schema, 20, 28.0, 3.0, 9.0)])
    folded.judge()
    assert report_of(folded)["obstacles"]["conditioning"]["preconditioned"] == 9.0


def test_what_holds_as_far_as_the_scan_looks_is_said_so() -> None:
    frames = [*trained(40), frame(CURVATURE, 20, 28.0, 1.5), frame(LANDSCAPE, 30, 16.0)]
    found = panel(frames, optimizer=ADAM)
    assert "a longer warm-up" in found["non_linearity"]["levers"]
    assert "at least 16 steps ahead" in found["non_linearity"]["sentence"]


def test_no_sentence_has_a_greek_letter() -> None:
    frames = [*trained(40), frame(CURVATURE, 20, 28.0, 3.0), frame(LANDSCAPE, 30, 2.0)]
    text = " ".join(item["sentence"] for item in panel(frames, optimizer=ADAM).values())
    assert not any("\u0370" <= letter <= "\u03ff" for letter in text)


def test_a_new_attempt_lets_go_of_the_steps_that_it_does_again() -> None:
    frames = [
        *trained(60),
        frame(CURVATURE, 20, 5.0, np.nan),
        frame(CURVATURE, 50, 90.0, np.nan),
        *trained(80, first=41, attempt=2),
    ]
    found = panel(frames, Event("resumed", 41, attempt=2, body={"from_attempt": 1}))
    assert found["conditioning"]["value"] == 5.0


@pytest.mark.parametrize("cut", [45, 130, 600])
def test_a_fold_that_is_restored_says_the_same_to_the_byte(cut: int) -> None:
    meta = Meta(optimizers=[SGD])
    draw = np.random.default_rng(0)
    frames = trained(900)
    frames += [frame(CURVATURE, s, draw.uniform(5, 30), np.nan) for s in range(20, 900, 35)]
    frames += [frame(LANDSCAPE, s, draw.choice([0.5, 2, 4])) for s in range(30, 900, 70)]
    frames += [frame(NOISE, s, 3 + draw.normal(), 2.0, 32, 64) for s in range(5, 900, 5)]
    frames.sort(key=lambda f: (f.step, f.family != "curvature"))
    whole = Fold(RUN, meta, SCHEMAS)
    whole.push(frames)
    whole.judge()

    early = [f for f in frames if f.step <= cut]
    state, findings = fold(None, early, run=RUN, meta=meta, schemas=SCHEMAS)
    again = Fold(RUN, meta, SCHEMAS)
    again.restore(state, findings)
    again.rebuild(early)
    again.push([f for f in frames if f.step > state["place"]["step"]])
    again.judge()

    assert dumps(report_of(again)["obstacles"]) == dumps(report_of(whole)["obstacles"])


def test_the_verdict_of_a_run_too_short_to_judge_says_what_was_measured() -> None:
    folded = Fold(RUN, Meta(optimizers=[SGD]), SCHEMAS)
    folded.push([*trained(10), frame(CURVATURE, 5, 12.0, np.nan)])
    folded.judge()
    assert report_of(folded)["verdict"].endswith("Measured: loss 1 at first, conditioning 12.")
    none = sentence([], [], {"plateau": "judged from step 210 on"}, 10, ["loss 1 at first"])
    assert none == ("Not judged yet (step 10): judged from step 210 on. Measured: loss 1 at first.")
    enough = sentence([], ["plateau", "dead_units"], {"non_finite": "no"}, 900, ["loss 1 at first"])
    assert "Measured" not in enough


def noisy(gradient: float, trace: float, count: int = 200) -> list[Frame]:
    """Return samples of halves of 64 whose expectation is that noise, 10 % of spread each."""
    draw = np.random.default_rng(1)
    small, big = gradient + trace / 32, gradient + trace / 64
    spread = 1 + 0.1 * draw.normal(size=(count, 2))
    return [
        frame(NOISE, 2 * (i + 1), small * a, big * b, 32, 64) for i, (a, b) in enumerate(spread)
    ]


def test_noise_is_a_share_of_a_step_and_a_factor_of_steps() -> None:
    found = panel([*trained(410), *noisy(gradient=1.0, trace=64.0)])["noise"]
    # noise scale 64 at a batch of 64: half of a step, two steps for one
    assert found["low"] < 2.0 < found["high"]
    assert found["value"] == pytest.approx(2.0, rel=0.1)
    assert found["share"] == pytest.approx(1 - 1 / found["value"])
    assert found["value"] == pytest.approx(1 + found["scale"] / found["batch"])
    assert (found["batch"], found["samples"], found["step"]) == (64.0, 200, 400)
    assert "64 samples in a batch" in found["sentence"]


def test_little_noise_says_that_the_batch_is_larger_than_needed() -> None:
    found = panel([*trained(410), *noisy(gradient=10.0, trace=20.0)])["noise"]
    assert found["share"] < 0.1 and found["levers"][0] == "a larger batch"
    assert "larger than needed" in found["sentence"]


def test_noise_that_drowns_the_gradient_is_undetermined_and_no_number() -> None:
    found = panel([*trained(410), *noisy(gradient=0.0, trace=64.0)])["noise"]
    assert found["value"] is None and not found["measured"] and found["samples"] == 200
    assert found["sentence"].startswith("undetermined after 200 samples: the ")


def test_the_noise_on_the_panel_is_the_last_that_the_store_reads() -> None:
    home = MemoryHome()
    home.write_meta(RUN, {"batch_size": 64})
    for schema in SCHEMAS.values():
        home.add_schema(RUN, schema)
    frames = sorted([*trained(410), *noisy(1.0, 64.0)], key=lambda f: (f.step, f.family))
    home.append(RUN, frames)
    read = Store(home).read(RUN, "noise")
    judged = judge(Store(home), RUN)
    found = judged["obstacles"]["noise"]
    assert found["scale"] == pytest.approx(float(read.column("noise_scale")[-1]), rel=1e-5)
    page = render_report(Store(home), RUN, judged)
    assert f"{percent(found['share'])} of a step" in page and "a larger batch" in page


def test_a_family_of_the_readers_own_that_is_called_noise_too_breaks_nothing() -> None:
    own = Schema("noise", (Column.of("small_sq"),))
    folded = Fold(RUN, Meta(), {**SCHEMAS, own.hash: own})
    folded.push([*trained(40), frame(own, 10, 1.0)], [])
    folded.judge()
    assert report_of(folded)["obstacles"]["noise"]["sentence"].startswith("sampled once")
