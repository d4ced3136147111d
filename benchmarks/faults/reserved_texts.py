"""Data of letters, code and syntax that held-out cases alone train on."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator

import torch

from .._data import TEXT, Batch

SOURCES = (
    "_pydecimal.py", "argparse.py", "ast.py", "asyncio/base_events.py", "asyncio/streams.py",
    "asyncio/unix_events.py", "bdb.py", "calendar.py", "cmd.py", "codecs.py", "collections/__init__.py",
    "configparser.py", "csv.py", "ctypes/__init__.py", "dataclasses.py", "datetime.py", "difflib.py",
    "doctest.py", "email/message.py", "enum.py", "fractions.py", "ftplib.py", "functools.py", "gzip.py",
    "heapq.py", "http/client.py", "http/cookiejar.py", "imaplib.py", "inspect.py", "ipaddress.py",
    "locale.py", "logging/__init__.py", "mailbox.py", "optparse.py", "os.py", "pathlib.py", "pdb.py",
    "pickle.py", "pickletools.py", "platform.py", "pydoc.py", "random.py", "shutil.py", "smtplib.py",
    "socket.py", "ssl.py", "statistics.py", "string.py", "subprocess.py", "tarfile.py", "tempfile.py",
    "threading.py", "tkinter/__init__.py", "traceback.py", "turtle.py", "typing.py", "unittest/case.py",
    "unittest/mock.py", "urllib/parse.py", "urllib/request.py", "uuid.py", "weakref.py", "zipfile.py",
)  # fmt: skip
"""Modules of the standard library that are read, those that this Python has."""
LETTERS = " abcdefghijklmnopqrstuvwxyz.,'\"()`_-=:;*<>[]0"
"""What docstrings are written in: all digits are zeros, all else is left out."""
SIGNS = "()[]{},:."
"""Signs of code that stand for themselves; beside them there are words, other signs and ends of lines."""


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _sources() -> Iterator[str]:
    for name in SOURCES:
        if (TEXT / name).exists():
            yield (TEXT / name).read_text(encoding="utf-8")


def _words(source: str) -> Iterator[tuple[int, str]]:
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
    for part in tokenize.generate_tokens(io.StringIO(source).readline):
        if part.type not in layout:
            yield part.type, part.string


def _told(source: str) -> Iterator[str]:
    """Yield what a module tells of itself, its classes and their methods and functions."""
    open_: list[ast.AST] = [ast.parse(source)]
    while open_:
        part = open_.pop()
        if isinstance(part, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield " ".join((ast.get_docstring(part, clean=False) or "").lower().split())
        if isinstance(part, ast.Module | ast.ClassDef):
            open_ += part.body


def docstrings() -> Batch:
    """Return pieces of 30 letters of the docstrings of the standard library, and the letter behind each letter."""
    text = " ".join(part for source in _sources() for part in _told(source))
    codes = [0 if c.isdigit() else LETTERS.find(c) for c in text]
    codes = [len(LETTERS) - 1 if c.isdigit() else k for c, k in zip(text, codes, strict=True)]
    kept = torch.tensor([code for code in codes if code >= 0])
    rows = kept[: len(kept) // 31 * 31].view(-1, 31)
    rows = rows[torch.randperm(len(rows), generator=_chance())[:4000]]
    return rows[:, :-1], rows[:, 1:]


def brackets() -> Batch:
    """Return rows of 20 signs of code (brackets, commas, words, ends of lines), and the sign behind each."""
    codes: list[int] = []
    for source in _sources():
        for kind, word in _words(source):
            if word in SIGNS and word:
                codes.append(SIGNS.index(word))
            else:
                named = kind in (tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
                codes.append(9 if named else 11 if kind == tokenize.NEWLINE else 10)
    rows = torch.tensor(codes[: len(codes) // 21 * 21]).view(-1, 21)
    rows = rows[torch.randperm(len(rows), generator=_chance())[:5000]]
    return rows[:, :-1], rows[:, 1:]


def company() -> Batch:
    """Return six words of code around a place, and a seventh; whether that one stands there (half) or was drawn."""
    told: list[str] = []
    for source in _sources():
        words = [w for kind, w in _words(source) if kind == tokenize.NAME]
        told += [word for word in words if not keyword.iskeyword(word)]
    often = {w: n for n, (w, _) in enumerate(Counter(told).most_common(999))}
    codes = torch.tensor([often.get(word, 999) for word in told])
    rows = codes.unfold(0, 7, 1)
    rows = rows[rows[:, 3] != 999]
    chance = _chance()
    rows = rows[torch.randperm(len(rows), generator=chance)[:32000]]
    around = rows[:, [0, 1, 2, 4, 5, 6]]
    y = torch.randint(2, (len(rows),), generator=chance)
    drawn = rows[torch.randperm(len(rows), generator=chance), 3]
    middle = torch.where(y == 1, rows[:, 3], drawn)
    return torch.cat((around, middle[:, None]), 1), y


def _kind(value: ast.expr) -> int | None:
    """Return what a value is: a number, a text, a row, a yes or no or nothing, what a call returns, a part of another."""
    if isinstance(value, ast.Constant):
        if value.value is None or isinstance(value.value, bool):
            return 3
        return 1 if isinstance(value.value, str | bytes) else 0
    if isinstance(value, ast.List | ast.Tuple | ast.Dict | ast.Set | ast.ListComp):
        return 2
    if isinstance(value, ast.Call):
        return 4
    return 5 if isinstance(value, ast.Subscript | ast.Attribute) else None


def _spelled(name: str, length: int) -> list[int]:
    """Return the last letters of a name: 0 for none, 1 to 26, 27 for all else."""
    codes = [ord(c) - 96 if "a" <= c <= "z" else 27 for c in name.lower()[-length:]]
    return [0] * (length - len(codes)) + codes


def assigned() -> Batch:
    """Return 12 letters of who assigns and 16 of a name, and which of six kinds of value the name was given."""
    rows: list[list[list[int]]] = [[] for _ in range(6)]
    for source in _sources():
        for owner in ast.walk(ast.parse(source)):
            if not isinstance(owner, ast.FunctionDef | ast.ClassDef):
                continue
            for part in ast.walk(owner):
                if isinstance(part, ast.Assign) and (kind := _kind(part.value)) is not None:
                    target = part.targets[0]
                    name = getattr(target, "attr", None) or getattr(target, "id", "")
                    rows[kind].append(_spelled(owner.name, 12) + _spelled(name, 16))
    chance, x, y = _chance(), [], []
    for kind, told in enumerate(rows):
        for place in torch.randperm(len(told), generator=chance)[:900].tolist():
            x.append(told[place])
            y.append(kind)
    return torch.tensor(x), torch.tensor(y)


DATA: dict[str, Callable[..., Batch]] = {
    "docstrings": docstrings,
    "brackets": brackets,
    "company": company,
    "assigned": assigned,
}
