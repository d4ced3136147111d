"""The tables, and docs/trust.md, which holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .finished import FOLDER
from .training import DEFAULT

RESULT = FOLDER.parent / "results" / "trust.json"
TEMPLATE, PAGE = FOLDER / "_trust.md", FOLDER.parent.parent / "docs" / "trust.md"
HOLDS = 0.5
"""Rank correlation over which the whole interval must lie, for a prediction to hold."""

NAMES = {
    "survives": "survives",
    "calm": "stays calm",
    "goes_on": "one can go on with",
    "edge_at_start": "edge, at the initialization",
    "edge_early": "edge, early at the default rate",
    "batch_early": "batch sharpness, early",
    "advice": "advice in a run at eight times the rate",
    "update_rule": "no curvature: steps of 2 % of the weights",
    "update_early": "no curvature: steps of 2 % of the weights, early",
    "other_nets": "no curvature: median rate of the other nets",
    "adam_speed_up": "SGD's steps over Adam's",
    "newton_speed_up": "gradient steps over Newton steps, all the way",
    "worth": "gradient steps that a Newton step is worth, on the way",
    "worth_start": "gradient steps that a Newton step is worth, at the start",
    "gain_bought": "`newton_gain` / `preconditioned_newton_gain`, Adam's run",
    "gain_both": "`newton_gain` of SGD's run / `preconditioned_newton_gain` of Adam's",
    "gain_sgd": "`newton_gain`, SGD's run",
    "gain_start": "`newton_gain`, at the initialization",
    "full_gain": "Newton gain on all data, on the way",
    "full_gain_start": "Newton gain on all data, at the initialization",
    "step": "one step falls farther",
    "branch": "fewer steps of a branch, both tuned",
    "scaled": "fewer steps of a branch, rate scaled",
    "predicted": "B_noise",
    "predicted_weighted": "tr(HΣ)/GᵀHG, which B_noise simplifies",
}


def number(value: float | str | None) -> str:
    """Return a figure with three digits, or a dash where there is none.

    >>> number(0.12345), number(1234.5), number(None)
    ('0.123', '1,230', '–')
    """
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return "–"  # an infinity is written as a word
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def verdict(low: float | None, high: float | None) -> str:
    """Return what an interval of a rank correlation says.

    >>> verdict(0.6, 0.9), verdict(0.1, 0.8), verdict(-0.4, 0.2)
    ('holds', 'weak', 'fails')
    """
    if low is None or high is None:
        return "not known"
    return "holds" if low > HOLDS else "weak" if low > 0 else "fails"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ranked(row: dict[str, Any], prefix: str = "") -> list[str]:
    rho, low, high = (row[f"{prefix}{name}"] for name in ("rho", "low", "high"))
    return [
        "–" if rho is None else f"{number(rho)} ({number(low)} to {number(high)})",
        "–" if rho is None else verdict(low, high),
    ]


def ratios(row: dict[str, Any]) -> list[str]:
    return [
        number(row["ratio_mean"]),
        f"{number(row['ratio_low'])} to {number(row['ratio_high'])}",
        percent(row["ratio_within_two"]),
        percent(row["ratio_within_two_calibrated"]),
    ]


RATIO_HEAD = ("found / predicted", "90 % of nets", "within 2×", "the same without the bias")
SAFE = "nets for which it does, times 0.9"
RANK_HEAD = ("rank correlation (90 %)", "so it")


def edge_summary(rows: Sequence[dict[str, Any]]) -> str:
    head = ("optimizer", "largest rate that", "predicted by", *RATIO_HEAD, SAFE, *RANK_HEAD)
    return table(
        head,
        [
            [
                row["optimizer"],
                NAMES[row["found"]],
                NAMES[row["predictor"]],
                *ratios(row),
                percent(row["safe"]),
                *ranked(row, "rank_"),
            ]
            for row in rows
        ],
    )


def edge_each(rows: Sequence[dict[str, Any]]) -> str:
    keys = ("survives", "calm", "goes_on", "edge_at_start", "edge_early", "advice", "update_rule")
    head = ("net", "optimizer", *(NAMES[key] for key in keys))
    return table(
        head,
        [[row["net"], row["optimizer"], *(number(row[key]) for key in keys)] for row in rows],
    )


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table of pairs of found and predicted."""
    return table(
        ("found", "predicted by", "of", *RATIO_HEAD, *RANK_HEAD),
        [
            [
                NAMES[row["found"]],
                NAMES[row["predictor"]],
                str(row["rank_count"]),
                *ratios(row),
                *ranked(row, "rank_"),
            ]
            for row in rows
        ],
    )


