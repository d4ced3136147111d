"""A reader's own rules on the command line: the option `--rules`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _heeded(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Add the rules to those of the environment, which daemon and page of `up` inherit."""
    if value:
        from ..diagnostics.own_rules import VARIABLE

        known = os.environ.get(VARIABLE)
        named = [str(Path(word).absolute()) if Path(word).exists() else word for word in value]
        os.environ[VARIABLE] = os.pathsep.join([*([known] if known else []), *named])
    return value


def rules_option(command: _Command) -> _Command:
    """Add `--rules` to a command; what it names is checked where rules are first asked for."""
    return click.option(
        "--rules",
        "own_rules",
        metavar="FILE",
        multiple=True,
        callback=_heeded,
        expose_value=False,
        help="Judge by a rule of your own too: a file, a folder or a module; may be repeated "
        "[default: $OTOSCOPE_RULES].",
    )(command)
