"""Docstrings: every public name has one, and every example in one runs."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
from otoscope.store import Home

PACKAGES = ("store", "callbacks", "diagnostics", "dashboard", "cli")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def module_names() -> list[str]:
    """Return every module of the five packages.

    `--doctest-modules` cannot: it imports by path, and a namespace has no file to be relative to.
    """
    names: list[str] = []
    for package in PACKAGES:
        module = importlib.import_module(f"otoscope.{package}")
        names.append(module.__name__)
        found = pkgutil.walk_packages(module.__path__, module.__name__ + ".")
        names += [item.name for item in found if not item.name.endswith("__main__")]
    return names


MODULES = module_names()


@pytest.mark.parametrize("name", MODULES)
def test_every_example_in_a_docstring_runs(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)

    assert results.failed == 0


def test_examples_were_found_at_all():
    finder = doctest.DocTestFinder()
    examples = sum(
        len(test.examples)
        for name in MODULES
        for test in finder.find(importlib.import_module(name))
    )

    assert examples > 20


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_about(name):
    assert (importlib.import_module(name).__doc__ or "").strip()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package):
    module = importlib.import_module(f"otoscope.{package}")
    # A home's methods are described once, in the protocol.
    described = {name for base in inspect.getmro(Home) for name in vars(base)}
    silent: list[str] = []
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        text = (value.__doc__ or "").strip()
        if not text or text.startswith(f"{name}("):  # what a dataclass writes of itself
            silent.append(name)
        for method, body in vars(value).items() if inspect.isclass(value) else ():
            public = not method.startswith("_") and method not in described
            if public and inspect.isfunction(body) and not inspect.getdoc(getattr(value, method)):
                silent.append(f"{name}.{method}")

    assert silent == []
