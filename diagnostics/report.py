"""The report: one self-contained offline page about a run. No script, no request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ..store import Event, Store
from ..store.findings import hidden_ids
from ..store.schemas import Json
from .charts import Mark, evidence_chart, heatmap, loss_chart
from .evidence import evidence_charts
from .null_rates import outcome_words
from .proposals import value_words
from .report_style import STYLE
from .verdict import cost_share, name_of
from .words import count, number, percent

STATES = {
    "needs_action": ("Needs action", "bad"),
    "healthy": ("Healthy so far", "good"),
    "not_judged": ("Not judged yet", "open"),
}
OVER = {"Healthy so far": "Healthy", "Not judged yet": "Not judged"}
"""The words of a run that is over."""

OBSTACLES = {
    "non_linearity": "Non-linearity",
    "conditioning": "Conditioning",
    "noise": "Noise",
}
MOST_MARKS = 12
MOST_CARDS = 20
"""Findings with their whole argument; of further ones a line each."""
CHART_POINTS = 160


def render_report(store: Store, run: str, run_json: Mapping[str, Json]) -> str:
    """Return a run's report as one HTML page that needs no network and no script.

    Args:
        store: where the run lies.
        run: its id.
        run_json: what `judge` or `summary` returned for it.

    Raises:
        UnknownRunError: there is no such run.
    """
    info = store.run(run)
    # a long run is read at evenly spread samples: whole, 50,000 of 200 layers took 550 MB
    losses = store.read(run, "train", ["loss"], points=800)
    span = (int(losses.steps[0]), int(losses.steps[-1])) if len(losses) else (0, 1)
    marks = _marks(store.events(run), run_json["findings"])
    layers = store.read(run, "gradients", ["grad_rms"], points=400)
    hidden = hidden_ids(run_json["findings"])
    roots = [item for item in run_json["findings"] if item["id"] not in hidden]
    body = [
        _header(info.name, run, info.step, info.max_steps, str(info.status)),
        _banner(run_json),
        *(
            _card(item, run_json["findings"], _figures(store, run, item))
            for item in roots[:MOST_CARDS]
        ),
        _further(roots[MOST_CARDS:]),
        _judged(run_json, store.meta(run).overhead),
        _obstacles(run_json["obstacles"]),
        _section(
            "Training loss", loss_chart(losses.steps, losses.column("loss"), marks, span=span)
        ),
        _section(
            "Layers · gradient size against each layer's own past",
            heatmap(
                layers.steps,
                layers.values,
                [name.partition("/")[2] for name in layers.columns],
                marks,
                span=span,
            )
            + _legend(),
        ),
        "<footer>Made by Otoscope. This page holds everything that it shows.</footer>",
    ]
    title = escape(f"{info.name} · Otoscope")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{''.join(body)}"
        "</main></body></html>\n"
    )


def _header(name: str, run: str, step: int, max_steps: int | None, status: str) -> str:
    of = f" of {max_steps:,}" if max_steps else ""
    return (
        f'<header><h1>{escape(name)}</h1><p class="quiet">{escape(run)} · step {step:,}{of} · '
        f"{escape(status)}</p></header>"
    )


def _banner(run_json: Mapping[str, Json]) -> str:
    word, kind = STATES.get(run_json["state"], STATES["not_judged"])
    verdict = str(run_json["verdict"])
    word = next(
        (known for known in (word, OVER.get(word, word)) if verdict.startswith(known)), word
    )
    rest = verdict.removeprefix(word).lstrip(": ")
    return (
        f'<section class="banner {kind}"><strong>{escape(word)}</strong> '
        f"<span>{escape(rest[:1].upper() + rest[1:])}</span></section>"
    )


def _further(findings: Sequence[Mapping[str, Json]]) -> str:
    """Return what the report has no cards for, a line each."""
    if not findings:
        return ""
    lines = "".join(
        f"<li>{escape(item['severity'])}, steps {item['first_step']:,} to {item['last_step']:,}, "
        f"{escape(item['state'])}: {_words(item['title'])}</li>"
        for item in findings
    )
    return _section(f"{len(findings)} further findings", f'<ul class="quiet">{lines}</ul>')


def _figures(store: Store, run: str, finding: Mapping[str, Json]) -> str:
    """Return the charts behind a finding's evidence."""
    first, last = int(finding["first_step"]), int(finding["last_step"])
    charts = evidence_charts(store, run, finding, points=CHART_POINTS)
    return "".join(f"<figure>{evidence_chart(chart, first, last)}</figure>" for chart in charts)


def _card(finding: Mapping[str, Json], findings: Sequence[Mapping[str, Json]], figures: str) -> str:
    severity, state = str(finding["severity"]), str(finding["state"])
    advice = finding["recommendation"]
    seen = "".join(f"<li>{_words(item['text'])}</li>" for item in finding["because"])
    rows = [("Seen", f"<ul>{seen}</ul>")]
    if advice:
        rows.append(("Set", _advice(advice)))
        rows += [("Or", _advice(other)) for other in advice["alternatives"]]
        rows.append(("And", _together(advice)))
    rows.append(("Why", _words(finding["why"])))
    rows.append(("May be normal", _words(finding["may_be_normal"])))
    if advice:
        rows.append(("Verify", _words(advice["verify"])))
        rows.append(("Risk", _words(advice["risk"])))
    if finding["not_measured"]:
        rows.append(("Not measured", escape(", ".join(finding["not_measured"]))))
    became = outcome_words(dict(finding))
    if became:
        rows.append(("Outcome", f'<span class="outcome">{escape(became)}</span>'))
    effects = [item for item in findings if item["id"] in finding["caused"]]
    if effects:
        chips = "".join(f'<li class="chip">{_words(item["title"])}</li>' for item in effects)
        rows.append(("Caused by it", f'<ul class="chips">{chips}</ul>'))
    table = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows if text)
    since = f"since step {finding['first_step']:,}"
    if state == "resolved":
        how = "closed by hand" if finding.get("closed") else "resolved"
        since = f"{how}, steps {finding['first_step']:,} to {finding['last_step']:,}"
    return (
        f'<section class="card {severity} {state}" id="{escape(finding["id"])}"><p><span class="badge {severity}">'
        f'{escape(severity)}</span> <span class="quiet">{since}</span></p>'
        f"<h2>{_words(finding['title'])}</h2><dl>{table}</dl>{figures}</section>"
    )


