"""The catalogue: every rule has its words and numbers, and docs/rules.md is what they generate."""

from __future__ import annotations

from pathlib import Path

import pytest
from otoscope.diagnostics import catalogue
from otoscope.diagnostics.catalogue import as_markdown
from otoscope.diagnostics.inhibition import CAUSES
from otoscope.diagnostics.rules import RULES
from otoscope.diagnostics.thresholds import SHARED, load, numbers, profiles, switched_off
from otoscope.store import ConfigError

ROOT = Path(__file__).parents[2]


def test_the_catalogue_in_the_docs_is_the_one_that_the_rules_give() -> None:
    written = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    assert written == as_markdown(), "run: python -m otoscope.diagnostics > docs/rules.md"


def test_every_rule_has_its_numbers_and_says_what_why_and_from_where() -> None:
    assert [rule.id for rule in RULES] == list(numbers())
    for info in catalogue():
        assert set(SHARED) <= set(info.thresholds)
        assert info.title and info.what and info.why and info.source


def test_every_number_of_a_rule_is_read_by_its_code() -> None:
    shared = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "diagnostics").glob("*.py")
    )
    for rule in RULES:
        own = (ROOT / "diagnostics" / "rules" / f"{rule.id}.py").read_text(encoding="utf-8")
        for name in set(load(rule.id).own):
            assert f'"{name}"' in own + shared, f"{rule.id}.{name} is never read"


def test_an_override_of_the_wrong_kind_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"plateau\.fire must be a number from 0 to 1"):
        load("plateau", {"plateau.fire": "lots"})


@pytest.mark.parametrize(
    ("profile", "off", "on"),
    [
        ("supervised", set(), {"plateau", "wrong_head", "bad_initialization"}),
        ("language-model", {"wrong_head"}, {"plateau", "lr_too_high", "overfitting"}),
        ("gan", {"plateau", "lr_too_high", "overfitting"}, {"non_finite", "dead_units"}),
        ("reinforcement", {"plateau", "input_problem"}, {"non_finite", "exploding_gradients"}),
        ("contrastive", {"batch_too_small", "batch_too_large", "wrong_head"}, {"plateau"}),
        (
            "finetune",
            {"plateau", "lr_too_low", "bad_initialization"},
            {"lr_too_high", "wrong_head"},
        ),
    ],
)
def test_a_profile_switches_off_what_does_not_apply_and_nothing_else(
    profile: str, off: set[str], on: set[str]
) -> None:
    found = switched_off(profile)
    assert off <= found <= {rule.id for rule in RULES}
    assert not on & found


def test_every_root_cause_and_what_it_causes_is_a_rule() -> None:
    known = {rule.id for rule in RULES}
    assert set(CAUSES) | {effect for effects in CAUSES.values() for effect in effects} <= known


def test_every_profile_that_a_run_may_name_is_known() -> None:
    assert profiles() == [
        "supervised", "language-model", "gan", "reinforcement", "contrastive", "finetune",
    ]  # fmt: skip
