"""The tables, and docs/peers.md, which holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .living import READERS

SCALARS = "scalars into a CSV"
"""What a package that reads a log costs while the run trains."""
RESULT = Path(__file__).parents[1] / "results" / "peers.json"
TEMPLATE = Path(__file__).parent / "_peers.md"
PAGE = Path(__file__).parents[2] / "docs" / "peers.md"
HEAD = (
    "peer", "an alert in faulty runs", "of the right kind", "and told first",
    "right kind, of what it looks for", "median delay (steps)", "healthy and look-alike runs flagged",
    "alarms a run", "alarms per 1,000 steps", "not judged",
)  # fmt: skip
SETS = {
    "held-out": "Held-out nets and data",
    "seen": "Held out at first, and looked at since: four weaknesses of ours that showed here were mended",
    "tuning": "Tuning set: our thresholds were set on these",
    "published": "Rebuilt from a published collection",
}
OURS = "Otoscope"
PER_NET = (
    "Per net: faults named with the right kind / faulty runs · healthy or look-alike runs flagged / "
    "such runs."
)


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
    return f"**{peer}**" if peer == OURS else f"{peer} {body.get('version') or ''}".strip()


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
                str(told.get("not_judged", 0)),
            ]
        )
    return table(HEAD, rows)


def net_table(bodies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return, per net and peer, faults named right and healthy runs flagged."""
    ran = {peer: body for peer, body in bodies.items() if "failed" not in body}
    rows = []
    for net in nets_of(ran):
        cells = []
        for body in ran.values():
            right, faults, flagged, well = body["nets"].get(net, [0] * 4)[:4]
            cells.append(f"{right}/{faults} · {flagged}/{well}")
        rows.append([net, *cells])
    return table(["net", *(named(peer, body) for peer, body in ran.items())], rows)


def nets_of(bodies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return sorted({net for body in bodies.values() for net in body["nets"]})


def net_by_net(bodies: Mapping[str, Mapping[str, Any]], costs: Mapping[str, Any]) -> str:
    """Return a table for each net: recall, false alarms and cost of each peer."""
    ran = {peer: body for peer, body in bodies.items() if "failed" not in body}
    parts: list[str] = []
    for net in nets_of(ran):
        cost = costs.get(net, {})
        rows = []
        for peer, body in ran.items():
            right, faults, flagged, well, alarms, steps = [*body["nets"].get(net, []), *[0] * 6][:6]
            rows.append(
                [
                    named(peer, body),
                    f"{right} of {faults}" if faults else "–",
                    f"{flagged} of {well}" if well else "–",
                    number(1000 * alarms / steps, 2) if steps else "–",
                    wall(cost, peer),
                ]
            )
        pace = f", a step of {cost['plain_ms']:.1f} ms" if "plain_ms" in cost else ""
        head = ["", "right kind", "well runs flagged", "alarms per 1,000 steps", "time of a step"]
        parts += [f"**{net}**{pace}", table(head, rows)]
    return "\n\n".join(parts)


def cost_of(cost: Mapping[str, Any], peer: str) -> Mapping[str, Any] | None:
    """Return what a peer costs; packages that read a log cost what writing the log does."""
    return cost.get("peers", {}).get(SCALARS if peer in READERS else peer)


def wall(cost: Mapping[str, Any], peer: str) -> str:
    told = cost_of(cost, peer)
    return "–" if told is None or "failed" in told else f"× {told['wall']:.2f}"


def cost_table(costs: Mapping[str, Mapping[str, Any]], readings: Mapping[str, float]) -> str:
    """Return how many times as long a step takes on each net, and what is spent at the ends."""
    peers = list(dict.fromkeys(peer for told in costs.values() for peer in told["peers"]))
    at = peers.index(SCALARS) + 1 if SCALARS in peers else len(peers)
    peers[at:at] = [peer for peer in READERS if peer not in peers]
    head = [
        "time of a step",
        *(f"{net} ({number(told.get('plain_ms'))} ms)" for net, told in costs.items()),
    ]
    rows = []
    for peer in peers:
        cells = [_cost(cost_of(told, peer)) for told in costs.values()]
        ends = [
            float(one["ends"])
            for told in costs.values()
            if (one := cost_of(told, peer)) and "ends" in one
        ]
        spent = readings.get(peer, max(ends, default=0.0))
        rows.append([f"**{peer}**" if peer == OURS else peer, *cells, number(spent, 2)])
    return table([*head, "and once, s"], rows)


def _cost(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "–"
    if "failed" in told:
        return f"failed: {told['failed']}"
    low, high = told["wall_range"]
    return f"× {told['wall']:.2f} ({low:.2f} to {high:.2f}); CPU × {told['cpu']:.2f}"


def remarks(bodies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what there is to be said of single packages below a table."""
    told = []
    for peer, body in bodies.items():
        errors = body.get("errors", {})
        if errors.get("runs"):
            said = "; ".join(f"`{one}`" for one in errors["said"])
            told.append(
                f"{peer} failed on {errors['runs']} runs ({said}); what it had said until then counts."
            )
        if body.get("other"):
            words = ", ".join(f"`{word}`" for word in body["other"])
            told.append(f"{peer} said what counts as an alert, but for no fault: {words}.")
        changed = body.get("changed")
        if changed:
            told.append(
                f"{peer} left the losses of {changed[1] - changed[0]} of {changed[1]} runs as they were"
                + ("; those of the others were changed by its looking on." if changed[0] else ".")
            )
    return told


def shown(name: str, bodies: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a set as it is printed."""
    return "\n".join(["", name, main_table(bodies), "", net_table(bodies), *remarks(bodies)])


def without_rows(bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the result file holds: each run's row would be a megabyte, its counts are enough."""
    return {
        peer: {key: value for key, value in body.items() if key != "rows"}
        for peer, body in bodies.items()
    }


def page(result: Mapping[str, Any]) -> str:
    """Return docs/peers.md for a result."""
    cost: Mapping[str, Any] = result["cost"]
    parts = []
    for name, title in SETS.items():
        bodies = result["sets"].get(name)
        if bodies:
            parts += [f"## {title}", main_table(bodies), *remarks(bodies)]
            if name == "held-out":
                parts += ["### Net by net", net_by_net(bodies, cost.get("held_out", {}))]
            else:
                parts += [PER_NET, net_table(bodies)]
    text = TEMPLATE.read_text(encoding="utf-8")
    text = text.replace("{sets}", "\n\n".join(parts))
    nets = cost.get("nets")
    told = cost_table(nets, cost.get("readings", {})) if nets else "Not measured for this result."
    text = text.replace("{cost}", told)
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return text.replace("{versions}", versions)
