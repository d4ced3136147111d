"""Own rules: those that a reader wrote, loaded from files and modules and checked before they judge.

A rule is a module with a docstring, `FAMILY`, `judge(window, context) -> Verdict` and, where the
defaults do not fit, `NUMBERS`; `remember(window, context) -> dict` where it needs more of the past
than a window holds. They are named in `$OTOSCOPE_RULES` (files, folders or modules,
separated as in PATH) or by installed packages in the entry point group "otoscope.rules".
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import logging
import math
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args

import numpy as np

from ..store import ConfigError, Evidence, Recommendation
from ..store.schemas import Json, Severity, dumps, plain
from .rule import Case, Context, Judge, Remember, Rule, Verdict, unknown
from .rules import RULES
from .thresholds import SHARED
from .windows import KEPT_STEPS, Window

VARIABLE = "OTOSCOPE_RULES"
GROUP = "otoscope.rules"

DEFAULTS: dict[str, Any] = {
    "severity": "warning",
    "warm_up": 0,
    "window": 10,
    "span": 400,
    "k": 2,
    "n": 3,
    "fire": 1.0,
    "clear": 0.9,
    "cool_down": 100,
    "min_samples": 1,
    "cadence": 10,
}
"""What `NUMBERS` of an own rule need not say; `severity` and the rest as in rules.toml."""

MEMORY_CHARACTERS = 20_000
"""Length of what a rule may remember, as JSON: some numbers of each of 200 layers."""

FAILED = "(failed)"
"""Under this name the memory of a rule holds why its `remember` failed last."""

_ID = re.compile(r"[a-z][a-z0-9_]*\Z")

log = logging.getLogger("otoscope")


def active_rules() -> tuple[Rule, ...]:
    """Return the rules of the catalogue, then the reader's own; see `load_rules` for what it raises.

    The own ones are read once for each value of `$OTOSCOPE_RULES`.
    """
    named = [word for word in os.environ.get(VARIABLE, "").split(os.pathsep) if word.strip()]
    return (*RULES, *_loaded(tuple(named), Path.cwd()))


@cache
def _loaded(named: tuple[str, ...], folder: Path) -> tuple[Rule, ...]:
    return load_rules([*named, *_of_packages()])


def _of_packages() -> list[tuple[str, ModuleType]]:
    found: list[tuple[str, ModuleType]] = []
    for point in metadata.entry_points(group=GROUP):
        try:
            module = point.load()
        except (
            Exception,
            SystemExit,
        ) as error:  # a package that is broken; nobody here asked for it
            log.warning("rule %s of %s is left out: %r", point.name, point.value, error)
            continue
        if isinstance(module, ModuleType):
            found.append((point.name, module))
        else:
            log.warning("rule %s is left out: %s is no module", point.name, point.value)
    return found


def load_rules(sources: Iterable[str | Path | tuple[str, ModuleType]]) -> tuple[Rule, ...]:
    """Return the rules of files, of all files of a folder, of modules by name, or of modules.

    The id of a rule is the name of its file or module.

    Raises ConfigError, with file and line, where one cannot be used: nothing is found late.
    """
    rules: list[Rule] = []
    for source in sources:
        for name, module in _modules(source):
            rule = rule_of(name, module)
            if any(rule.id == other.id for other in (*RULES, *rules)):
                raise ConfigError(
                    f"rule {rule.id} of {_place(module)} has the name of another rule; "
                    "name its file differently"
                )
            rules.append(rule)
    return tuple(rules)


def _modules(source: str | Path | tuple[str, ModuleType]) -> list[tuple[str, ModuleType]]:
    if isinstance(source, tuple):
        return [source]
    path = Path(source).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.glob("*.py") if not p.name.startswith("_"))
        if not files:
            raise ConfigError(f"no rule in {path}: a rule is a file that ends in .py")
        return [(file.stem, _from_file(file)) for file in files]
    if path.suffix == ".py" or path.is_file():
        return [(path.stem, _from_file(path))]
    name = str(source)
    try:
        return [(name.rpartition(".")[2], importlib.import_module(name))]
    except (Exception, SystemExit) as error:  # somebody else's code runs here
        raise ConfigError(
            f"rules {name}: neither a file, nor a folder, nor a module that can be imported "
            f"({_said(error)})"
        ) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"no such rule file: {path.absolute()}")
    # in a name space of its own: a file `json.py` must not stand in for the library's
    name = f"otoscope_own_rules.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise ConfigError(f"rule file {path} must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # somebody else's code runs here
        sys.modules.pop(name, None)
        line = _line_of(error, path.absolute())
        raise ConfigError(f"rule file {path}, line {line}: {_said(error)}") from error
    return module


def rule_of(name: str, module: ModuleType) -> Rule:
    """Return the rule that a module holds; raises ConfigError where something is missing in it."""
    where = _place(module)
    if not _ID.match(name):
        raise ConfigError(
            f"rule {name!r} of {where}: its name must be lower case letters, digits and "
            "underscores, as a finding will carry it"
        )
    document, family = (module.__doc__ or "").strip(), getattr(module, "FAMILY", None)
    if not document:
        raise ConfigError(f"{where}, line 1: a docstring must say what the rule looks for")
    if not isinstance(family, str) or not family:
        raise ConfigError(
            f'{where}: FAMILY must name the family whose samples it waits for, as "train", '
            f"got {family!r}"
        )
    judge: Any = getattr(module, "judge", None)
    if not callable(judge):
        raise ConfigError(f"{where}: it must define judge(window, context) -> Verdict")
    remember: Any = getattr(module, "remember", None)
    for named, function in (("judge", judge), ("remember", remember)):
        if function is not None:
            _check_signature(named, function, where)
    path = Path(getattr(module, "__file__", None) or "?").absolute()
    return Rule(
        name,
        family,
        _guarded(cast(Judge, judge), path),
        document,
        from_start=bool(getattr(module, "FROM_START", False)),
        remember=None if remember is None else _guarded_memory(cast(Remember, remember), path),
        numbers=_numbers(getattr(module, "NUMBERS", {}), where),
    )


def _check_signature(named: str, function: Any, where: str) -> None:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        line = getattr(getattr(function, "__code__", None), "co_firstlineno", 1)
        raise ConfigError(
            f"{where}, line {line}: {named} must take (window, context): {error}"
        ) from error


def _numbers(given: Any, where: str) -> dict[str, Any]:
    """Return a whole section, as rules.toml has it for each rule."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: NUMBERS must be a dict, got {type(given).__name__}")
    for key, value in given.items():
        kind = DEFAULTS.get(key, 1.0)
        if key == "severity":
            sound = value in get_args(Severity)
        elif isinstance(kind, int):
            sound = type(value) is int and value >= (key in ("window", "k", "n", "cadence", "span"))
        else:
            sound = type(value) in (int, float) and math.isfinite(value)
        if not isinstance(key, str) or not sound:
            needed = {str: f"one of {', '.join(get_args(Severity))}", int: "a whole number >= 0"}
            raise ConfigError(
                f"{where}: NUMBERS[{key!r}] must be {needed.get(type(kind), 'a finite number')}, "
                f"got {value!r}"
            )
    numbers = {**DEFAULTS, **given}
    if numbers["k"] > numbers["n"] or numbers["span"] > KEPT_STEPS:
        raise ConfigError(
            f"{where}: NUMBERS must have k <= n and span <= {KEPT_STEPS}, got k={numbers['k']}, "
            f"n={numbers['n']}, span={numbers['span']}"
        )
    return {**{key: numbers[key] for key in SHARED}, **numbers}


