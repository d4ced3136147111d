"""The tables, and docs/peers.md, which holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[1] / "results" / "peers.json"
TEMPLATE = Path(__file__).parent / "_peers.md"
PAGE = Path(__file__).parents[2] / "docs" / "peers.md"
HEAD = (
    "peer", "an alert in faulty runs", "of the right kind", "and told first",
    "right kind, of what it looks for", "median delay (steps)", "healthy and look-alike runs flagged",
    "alarms a run", "alarms per 1,000 steps",
)  # fmt: skip
SETS = {
    "held-out": "Held-out nets and data (faults.md says what of ours was mended after a look at them)",
    "tuning": "Tuning set: our thresholds were set on these",
    "published": "Rebuilt from a published collection",
}


def percent(value: float | None) -> str:
    """Return a share as it is printed.

    >>> percent(0.666), percent(None)
    ('67 %', '–')
    """
    return "–" if value is None else f"{100 * value:.0f} %"


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def named(peer: str, body: Mapping[str, Any]) -> str:
    return f"**{peer}**" if peer == "Otoscope" else f"{peer} {body.get('version') or ''}".strip()


def main_table(bodies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one set's table, a line a peer."""
    rows = []
    for peer, body in bodies.items():
        if "failed" in body:
            rows.append(
                [named(peer, body), f"did not run: {body['failed']}", *[""] * (len(HEAD) - 2)]
            )
            continue
        told = body["figures"]
        low, high = told["flagged_interval"]
        rows.append(
            [
                named(peer, body),
                percent(told["alarmed"]),
                f"{percent(told['right_kind'])} of {told['faulty_runs']}",
                percent(told["right_first"]),
                f"{percent(told['right_of_looked_for'])} of {told['looked_for_runs']}",
                number(told["delay_median"], 0),
                f"{told['flagged']} of {told['healthy_runs']} ({100 * low:.1f} to {100 * high:.1f} %)",
                number(told["alarms_a_run"], 2),
                number(told["alarms_per_1000_steps"], 2),
            ]
        )
    return table(HEAD, rows)


def net_table(bodies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return, per net and peer, faults named right and healthy runs flagged."""
    ran = {peer: body for peer, body in bodies.items() if "failed" not in body}
    nets = sorted({net for body in ran.values() for net in body["nets"]})
    rows = []
    for net in nets:
        cells = []
        for body in ran.values():
            right, faults, flagged, well = body["nets"].get(net, [0, 0, 0, 0])
            cells.append(f"{right}/{faults} · {flagged}/{well}")
        rows.append([net, *cells])
    return table(["net", *(named(peer, body) for peer, body in ran.items())], rows)


def cost_table(costs: Mapping[str, Mapping[str, float]]) -> str:
    """Return milliseconds of CPU a step, per net."""
    peers = list(dict.fromkeys(peer for told in costs.values() for peer in told))
    rows = [
        [peer if peer != "plain" else "the training itself",
         *(number(told.get(peer), 3) for told in costs.values())]
        for peer in peers
    ]  # fmt: skip
    return table(["CPU a step, ms", *costs], rows)


def failures(bodies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"{peer} failed on {body['errors']['runs']} runs ({'; '.join(body['errors']['said'])}); "
        "what it had said until then counts."
        for peer, body in bodies.items()
        if body.get("errors", {}).get("runs")
    ]


def shown(name: str, bodies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a set as it is printed."""
    return "\n".join(["", name, main_table(bodies), "", net_table(bodies), *failures(bodies)])


def without_rows(bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the result file holds: each run's row would be a megabyte, its counts are enough."""
    return {
        peer: {key: value for key, value in body.items() if key != "rows"}
        for peer, body in bodies.items()
    }


def page(result: Mapping[str, Any]) -> str:
    """Return docs/peers.md for a result."""
    parts = []
    for name, title in SETS.items():
        bodies = result["sets"].get(name)
        if bodies:
            parts += [f"## {title}", main_table(bodies), *failures(bodies)]
            parts += [
                "Per net: faults named with the right kind / faulty runs · healthy or look-alike "
                "runs flagged / such runs.",
                net_table(bodies),
            ]
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("{sets}", "\n\n".join(parts))
    cost = cost_table(result["cost"]) if result["cost"] else "Not measured for this result."
    text = text.replace("{cost}", cost)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return text.replace("{versions}", versions)
