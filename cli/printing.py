"""What the commands print: tables, findings, numbers, JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..store.findings import hidden_ids
from ..store.schemas import plain

COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
WHOLE = 5
"""Open findings that are printed with their whole argument."""
PASTED = 40
"""Lines of code that are printed of a finding at most."""
LINES = 20
"""Further ones, a line each."""
SIGNS = {"critical": "✖", "warning": "▲", "info": "●"}


def console(*, stderr: bool = False) -> Console:
    """Return a console; in a pipe it never breaks or cuts a line at 80 columns."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 240
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """Print JSON on stdout, readable, NaN as null."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> None:
    """Print a table; numbers of a column are right-aligned by the caller's choice of words."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def number(value: Any) -> str:
    """Return a value as a person would write it: four digits, no trailing zeros.

    >>> number(0.034217), number(128), number(None)
    ('0.03422', '128', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and len(value) > 2:
        return _of_many_layers(value)
    if isinstance(value, dict | list):
        return json.dumps(plain(value), ensure_ascii=False)
    return str(value)


def _of_many_layers(value: dict[str, Any]) -> str:
    """Return what is set in many layers in few words; `--json` and the page's snippet have it all.

    >>> _of_many_layers({"a": "ReLU", "b": "ReLU", "c": "ReLU"})
    'ReLU in 3 layers'
    """
    kinds = dict.fromkeys(
        part["kind"] if isinstance(part, dict) and "kind" in part else number(part)
        for part in value.values()
    )
    shown = ", ".join([*kinds][:2]) + (", …" if len(kinds) > 2 else "")
    return f"{shown} in {len(value)} layers"


def ago(epoch: float, now: float | None = None) -> str:
    """Return how long ago a moment was.

    >>> ago(1000.0, now=1090.0), ago(0.0)
    ('1 min ago', 'never')
    """
    if epoch <= 0:
        return "never"
    seconds = max(0.0, (time.time() if now is None else now) - epoch)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def amount(size: int | None) -> str:
    """Return bytes as a person would write them.

    >>> amount(1500), amount(64_000_000), amount(None)
    ('1.5 kB', '64.0 MB', '–')
    """
    if size is None:
        return "–"
    number, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while number >= 999.95 and len(units) > 1:
        number /= 1000
        units.pop(0)
    return f"{size} B" if units[0] == "B" else f"{number:.1f} {units[0]}"


def severity_text(severity: str) -> Text:
    """Return a severity as a sign and a word, never a colour alone."""
    return Text(f"{SIGNS.get(severity, '●')} {severity}", style=COLOURS.get(severity, ""))


def print_run(run: dict[str, Any]) -> None:
    """Print a run's JSON (DESIGN: `diagnose` and `show`) as a verdict with its findings."""
    out = console()
    out.print(Text(f"{run['run']}", style="bold"), Text(f"  {run.get('state', '')}", style="dim"))
    out.print(Text(str(run.get("verdict") or "no verdict yet")))
    findings = run.get("findings", [])
    titles = {finding["id"]: finding["title"] for finding in findings}
    hidden = hidden_ids(findings)
    roots = [finding for finding in findings if finding["id"] not in hidden]
    step = int(run.get("step") or 0)
    whole = [finding for finding in roots if asks_for_action(finding, step)][:WHOLE]
    whole = whole or roots[:1]
    for finding in whole:
        out.print()
        _print_finding(out, finding, titles, ended_cause(finding, findings))
    further = [finding for finding in roots if finding not in whole]
    if further:
        out.print()
        _print_further(out, further, step)
    out.print()
    for line in obstacle_lines(run.get("obstacles") or {}):
        out.print(Text(line))
    for line in answer_lines(run.get("answers") or []):
        out.print(Text(line))
    judged, not_judged = run.get("judged", []), run.get("not_judged", {})
    out.print(Text("Judged: " + (", ".join(judged) or "nothing"), style="dim"))
    reasons: dict[str, list[str]] = {}
    for rule, why in sorted(not_judged.items()):
        reasons.setdefault(why, []).append(rule)
    for why, rules in reasons.items():
        out.print(Text(f"Not judged: {', '.join(rules)}: {why}", style="dim"))
    for gap in run.get("missed", []):
        steps = f"steps {gap['from']:,} to {gap['to']:,}"
        why = "their samples were lost, or are not kept any more"
        out.print(Text(f"Not judged: {steps} (attempt {gap['attempt']}): {why}", style="dim"))


def asks_for_action(finding: dict[str, Any], step: int) -> bool:
    """Tell whether a finding stands that nobody acknowledged, called normal or snoozed beyond a step.

    >>> asks_for_action({"state": "firing", "snoozed_until_step": 900}, 400)
    False
    """
    aside = finding.get("acknowledged") or (finding.get("snoozed_until_step") or 0) > step
    return finding.get("state") == "firing" and not aside


def _print_further(out: Console, findings: list[dict[str, Any]], step: int) -> None:
    """Print a line each of what is over, was put aside, or is one of many."""
    for finding in findings[:LINES]:
        state = str(finding.get("state"))
        snoozed = state == "firing" and not asks_for_action(finding, step)
        if finding.get("acknowledged") or snoozed:
            state = "put aside"
        elif finding.get("closed"):
            state = "closed by hand"
        steps = f"steps {finding['first_step']:,}–{finding.get('last_step', 0):,}"
        became = f", {finding['outcome']}" if finding.get("outcome") else ""
        line = severity_text(finding["severity"])
        out.print(line.append(f"  {finding['title']}  ({state}, {steps}{became})", style="dim"))
    if len(findings) > LINES:
        out.print(Text(f"… and {len(findings) - LINES} further findings (--json has all)"))


