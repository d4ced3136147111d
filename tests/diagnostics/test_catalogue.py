"""The catalogue: every rule has its words and numbers, and docs/rules.md is what they generate."""

from __future__ import annotations

from pathlib import Path

import pytest
from otoscope.diagnostics import catalogue
from otoscope.diagnostics.catalogue import as_markdown
from otoscope.diagnostics.rules import RULES
from otoscope.diagnostics.thresholds import SHARED, load, numbers
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
    with pytest.raises(ConfigError, match=r"plateau\.fire must be a number"):
        load("plateau", {"plateau.fire": "lots"})
