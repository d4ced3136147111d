"""Judging: windows, rules, recommendations, the fold, the daemon and the report."""

from .catalogue import RuleInfo, catalogue
from .daemon import Daemon
from .judging import judge, summary
from .report import render_report
from .verdict import verdict_lines

__all__ = [
    "Daemon",
    "RuleInfo",
    "catalogue",
    "judge",
    "render_report",
    "summary",
    "verdict_lines",
]