def answer_lines(answers: list[dict[str, Any]]) -> list[str]:
    """Return what became of the findings of the run's parent, a line for each change and each of them.

    >>> change = {"parameter": "lr", "from": 3.0, "to": 0.1, "run": "mlp-1"}
    >>> spikes = {**change, "title": "The loss spikes", "outcome": None}
    >>> answer_lines([{**change, "title": "The learning rate is too high", "outcome": "helped"}, spikes])
    ['Answers mlp-1 with lr 3 → 0.1', '  helped: The learning rate is too high', '  being followed: The loss spikes']
    """
    from ..diagnostics.proposals import value_words

    changes: dict[str, list[str]] = {}
    for item in answers:
        before, after = (
            "none" if item[end] is None else value_words(item["parameter"], item[end])
            for end in ("from", "to")
        )
        change = f"Answers {item['run']} with {item['parameter']} {before} → {after}"
        became = f"  {item['outcome'] or 'being followed'}: {item['title']}"
        changes.setdefault(change, []).append(became)
    return [line for change, became in changes.items() for line in (change, *became)]


def obstacle_lines(obstacles: dict[str, Any]) -> list[str]:
    """Return the three obstacles in words: those that were measured a line each, the others in one.

    >>> obstacle_lines({"noise": {"measured": False, "sentence": "not yet measured"}})
    ['Obstacles: nothing measured yet']
    """
    lines, missing = [], []
    for key, item in obstacles.items():
        name = key.replace("_", "-")
        if not item.get("measured"):
            missing.append((name, str(item.get("sentence") or "not yet measured")))
            continue
        trend = f" ({item['trend']})" if item.get("trend") else ""
        levers = f"; lowered by {', '.join(item['levers'])}" if item.get("levers") else ""
        lines.append(f"{name.capitalize()}: {item['sentence']}{trend}{levers}")
    for words, told in (("not yet measured", "nothing measured yet"), ("never measured",) * 2):
        if missing and not lines and all(why == words for _, why in missing):
            return [f"Obstacles: {told}"]
    return lines + [f"{name.capitalize()}: {why}" for name, why in missing]


def ended_cause(finding: dict[str, Any], findings: list[dict[str, Any]]) -> str:
    """Return what has caused a finding and is over, in words; empty where nothing did.

    >>> cause = {"title": "Too high", "state": "resolved", "caused": ["a"], "last_step": 400}
    >>> ended_cause({"id": "a"}, [cause])
    'Too high (over since step 400)'
    """
    causes = [other for other in findings if finding["id"] in other.get("caused", [])]
    return "; ".join(
        f"{other['title']} (over since step {other['last_step']:,})"
        for other in causes
        if other.get("state") == "resolved"
    )


def _print_finding(
    out: Console, finding: dict[str, Any], titles: dict[str, str], left_by: str = ""
) -> None:
    """Print one finding; what it caused goes away with it and is named in one line, as on the page."""
    state = "" if finding.get("state") == "firing" else f" ({finding.get('state')})"
    head = severity_text(finding["severity"])
    head.append(f"  {finding['title']}{state}", style="bold")
    out.print(head)
    rows: list[tuple[str, str]] = [("Rule", f"{finding['rule']}, step {finding['first_step']}")]
    ranks = ", ".join(map(str, finding.get("ranks", [])))
    rows.append(("Ranks", ranks))
    seen = "; ".join(item["text"] for item in finding.get("because", []))
    rows.append(("Seen", seen))
    from ..diagnostics.null_rates import outcome_words

    advice = finding.get("recommendation")
    if advice:
        rows += _advice_rows(advice)
    rows += [
        ("Left by", left_by),
        ("Why", finding.get("why", "")),
        ("Outcome", outcome_words(finding)),
        ("May be normal", finding.get("may_be_normal", "")),
        ("Not measured", ", ".join(finding.get("not_measured", []))),
        (
            "Caused",
            "; ".join(
                titles[name] if name in titles else str(name) for name in finding.get("caused", [])
            ),
        ),
    ]
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        if text:
            table.add_row(label, Text(text))
    out.print(table)
    if advice:
        _print_snippet(out, advice.get("snippet", ""))


def _advice_rows(advice: dict[str, Any]) -> list[tuple[str, str]]:
    from ..diagnostics.proposals import value_words

    def said(parameter: str, value: Any) -> str:
        plain = not isinstance(value, dict | list)
        return number(value) if plain else value_words(parameter, value).replace("`", "")

    parameter = str(advice["parameter"])
    current = "" if advice.get("current") is None else f"{said(parameter, advice['current'])} → "
    low_high = advice.get("range")
    between = f"{number(low_high[0])}–{number(low_high[1])}, " if low_high else ""
    rows = [
        (
            "Set",
            f"{parameter} {current}{said(parameter, advice['proposed'])} "
            f"({between}{advice.get('basis', '')})",
        )
    ]
    together, instead = advice.get("also", []), advice.get("alternatives", [])
    for word, others in (("And", together), ("Or", instead)):
        for other in others:
            name = str(other["parameter"])
            rows.append((word, f"{name} {said(name, other['proposed'])}"))
    return [
        *rows,
        ("How", advice.get("formula", "")),
        ("Effect", advice.get("effect", "")),
        ("Verify", advice.get("verify", "")),
    ]


def _print_snippet(out: Console, snippet: str) -> None:
    """Print what is to be pasted as it is: at the left, no line broken, the whole of it or nothing."""
    lines = snippet.splitlines()
    if len(lines) > PASTED:
        out.print(Text(f"Paste  {len(lines)} lines: --json and the page have them", style="dim"))
    elif lines:
        out.print(Text("Paste", style="dim"))
        out.print(Text(snippet), soft_wrap=True)
