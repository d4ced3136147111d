"""The page docs/faults.md: the score card in words and tables, and where a target is missed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
RESULT = Path(__file__).parents[1] / "results" / "faults.json"
TARGETS = {"recall": 0.95, "right_cause_first": 0.9, "runs_per_100": 1.0, "mended": 0.9}
TITLES = {"defaults": "the callback's defaults", "all": '`budget=0.2, probes="all"`'}
HEAD = """# What it finds, and what its advice mends

<!-- written by `python -m benchmarks.faults --full`; do not edit -->

Small runs on one core, trained by [the fault bench](../benchmarks/faults/README.md): ill ones, into which a
fault was planted, healthy ones, and ones that look ill and are not. Rules and their numbers were chosen on the
*tuning* cases; three quarters of those were held out in turn, were looked at, and are tuned on since. What counts are
the *held-out* ones: nets and data that none of these have, planned by someone who knew the catalogue of faults and
not the rules, and judged once, when tuning had ended. (The rules were also tried on runs of their authors' own
making, some of them of a kind with held-out nets: language models, graphs, experts, 1-d convolutions.) The
*published* pairs were judged once in that way; what they showed has been mended since, so that they are tuned on,
too. A fault is listed under the rule that it was planted for; it counts as found where any rule that names its
cause spoke.