def each(rows: Sequence[dict[str, Any]], keys: dict[str, str]) -> str:
    return table(
        ("net", *keys.values()),
        [[row["net"], *(number(row[key]) for key in keys)] for row in rows],
    )


GAIN = {
    "adam_speed_up": "SGD's steps over Adam's",
    "gain_bought": "gain / gain left, Adam's run",
    "gain_sgd": "gain, SGD's run",
    "gain_adam": "gain, Adam's run",
    "gain_left": "gain left, Adam's run",
}
NEWTON = {
    "worth_start": "worth at the initialization",
    "full_gain_start": "gain",
    "worth": "worth on the way",
    "full_gain": "gain",
    "newton_speed_up": "gradient steps over Newton steps, all the way",
}


def noise_each(rows: Sequence[dict[str, Any]]) -> str:
    sizes = [one["batch"] for one in rows[0]["each"]] if rows else []
    head = [
        "net",
        "after steps",
        "B_noise (95 %)",
        *(f"B = {size} to {2 * size}" for size in sizes),
    ]
    lines = []
    for row in rows:
        cells = [
            f"{number(one['predicted'])}: {number(one['step'])}, {number(one['branch'])}"
            for one in row["each"]
        ]
        scale = number(row["noise_scale"])
        if row["noise_scale"] is not None:
            scale += f" ({number(row['low'])} to {number(row['high'])})"
        lines.append([row["net"], str(row["steps"]), scale, *cells])
    return table(head, lines)


TABLES: dict[str, tuple[str, str, Callable[[Sequence[dict[str, Any]]], str]]] = {
    "edge_summary": ("edge", "summary", edge_summary),
    "edge_each": ("edge", "each", edge_each),
    "gain_summary": ("gain", "summary", summary),
    "gain_each": ("gain", "each", lambda rows: each(rows, GAIN)),
    "newton_summary": ("newton", "summary", summary),
    "newton_each": ("newton", "each", lambda rows: each(rows, NEWTON)),
    "noise_summary": ("noise", "summary", summary),
    "noise_each": ("noise", "each", noise_each),
}


def tables(result: dict[str, Any]) -> dict[str, str]:
    """Return the tables of what was measured, by name."""
    return {
        name: made(result[experiment][part])
        for name, (experiment, part, made) in TABLES.items()
        if experiment in result
    }


def figures(result: dict[str, Any]) -> dict[str, str]:
    """Return ratio, rank correlation and verdict of every row of the summaries, as three cells."""
    told = {}
    for name, part in result.items():
        for row in part["summary"]:
            mean, among, *_ = ratios(row)
            key = "_".join((name, row.get("optimizer", name), row["found"], row["predictor"]))
            told[key] = " | ".join([f"{mean} ({among})", *ranked(row, "rank_")])
    return told


def page(result: dict[str, Any]) -> str:
    """Return docs/trust.md with the tables of a result."""
    words = {
        "nets": str(len({row["net"] for name in result for row in result[name]["each"]})),
        "defaults": ", ".join(f"{kind} {lr:g}" for kind, lr in DEFAULT.items()),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    return text.format(**tables(result), **figures(result), **words)
