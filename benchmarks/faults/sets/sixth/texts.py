"""Letters, code and syntax of the sixth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import ast
import dis
import math
import types
from collections.abc import Callable, Iterator
from datetime import date, timedelta

import torch
from torch import Tensor

from ...._data import TEXT, Batch
from ..second.data import letters_of

LINE, CODE, READ = 36, 28, 27
"""Letters of a line, steps of a piece of bytecode, letters of a date."""
SOURCES = (
    "_pyio.py", "shutil.py", "logging/__init__.py", "unittest/mock.py", "asyncio/base_events.py",
    "http/client.py", "email/_header_value_parser.py", "urllib/request.py", "xml/dom/minidom.py",
    "threading.py", "fractions.py", "doctest.py", "enum.py", "dataclasses.py", "socket.py", "pdb.py",
    "configparser.py", "bdb.py", "traceback.py", "tempfile.py", "weakref.py", "ftplib.py",
)  # fmt: skip
"""Modules of the standard library whose code is read."""


def _apart(x: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (x - x.mean(0)) / x.std(0)


def _inside(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _inside(constant)


def opcodes() -> Batch:
    """Return pieces of the bytecode of the standard library, and the instruction behind each."""
    told: list[int] = []
    for name in SOURCES:
        whole = compile((TEXT / name).read_text(encoding="utf-8"), name, "exec")
        for code in _inside(whole):
            told += [step.opcode for step in dis.get_instructions(code)]
    codes = torch.tensor(told).unique(return_inverse=True)[1].clamp_max(127)
    rows = codes[: len(codes) // (CODE + 1) * (CODE + 1)].view(-1, CODE + 1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(5))[:4000]]
    return rows[:, :-1], rows[:, 1:]


def blanks() -> Batch:
    """Return lines of sources with a blank, 96, for each of five letters, and these letters."""
    chance = torch.Generator().manual_seed(5)
    codes = torch.cat([letters_of(name) for name in ("configparser.py", "shutil.py", "bdb.py")])
    x = codes[: len(codes) // LINE * LINE].view(-1, LINE)
    blank = torch.rand(x.shape, generator=chance).argsort(1)[:, :5].sort(1)[0]
    return x.scatter(1, blank, 96), x.gather(1, blank)


def dates() -> Batch:
    """Return days as people write them, then as machines do but one letter late, and as machines do."""
    chance, many = torch.Generator().manual_seed(5), 5000
    letters = " ,./-:" + "0123456789" + "abcdefghijklmnopqrstuvwxyz"
    ways = [
        "%d %B %Y",
        "%b %d, %Y",
        "%A %d %B %Y",
        "%m/%d/%Y",
        "%d.%m.%Y",
        "%Y %B %d",
        "%a %d-%b-%Y",
    ]
    days = torch.randint(36500, (many,), generator=chance).tolist()
    kinds = torch.randint(len(ways), (many,), generator=chance).tolist()
    rows = []
    for after, kind in zip(days, kinds, strict=True):
        day = date(1930, 1, 1) + timedelta(after)
        told = day.strftime(ways[kind]).lower().ljust(READ)[:READ] + day.isoformat()
        rows.append([letters.index(letter) for letter in told])
    told = torch.tensor(rows)
    begin = torch.full((many, 1), len(letters))
    return torch.cat((told[:, :READ], begin, told[:, READ:-1]), 1), told[:, READ:]


def functions() -> Batch:
    """Return what functions of the standard library are made of, 20 columns, and how long their bytecode is."""
    kinds = (
        ast.Call, ast.Assign, ast.If, ast.For, ast.While, ast.Return, ast.Raise, ast.Try, ast.With,
        ast.Compare, ast.BoolOp, ast.BinOp, ast.Subscript, ast.arg, ast.keyword, ast.AugAssign,
        ast.Yield, ast.Tuple,
    )  # fmt: skip
    x, y = [], []
    for name in SOURCES:
        source = (TEXT / name).read_text(encoding="utf-8")
        whole = compile(source, name, "exec")
        long = {(c.co_name, c.co_firstlineno): len(c.co_code) for c in _inside(whole)}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                inner = [type(part) for part in ast.walk(node)]
                told = [math.log1p(inner.count(kind)) for kind in kinds]
                if (node.name, first) in long:
                    x.append([*told, math.log(len(node.name)), node.col_offset / 4])
                    y.append([math.log(long[node.name, first])])
    return _apart(torch.tensor(x)), _apart(torch.tensor(y))


def syntax() -> Batch:
    """Return expressions of sources as graphs of up to 12 parts: links, then kinds, the root's left out; that kind."""
    kinds = (ast.Call, ast.Attribute, ast.Subscript, ast.BinOp, ast.Compare, ast.Tuple, ast.Name,
             ast.Constant, ast.List, ast.Dict, ast.keyword, ast.UnaryOp, ast.BoolOp, ast.Slice)  # fmt: skip
    rows: list[tuple[Tensor, int]] = []
    counts = [0] * 6
    for name in SOURCES:
        for root in ast.walk(ast.parse((TEXT / name).read_text(encoding="utf-8"))):
            kind = kinds.index(type(root)) if type(root) in kinds[:6] else 6
            if kind == 6 or counts[kind] == 1500:
                continue
            nodes, x = [root], torch.zeros(12, 28)
            for place, node in enumerate(nodes):
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, (ast.expr, ast.keyword)) and len(nodes) < 12:
                        x[place, len(nodes)] = x[len(nodes), place] = 1
                        nodes.append(child)
            for place, node in enumerate(nodes):
                told = (
                    0 if place == 0 else 1 + kinds.index(type(node)) if type(node) in kinds else 15
                )
                x[place, 12 + told] = 1
            if len(nodes) > 3:
                counts[kind] += 1
                rows.append((x, kind))
    return torch.stack([x for x, _ in rows]), torch.tensor([kind for _, kind in rows])


DATA: dict[str, Callable[..., Batch]] = {
    "opcodes": opcodes,
    "blanks": blanks,
    "dates": dates,
    "functions": functions,
    "syntax": syntax,
}