"""


def page(result: Mapping[str, Any]) -> str:
    """Return the page of a result."""
    cards = result["cards"]
    old = sum(card.get("old", 0) for card in cards.values())
    parts = [HEAD, _stale(old), _overview(cards), _missed(cards)]
    for kind in ("held-out", "published"):
        parts += [_in_full(name, cards[name]) for name in cards if name.startswith(kind)]
    return "".join(parts).rstrip() + "\n"


def _followed(card: Mapping[str, Any]) -> int:
    """Return with how many seeds of a fault the advice was followed."""
    return max((case["seeds"] for case in card.get("mending", [])), default=0)


def _stale(old: int) -> str:
    """Say that an earlier state of the recorder made some of the recordings."""
    return f"Of the recordings {old} were made by an earlier recorder.\n\n" if old else ""


def _heading(name: str) -> str:
    held, column = name.split(", ")
    return f"{held}, {TITLES.get(column, column)}"


def _overview(cards: Mapping[str, Any]) -> str:
    names = sorted(cards, key=lambda name: (not name.startswith("held-out"), name))
    lines = ["## The score card", "", "| | " + " | ".join(_heading(name) for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    rows: list[tuple[str, Any]] = [
        ("seeds of a fault, of another case", _seeds),
        ("faults: cases, runs", lambda c: _of(c, "faults", lambda f: f"{f['cases']}, {f['runs']}")),
        ("found", lambda c: _of(c, "faults", lambda f: _share(f["recall"], f["recall_interval"]))),
        (
            "right cause named first",
            lambda c: _of(
                c, "faults", lambda f: _share(f["right_cause_first"], f["first_interval"])
            ),
        ),
        (
            "steps from onset to finding, median (90 %)",
            lambda c: _of(c, "faults", lambda f: f"{_n(f['delay_median'])} ({_n(f['delay_p90'])})"),
        ),
        (
            "healthy and look-alike: cases, runs",
            lambda c: _of(c, "healthy", lambda h: f"{h['cases']}, {h['runs']}"),
        ),
        (
            "runs with a false alarm, in 100",
            lambda c: _of(
                c,
                "healthy",
                lambda h: (
                    f"{_n(h['runs_per_100'])} ({_n(h['runs_per_100_interval'][0])}–"
                    f"{_n(h['runs_per_100_interval'][1])})"
                ),
            ),
        ),
        ("critical false alarms", lambda c: _of(c, "healthy", lambda h: str(h["criticals"]))),
        (
            "false alarms in 1,000 healthy steps",
            lambda c: _of(c, "healthy", lambda h: _n(h["alarms_per_1000_steps"])),
        ),
        (
            "advice: faults with a clear gap, seeds of each",
            lambda c: _of(c, "efficacy", lambda e: f"{e['cases']}, {_followed(c)}"),
        ),
        (
            "mended (80 % of the gap), median closed",
            lambda c: _of(c, "efficacy", lambda e: f"{_p(e['mended'])}, {_n(e['closed_median'])}"),
        ),
        (
            "mended of those that no folk remedy mends",
            lambda c: _of(
                c,
                "efficacy",
                lambda e: f"{_p(e['of_these_mended'])} of {e['no_folk_remedy_mends']}",
            ),
        ),
        ("worse than doing nothing", lambda c: _of(c, "efficacy", lambda e: str(e["worse"]))),
    ]
    folk = next((c["efficacy"]["folk"] for c in cards.values() if "efficacy" in c), {})
    rows += [
        (
            f"*folk remedy: {remedy}*, mended",
            lambda c, remedy=remedy: _of(c, "efficacy", lambda e: _p(e["folk"][remedy]["mended"])),
        )
        for remedy in folk
    ]
    for title, told in rows:
        lines.append(f"| {title} | " + " | ".join(told(cards[name]) for name in names) + " |")
    lines += ["", "Intervals are Clopper–Pearson's, 95 %, over runs; runs of one case are alike."]
    return "\n".join(lines) + "\n\n"


def _seeds(card: Mapping[str, Any]) -> str:
    seeds = card.get("seeds", {})
    well = max((count for kind, count in seeds.items() if kind != "fault"), default="–")
    return f"{seeds.get('fault', '–')}, {well}"


def _of(card: Mapping[str, Any], part: str, told: Any) -> str:
    return told(card[part]) if part in card else "–"


def missed(cards: Mapping[str, Any]) -> list[str]:
    """Return where a held-out card misses a target, in words, with the cases."""
    lines = []
    for name, card in cards.items():
        if not name.startswith("held-out"):
            continue
        where = _heading(name)
        faults, well, mending = card.get("faults"), card.get("healthy"), card.get("efficacy")
        for key, title in (("recall", "found"), ("right_cause_first", "right cause first")):
            if faults and faults[key] < TARGETS[key]:
                cases = _counted(card["missed"])
                lines.append(f"{where}: {title} {_p(faults[key])} of {_p(TARGETS[key])}: {cases}")
        if faults and faults["delay_median"] > 60:
            lines.append(f"{where}: median delay {_n(faults['delay_median'])} steps of 60")
        if well and (well["runs_per_100"] > TARGETS["runs_per_100"] or well["criticals"]):
            rules = "; ".join(
                f"{rule} ({count}: {_cases(card, rule)})"
                for rule, count in card["alarms_by_rule"].items()
            )
            lines.append(
                f"{where}: {_n(well['runs_per_100'])} runs in 100 with a false alarm: {rules}"
            )
        if mending and mending["mended"] < TARGETS["mended"]:
            cases = ", ".join(
                f"{case['case']} ({_n(case['closed'])})"
                for case in card["mending"]
                if case["clear"] and not case["mended"]
            )
            lines.append(
                f"{where}: mended {_p(mending['mended'])} of {_p(TARGETS['mended'])}: {cases}"
            )
        if mending and mending["worse"]:
            cases = ", ".join(case["case"] for case in card["mending"] if case["worse"])
            lines.append(f"{where}: worse than doing nothing: {cases}")
    return lines


def _cases(card: Mapping[str, Any], rule: str) -> str:
    return ", ".join(card["alarmed"][rule])


def _counted(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    told = []
    for case, some in rows.items():
        said = sorted({row["rules"][0] if row["rules"] else "nothing" for row in some})
        told.append(f"{case} (wanted {some[0]['expect'][0]}; {len(some)} × {', '.join(said)})")
    return "; ".join(told)


def _missed(cards: Mapping[str, Any]) -> str:
    lines = missed(cards)
    if not lines:
        return "No target is missed on the held-out cases.\n\n"
    return "## Where a target is missed\n\n" + "\n".join(f"- {line}" for line in lines) + "\n\n"


def _in_full(name: str, card: Mapping[str, Any]) -> str:
    lines = [f"## {_heading(name).capitalize()}, in full", ""]
    for part, title in (("by_rule", "rule"), ("by_net", "net")):
        if not card.get(part):
            continue
        lines += [f"| {title} | runs | found | first | delay |", "|---|---|---|---|---|"]
        for key, some in card[part].items():
            lines.append(
                f"| {key} | {some['runs']} | {_p(some['recall'])} | {_p(some['right_cause_first'])} "
                f"| {_n(some['delay_median'])} |"
            )
        lines.append("")
    if card.get("mending"):
        folk = list(card["mending"][0]["folk"])
        lines += [
            f"| fault | left alone | healthy | as advised | set | closed | {' | '.join(folk)} |",
            "|---" * (6 + len(folk)) + "|",
        ]
        for case in card["mending"]:
            if not case["clear"]:
                continue
            closed = " | ".join(_n(case["folk"][remedy]) for remedy in folk)
            lines.append(
                f"| {case['case']} | {_n(case['nothing'])} | {_n(case['healthy'])} | {_n(case['advised'])} "
                f"| {', '.join(case['parameters'])} | {_n(case['closed'])} | {closed} |"
            )
        lines += [
            "",
            "Validation losses, medians over seeds; the share of the gap that is closed.",
            "",
        ]
    if card.get("alarms"):
        lines += _alarmed(card)
    if card.get("tempted"):
        told = "; ".join(f"{case} ({', '.join(rules)})" for case, _, rules in card["tempted"])
        lines += [f"Look-alikes in which the tempted rule spoke, as an info too: {told}.", ""]
    return "\n".join(lines) + "\n"


def _alarmed(card: Mapping[str, Any]) -> list[str]:
    """Return what became of the runs that are well by their author and were warned of."""
    told = card["warned"]
    lines = [
        f"Of the {told['runs']} warned runs that are well by their author, {told['untaught']} had learned nothing when "
        f"they ended (a validation loss within 2 % of its first, or over it); as advised {told['lower']} end lower by "
        f"more than that, {told['higher']} higher:",
        "",
        "| run | seed | rule | before the first step | left alone | as advised | set |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['case']} | {row['seed']} | {row['rule']} | {_n(row['first'])} | {_n(row['nothing'])} "
        f"| {_n(row['advised'])} | {row['parameter']} |"
        for row in card["alarms"]
    ]
    return [*lines, ""]


def _n(value: Any) -> str:
    if value is None or not math.isfinite(float(value)):
        return "–"
    return f"{float(value):.3g}"


def _p(value: Any) -> str:
    return (
        "–" if value is None or not math.isfinite(float(value)) else f"{100 * float(value):.0f} %"
    )


def _share(share: float, ends: Sequence[float]) -> str:
    return f"{_p(share)} ({100 * ends[0]:.0f}–{100 * ends[1]:.0f})"