def _guarded(judge: Judge, path: Path) -> Judge:
    """Return a judge that never raises: what went wrong is why the rule is not judged."""

    def guarded(window: Window, context: Context) -> Verdict:
        if FAILED in context.memory:
            return unknown(str(context.memory[FAILED]))
        try:
            return _checked(judge(window, context))
        except (
            Exception,
            SystemExit,
        ) as error:  # somebody else's code runs here; the other rules go on
            return unknown(f"its rule failed in line {_line_of(error, path)}: {_said(error)}")

    return guarded


def _guarded_memory(remember: Remember, path: Path) -> Remember:
    """Return a `remember` that never raises; where it fails, the rule is not judged until it works."""

    def guarded(window: Window, context: Context) -> dict[str, Json]:
        # a copy: what is changed in place would count though it is refused, and be no plain JSON
        kept = plain({name: value for name, value in context.memory.items() if name != FAILED})
        try:
            return _checked_memory(remember(window, replace(context, memory=kept)))
        except (
            Exception,
            SystemExit,
        ) as error:  # somebody else's code runs here; the other rules go on
            why = f"its memory failed in line {_line_of(error, path)}: {_said(error)}"
            return {**plain(context.memory), FAILED: why}

    return guarded


def _checked_memory(memory: Any) -> dict[str, Json]:
    if not isinstance(memory, dict) or not all(isinstance(name, str) for name in memory):
        raise TypeError(f"remember must return a dict with strings as keys, got {memory!r:.80}")
    size = len(json.dumps(memory, default=_of_numpy))  # raises where something in it is no JSON
    if size > MEMORY_CHARACTERS:
        raise ValueError(
            f"what a rule remembers is stored with every commit: at most {MEMORY_CHARACTERS:,} "
            f"characters as JSON, got {size:,}"
        )
    return plain(memory)  # as it is read again: an array cannot be compared with what was kept


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON; return numbers, strings, lists and dicts")


def _checked(verdict: Any) -> Verdict:
    if not isinstance(verdict, Verdict):
        raise TypeError(f"judge must return fine(), unknown() or breach(), got {verdict!r:.80}")
    if verdict.kind != "unknown" and not math.isfinite(verdict.strength):
        raise ValueError(f"the strength of a verdict must be finite, got {verdict.strength}")
    if verdict.kind == "breach":
        case = verdict.case
        if not isinstance(case, Case):
            raise TypeError(f"a breach needs a Case, got {case!r:.80}")
        if case.severity is not None and case.severity not in get_args(Severity):
            raise ValueError(f"a case has no severity {case.severity!r}")
        if not isinstance(case.recommendation, Recommendation) or not all(
            isinstance(item, Evidence) for item in case.because
        ):
            raise TypeError("a case needs a Recommendation, and Evidence in `because`")
        json.loads(dumps(asdict(case)))  # what is no JSON would break the finding off later
    return verdict


def _place(module: ModuleType) -> str:
    return f"rule file {getattr(module, '__file__', None) or module.__name__}"


def _line_of(error: BaseException, path: Path) -> int | str:
    """Return the line of a file that an error comes from, the innermost where several are."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path]
    return (lines[-1] if lines else None) or "?"


def _said(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}"[:300]
