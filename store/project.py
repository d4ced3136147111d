"""The project's own file, otoscope.toml: numbers of rules that hold for every run below its folder."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .plain import Json

NAME = "otoscope.toml"
VARIABLE = "OTOSCOPE_CONFIG"


def find_project(folder: Path | None = None) -> Path | None:
    """Return the project's file: `$OTOSCOPE_CONFIG`, else the nearest upwards of a folder.

    Args:
        folder: where to begin; None takes the working directory.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    folder = (folder or Path.cwd()).absolute()
    return next((p for f in (folder, *folder.parents) if os.path.lexists(p := f / NAME)), None)


def read_project(path: Path) -> dict[str, Json]:
    """Return the numbers of a project's file as `{"<rule>.<number>": value}`, as they stand there.

    Whether there is such a rule, and whether the value may be, is known to those who judge.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or holds something else than rules.
    """
    try:
        # an editor of Windows may begin it with a byte order mark
        body = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); see ${VARIABLE}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, a number of 5,000 digits, [[[[…
        raise ConfigError(f"{path} is no TOML: {error}") from error
    found: dict[str, Json] = {}
    for name, rules in body.items():
        if name != "rules" or not isinstance(rules, dict):
            raise ConfigError(
                f"{path}: unknown {name!r}; numbers stand in tables by their rule, as "
                "[rules.plateau] with fire = 0.02"
            )
        for rule, numbers in rules.items():
            if not isinstance(numbers, dict):
                raise ConfigError(
                    f"{path}: rules.{rule} must be a table of numbers, got {numbers!r:.60}"
                )
            for number, value in numbers.items():
                found[f"{rule}.{number}"] = _plain(path, f"{rule}.{number}", value)
    return found


def _plain(path: Path, key: str, value: Any) -> Json:
    if isinstance(value, (bool, int, float, str)):
        return value
    raise ConfigError(f"{path}: {key} must be a number or a word, got {value!r:.60}")