def _advice(advice: Mapping[str, Json]) -> str:
    value = value_words(advice["parameter"], advice["proposed"])
    current = advice.get("current")
    was = value_words(advice["parameter"], current) if current is not None else ""
    notes = [f"was {_plain(was)}"] if was else []
    if advice.get("range"):
        low, high = advice["range"]
        notes.append(f"range {number(low)}–{number(high)}")
    notes.append(str(advice.get("basis") or ""))
    parts = [
        f'<code class="set">{escape(advice["parameter"])} = {escape(_plain(value))}</code>',
        f'<span class="quiet">{escape(" · ".join(note for note in notes if note))}</span>',
    ]
    if advice.get("formula"):
        parts.append(f'<span class="quiet">How: {_words(advice["formula"])}</span>')
    if advice.get("snippet"):
        parts.append(f"<pre>{escape(advice['snippet'])}</pre>")
    if advice.get("effect"):
        parts.append(f"<span>{_words(advice['effect'])}</span>")
    return "".join(f"<p>{part}</p>" if not part.startswith("<pre") else part for part in parts)


def _together(advice: Mapping[str, Json]) -> str:
    """Return what belongs together with an advice, a line each."""
    pairs = [(item["parameter"], item["proposed"]) for item in advice["also"]]
    return "".join(
        f"<p><code>{escape(name)} = {escape(_plain(value_words(name, value)))}</code></p>"
        for name, value in pairs
    )


def _plain(text: str) -> str:
    return text.replace("`", "")


def _judged(run_json: Mapping[str, Json], overhead: Mapping[str, Json]) -> str:
    done = ", ".join(name_of(rule) for rule in run_json["judged"]) or "nothing"
    text = f"<p>{count(len(run_json['judged']), 'check')} judged: {escape(done)}.</p>"
    reasons: dict[str, list[str]] = {}
    for rule, why in run_json["not_judged"].items():
        reasons.setdefault(why, []).append(name_of(rule))
    missing = [f"{', '.join(names)} ({why})" for why, names in reasons.items()]
    if missing:
        text += f"<p>Not judged: {escape(' · '.join(missing))}.</p>"
    gaps = [f"{gap['from']:,} to {gap['to']:,}" for gap in run_json.get("missed", [])]
    if gaps:
        text += (
            f"<p>Not judged: steps {escape(', '.join(gaps))}, whose samples were lost or are not "
            "kept any more.</p>"
        )
    share = cost_share(overhead)
    cost = (
        f'<p class="quiet">Otoscope cost {100 * share:.1f} % of this run.</p>'
        if share is not None
        else ""
    )
    return _section("Judged", text + cost)


def _obstacles(obstacles: Mapping[str, Json]) -> str:
    cells = []
    for key, name in OBSTACLES.items():
        item: Mapping[str, Json] = obstacles.get(key) or {}
        words = item.get("sentence") or "not yet measured"
        levers = f" Lowered by {', '.join(item['levers'])}." if item.get("levers") else ""
        trend = (
            f' <span class="quiet">{escape(str(item["trend"]))}</span>' if item.get("trend") else ""
        )
        cells.append(
            f'<div><h3>{name}</h3><p class="big">{escape(_size(key, item))}{trend}</p>'
            f'<p class="quiet">{escape(str(words))}.{escape(levers)}</p></div>'
        )
    return f'<section class="plain"><div class="three">{"".join(cells)}</div></section>'


def _size(key: str, item: Mapping[str, Json]) -> str:
    """Return an obstacle's size with its unit."""
    if not item.get("measured"):
        return "–"
    if key == "noise":
        return f"{percent(float(item['share']))} of a step"
    steps = count(1, "step") if item["value"] == 1 else f"{number(item['value'])} steps"
    return f"{steps} ahead" if key == "non_linearity" else steps


def _legend() -> str:
    return (
        '<p class="legend"><span class="key zm4"></span>far smaller than usual '
        '<span class="key zp0"></span>usual <span class="key zp4"></span>far larger '
        '<span class="key zbad"></span>not a number or not sampled</p>'
    )


def _marks(events: Sequence[Event], findings: Sequence[Mapping[str, Json]]) -> list[Mark]:
    marks = [
        Mark(int(item["first_step"]), name_of(item["rule"]), "finding")
        for item in findings
        if item["severity"] != "info"
    ]
    for event in events:
        if event.kind == "lr":
            to = event.body.get("to")
            marks.append(Mark(event.step, f"lr {number(float(to))}" if to is not None else "lr"))
        elif event.kind in ("exception", "resumed", "action", "gap"):
            marks.append(Mark(event.step, event.kind))
    return sorted(marks[:MOST_MARKS], key=lambda mark: mark.step)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _words(text: Json) -> str:
    """Return text escaped, with `names` in code."""
    parts = escape(str(text or "")).split("`")
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))
