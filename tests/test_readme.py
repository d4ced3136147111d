"""The README: what it tells a newcomer to type exists and parses."""

import ast
import re
import textwrap
from pathlib import Path

import click
import pytest
from otoscope.cli.main import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def indented_blocks() -> list[str]:
    """Return the blocks of code, without their indent."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, flags=re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") for block in found]


PYTHON = [block for block in indented_blocks() if "import" in block]


def test_the_blocks_of_python_parse():
    assert len(PYTHON) >= 2
    for block in PYTHON:
        ast.parse(block)


def test_every_command_and_option_exists():
    typed = re.findall(r"(?:^    |`|, )otoscope ([a-z]+)([^`#\n]*)", README, flags=re.MULTILINE)

    assert len(typed) >= 8
    for name, rest in typed:
        assert name in cli.commands, name
        options = {word for p in cli.commands[name].params for word in p.opts}
        if isinstance(cli.commands[name], click.Command):
            used = set(re.findall(r"(?<!\S)--?[a-z-]+", rest))
            assert used <= options | {"--help"}, (name, used - options)


def test_every_command_is_named():
    assert {name for name in cli.commands if f"otoscope {name}" not in README} == set()


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))

    assert set(re.findall(r"make ([a-z]+)", README.replace("make it", ""))) <= targets


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md"])
def test_every_link_into_the_repository_leads_somewhere(file):
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / file).read_text())

    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_extras_are_those_of_pyproject():
    pyproject = (ROOT / "pyproject.toml").read_text()

    for extra in set(re.findall(r"otoscope\[([a-z]+)\]", README)):
        assert re.search(rf"^{extra} = \[", pyproject, flags=re.MULTILINE), extra
