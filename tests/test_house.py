"""The house: who may import whom, where keys are written, what the repository must not hold."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("store", "callbacks", "diagnostics", "dashboard", "cli")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a copy of the packages; the copy goes before the installed one."""
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    config = ["--config", str(house / "pyproject.toml"), "--no-cache"]
    return subprocess.run(
        [sys.executable, "-c", program, str(house), *config],
        cwd=house,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the five folders, laid out as the namespace package `otoscope`."""
    copy = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__", "*.js", "*.css")
        shutil.copytree(ROOT / folder, copy / "otoscope" / folder, ignore=ignored)
    return copy


def test_the_table_of_imports_holds(house):
    result = lint_imports(house)

    assert result.returncode == 0, result.stdout + result.stderr


PLANTED = [
    ("store", "from ..diagnostics import judge"),
    ("store", "import torch"),
    ("store", "import click"),
    ("diagnostics", "from ..callbacks import attach"),
    ("diagnostics", "import redis"),
    ("callbacks", "from ..dashboard import create_app"),
    ("callbacks", "import dash"),
    ("dashboard", "from ..cli import main"),
    ("dashboard", "import torch"),
    ("cli", "import plotly"),
    ("cli", "import pytorch_lightning"),
]


def test_a_planted_import_turns_it_red_and_is_named(house):
    files = [
        house / "otoscope" / folder / f"planted_{i}.py" for i, (folder, _) in enumerate(PLANTED)
    ]
    for file, (_, statement) in zip(files, PLANTED, strict=True):
        file.write_text(f'"""Planted."""\n{statement}\n')
    try:
        result = lint_imports(house)
    finally:
        for file in files:
            file.unlink()

    assert result.returncode == 1, result.stdout + result.stderr
    for file, (folder, statement) in zip(files, PLANTED, strict=True):
        assert f"otoscope.{folder}.{file.stem} ->" in result.stdout, statement


def test_redis_keys_are_written_in_one_file_only():
    elsewhere = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        if path != ROOT / "store" / "keys.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        if isinstance(node.value, str) and "otoscope:" in node.value
    ]

    assert elsewhere == []


def test_every_package_is_named_in_pyproject():
    text = (ROOT / "pyproject.toml").read_text()
    packages = {
        "otoscope." + ".".join(path.parent.relative_to(ROOT).parts)
        for path in SOURCES
        if path.name == "__init__.py"
    }

    assert {name for name in packages if f'"{name}"' not in text} == set()


def test_imports_between_folders_are_relative():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
        for name in imported(node)
        if name.split(".")[0] == "otoscope"
    ]

    assert found == []


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the modules that a statement imports."""
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def test_no_except_is_bare():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]

    assert found == []


def test_every_file_that_is_no_python_ships_too():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    missing = []
    for folder in FOLDERS:
        patterns = declared["package-data"][f"otoscope.{folder}"]
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
                name = path.relative_to(ROOT / folder)
                if not any(name.match(pattern) for pattern in patterns):
                    missing.append(f"{folder}/{name}")

    assert missing == []
