"""The one layout that is served: empty, the same for every run; the scripts in assets/ fill it."""

from __future__ import annotations

import json
from typing import Any

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, html

from ..diagnostics import catalogue
from .delta import QUANTITIES

QUANTITY_NAMES = {
    "gradient": "Gradient",
    "update": "Update",
    "saturated": "Saturated",
    "dead": "Dead",
    "output": "Output",
    "entropy": "Entropy",
    "rank": "Rank",
}
SETTINGS = ("x", "yscale", "smoothing", "quantity", "colour", "strip-scale", "filter", "theme")
"""Ids of the controls whose value the script is told of; `assets/settings.js` knows their names."""


def layout(prefix: str) -> Any:
    """Return the layout; `prefix` is where links lead."""
    return dmc.MantineProvider(
        dmc.AppShell(
            [
                dmc.AppShellHeader(_header(prefix)),
                dmc.AppShellMain(
                    [
                        html.Div(id="notice", role="status"),
                        html.Div(_runs(), id="runs-page", className="page"),
                        html.Div(_run(), id="run-page", className="page"),
                        html.Div(id="dialogs"),
                    ]
                ),
            ],
            header={"height": 52},
            id="shell",
            **_named(
                {
                    "data-prefix": prefix,
                    "data-rules": json.dumps({rule.id: rule.name for rule in catalogue()}),
                }
            ),
        ),
        defaultColorScheme="auto",
        theme={
            "primaryColor": "indigo",
            "primaryShade": {"light": 7, "dark": 5},
            "autoContrast": True,
            "defaultRadius": "md",
        },
    )


def wire(app: Dash) -> None:
    """Let every control tell the script of its value."""
    for setting in SETTINGS:
        app.clientside_callback(
            ClientsideFunction("otoscope", "choose"),
            Input(setting, "id"),
            Input(setting, "value"),
            prevent_initial_call=True,
        )


def _header(prefix: str) -> Any:
    return html.Div(
        [
            html.A("Otoscope", href=prefix, className="brand", id="brand"),
            html.Div(id="crumbs"),
            html.Div(className="space"),
            html.Button(
                "?",
                id="help",
                className="button",
                **_named({"aria-label": "Keys and help", "aria-keyshortcuts": "?"}),
            ),
            _segments("theme", ["Auto", "Light", "Dark"], "auto", "Colours"),
        ],
        className="header",
    )


def _runs() -> list[Any]:
    return [
        html.Div(
            [
                html.H1("Runs"),
                html.Div(className="space"),
                html.Div(id="runs-tools"),
            ],
            className="row",
        ),
        html.Div(id="runs-list"),
    ]


def _run() -> list[Any]:
    return [
        html.Div(
            [
                html.Div(id="run-head"),
                html.Div(className="space"),
                _segments("x", ["Step", "Time", "Samples"], "step", "Horizontal axis"),
                html.Div(id="run-tools"),
            ],
            className="row",
        ),
        html.Nav(id="run-tabs", **_named({"aria-label": "Pages of this run"})),
        html.Div(_first_view(), className="view", id="view-run"),
        html.Div(className="view", id="view-findings"),
        html.Div(className="view", id="view-curvature"),
        html.Div(className="view", id="view-noise"),
    ]


def _first_view() -> list[Any]:
    return [
        html.Div(id="verdict", role="status", **_named({"aria-live": "polite"})),
        html.Div(
            [
                html.Div(
                    [
                        html.Div(id="obstacles"),
                        _card("Training loss", "loss", _loss_controls()),
                        html.Div(id="stats"),
                        html.Div(id="ranks"),
                        _card("Layers", "heatmap", _layer_controls()),
                    ],
                    className="left",
                ),
                html.Div(
                    [html.Div(id="findings"), html.Div(id="judged")],
                    className="right",
                ),
            ],
            className="columns",
        ),
        _card("Layer by layer", "strips", _strip_controls()),
        html.Div(id="others"),
    ]


def _loss_controls() -> list[Any]:
    return [
        _segments("yscale", ["Linear", "Log"], "linear", "Loss axis"),
        dmc.Select(
            id="smoothing",
            data=[
                {"label": "No smoothing", "value": "0"},
                {"label": "Smooth a little", "value": "0.8"},
                {"label": "Smooth", "value": "0.9"},
                {"label": "Smooth a lot", "value": "0.98"},
            ],
            value="0.9",
            allowDeselect=False,
            size="xs",
            w=150,
            **_named({"aria-label": "Smoothing"}),
        ),
    ]


def _layer_controls() -> list[Any]:
    names = [QUANTITY_NAMES[quantity] for quantity in QUANTITIES]
    return [
        _segments("quantity", names, "gradient", "Quantity of the layers"),
        _segments("colour", ["Relative", "Absolute"], "relative", "Colour"),
    ]


def _strip_controls() -> list[Any]:
    return [
        _segments("strip-scale", ["Own scale", "One scale"], "own", "Vertical scale"),
        dmc.TextInput(
            id="filter",
            placeholder="filter layers, e.g. conv[12]",
            size="xs",
            w=210,
            debounce=200,
            **_named(
                {"aria-label": "Filter layers by a regular expression", "aria-keyshortcuts": "/"}
            ),
        ),
    ]


def _segments(name: str, labels: list[str], value: str, label: str) -> Any:
    return dmc.SegmentedControl(
        id=name,
        data=[{"label": text, "value": text.split()[0].lower()} for text in labels],
        value=value,
        size="xs",
        **_named({"aria-label": label}),
    )


def _named(attributes: dict[str, str]) -> dict[str, Any]:
    """Return attributes with a dash in their names, which keywords cannot have."""
    return dict(attributes)


def _card(title: str, name: str, controls: list[Any]) -> Any:
    return html.Section(
        [
            html.Div(
                [
                    html.H2(title, id=f"{name}-title"),
                    html.Div(id=f"{name}-note", className="dim"),
                    html.Div(className="space"),
                    html.Div(controls, className="controls"),
                    html.Div(id=f"{name}-tools"),
                ],
                className="row",
            ),
            html.Div(id=name),
        ],
        className="card",
        id=f"{name}-card",
        **_named({"aria-labelledby": f"{name}-title"}),
    )
