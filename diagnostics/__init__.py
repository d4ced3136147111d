"""Judging: windows, rules, recommendations, the fold, the daemon and the report."""

from .daemon import Daemon
from .judging import judge, summary
from .verdict import verdict_lines

__all__ = ["Daemon", "judge", "summary", "verdict_lines"]
