"""Data of letters, words and syntax of the standard library that held-out cases alone train on."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from ...._data import TEXT, Batch

LETTERS = " abcdefghijklmnopqrstuvwxyz.,'\"()_-=:%{}"
"""What complaints are written in: all else is left out."""
FOLDERS = ("", "asyncio", "collections", "concurrent/futures", "email", "http", "importlib", "json", "logging",
           "multiprocessing", "unittest", "urllib", "xml/dom", "xml/etree", "xmlrpc", "zoneinfo")  # fmt: skip
"""Folders of the standard library whose modules are read."""
LONG = 10
"""Letters of a word."""
PARTS = 14
"""Parts of an expression, those nearest to its root."""


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(11)


@cache
def _sources() -> tuple[str, ...]:
    paths = [path for folder in FOLDERS for path in sorted((TEXT / folder).glob("*.py"))]
    return tuple(path.read_text(encoding="utf-8", errors="ignore") for path in paths)


def _remarks() -> Iterator[str]:
    """Yield the lines of sources that are remarks and nothing else, in small letters."""
    for source in _sources():
        for line in source.splitlines():
            if line.lstrip().startswith("#"):
                yield line.lstrip("#:! ").lower()


def _rows(codes: Tensor, length: int, most: int) -> Tensor:
    rows = codes[: len(codes) // length * length].view(-1, length)
    return rows[torch.randperm(len(rows), generator=_chance())[:most]]


def complaints() -> Batch:
    """Return pieces of 24 letters of what the standard library says where it raises, and the letter behind each."""
    said = re.compile(r"""raise [\w.]+\(\s*[fr]?(["'])(.{8,}?)\1\s*(?:["'](.{4,}?)["'])?""")
    told = [part for source in _sources() for found in said.findall(source) for part in found[1:]]
    text = " ".join(" ".join(told).lower().split())
    codes = torch.tensor([LETTERS.find(letter) for letter in text])
    rows = _rows(codes[codes >= 0], 25, 4000)
    return rows[:, :-1], rows[:, 1:]


def unspaced() -> Batch:
    """Return pieces of 32 letters of remarks without their blanks, and behind which letters a blank stood."""
    text = " ".join(_remarks())
    words = re.findall("[a-z]+", text)
    codes = torch.tensor([ord(letter) - 97 for word in words for letter in word])
    ends = torch.zeros(len(codes), dtype=torch.long)
    ends[torch.tensor([len(word) for word in words]).cumsum(0) - 1] = 1
    rows = _rows(torch.stack((codes, ends), 1).flatten(), 64, 5000).unflatten(1, (32, 2))
    return rows[..., 0].contiguous(), rows[..., 1].contiguous()


def _misspelt(word: str, chance: torch.Generator) -> str:
    where, how, letter = (
        int(torch.randint(n, (1,), generator=chance)) for n in (len(word) - 1, 4, 26)
    )
    changes = (
        word[:where] + word[where + 1] + word[where] + word[where + 2 :],
        word[:where] + word[where + 1 :],
        word[:where] + word[where] + word[where:],
        word[:where] + chr(97 + letter) + word[where + 1 :],
    )
    return changes[how]


def _spelt(word: str) -> list[int]:
    return [ord(letter) - 96 for letter in word[:LONG]] + [0] * (LONG - len(word))


def typos() -> Batch:
    """Return two words of ten letters, the second misspelt in three places, and whether it is the first or one that is like it."""
    chance = _chance()
    words = sorted({w for r in _remarks() for w in re.findall("[a-z]+", r) if 5 <= len(w) <= 9})
    x, y = [], []
    for row in torch.randperm(len(words), generator=chance).tolist() * 3:
        same = len(y) % 2
        near = min(row + 1 + int(torch.randint(4, (1,), generator=chance)), len(words) - 1)
        other = words[row] if same else words[near]
        for _ in range(3):
            other = _misspelt(other, chance)
        x.append(_spelt(words[row]) + _spelt(other))
        y.append(same)
    return torch.tensor(x[:12000]), torch.tensor(y[:12000])


KINDS = (
    "Call", "Name", "Load", "Attribute", "Constant", "BinOp", "Compare", "BoolOp", "UnaryOp", "Subscript",
    "Tuple", "List", "Dict", "JoinedStr", "keyword", "IfExp", "Lambda", "ListComp", "GeneratorExp", "Starred",
    "Not", "And", "Or", "Add", "Sub", "Mod", "Eq", "NotEq", "In", "NotIn", "Is", "IsNot", "Slice", "Gt", "Lt",
    "Await", "FormattedValue", "arguments",
)  # fmt: skip
"""Kinds of parts of expressions from 1; a 39 is any other."""


def _tree(root: ast.expr) -> list[tuple[int, int]]:
    """Return the kinds of an expression's parts, the nearest to its root first, and which part each belongs to."""
    parts: list[tuple[ast.AST, int]] = [(root, 0)]
    for own, (part, _) in enumerate(parts):
        inside = [(one, own) for one in ast.iter_child_nodes(part)]
        parts += [(one, own) for one, own in inside if not isinstance(one, ast.Load | ast.Store)]
        if len(parts) >= PARTS:
            break
    names = [type(part).__name__ for part, _ in parts[:PARTS]]
    kinds = [1 + KINDS.index(name) if name in KINDS else 1 + len(KINDS) for name in names]
    told = list(zip(kinds, [above for _, above in parts], strict=False))
    return told + [(0, 0)] * (PARTS - len(told))


def _uses() -> Iterator[tuple[ast.expr, int]]:
    """Yield expressions and what becomes of each: it is set, given back, asked, or done."""
    for part in (part for source in _sources()[::3] for part in ast.walk(ast.parse(source))):
        if isinstance(part, ast.Assign):
            yield part.value, 0
        elif isinstance(part, ast.Return) and part.value is not None:
            yield part.value, 1
        elif isinstance(part, ast.If | ast.While):
            yield part.test, 2
        elif isinstance(part, ast.Expr) and not isinstance(part.value, ast.Constant):
            yield part.value, 3


def statements() -> Batch:
    """Return expressions of sources as trees of 14 parts (kind, part above it), and what becomes of each (four ways)."""
    found: list[list[list[tuple[int, int]]]] = [[], [], [], []]
    for root, use in _uses():
        if sum(1 for _ in ast.walk(root)) >= 5:
            found[use].append(_tree(root))
    x, y = [], []
    for use, trees in enumerate(found):
        rows = torch.randperm(len(trees), generator=_chance())[:1100].tolist()
        x += [trees[row] for row in rows]
        y += [use] * len(rows)
    return torch.tensor(x), torch.tensor(y)


DATA: dict[str, Callable[..., Batch]] = {
    "complaints": complaints,
    "unspaced": unspaced,
    "typos": typos,
    "statements": statements,
}
