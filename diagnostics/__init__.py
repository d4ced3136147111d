"""Judging: windows, rules, recommendations, the fold, the daemon and the report."""

from ..store import Evidence, Recommendation
from .catalogue import RuleInfo, catalogue
from .daemon import Daemon
from .judging import judge, summary
from .null_rates import outcome_words
from .overriding import (
    normal_counts,
    numbers_in_force,
    parsed,
    project_numbers,
    request,
    set_number,
    set_numbers,
)
from .own_rules import active_rules, load_rules
from .report import render_report
from .rule import Case, Context, Rule, Verdict, breach, fine, unknown
from .verdict import verdict_lines
from .windows import Window

__all__ = [
    "Case",
    "Context",
    "Daemon",
    "Evidence",
    "Recommendation",
    "Rule",
    "RuleInfo",
    "Verdict",
    "Window",
    "active_rules",
    "breach",
    "catalogue",
    "fine",
    "judge",
    "load_rules",
    "normal_counts",
    "numbers_in_force",
    "outcome_words",
    "parsed",
    "project_numbers",
    "render_report",
    "request",
    "set_number",
    "set_numbers",
    "summary",
    "unknown",
    "verdict_lines",
]
