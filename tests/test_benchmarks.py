"""`make bench` runs every benchmark by its name: each can be called with no arguments of its own."""

from __future__ import annotations

import importlib
import inspect

import pytest

from benchmarks.__main__ import APART, names


@pytest.mark.parametrize("name", names())
def test_every_benchmark_takes_the_words_behind_its_name(name: str) -> None:
    main = importlib.import_module(f"benchmarks.{name}").main
    (words,) = inspect.signature(main).parameters.values()
    assert words.default is None
    with pytest.raises(SystemExit) as asked:
        main(["--help"])
    assert asked.value.code == 0


def test_what_is_run_apart_is_there() -> None:
    assert set(APART) < set(names())
