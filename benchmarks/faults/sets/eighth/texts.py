"""Data of letters, code and syntax of the eighth set that was held out: looked at, and tuned on since."""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...._data import TEXT, Batch

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


def _codes(text: str) -> Tensor:
    """Return the numbers of letters; what stands not among them is left out."""
    codes = [LETTERS.find("0" if letter.isdigit() else letter) for letter in text]
    return torch.tensor([code for code in codes if code >= 0])


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
    kept = _codes(text)
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
    often = {w: n for n, (w, _) in enumerate(Counter(told).most_common(599))}
    codes = torch.tensor([often.get(word, 599) for word in told])
    rows = codes.unfold(0, 7, 1)
    rows = rows[rows[:, 3] != 599]
    chance = _chance()
    rows = rows[torch.randperm(len(rows), generator=chance)[:60000]]
    around = rows[:, [0, 1, 2, 4, 5, 6]]
    y = torch.randint(2, (len(rows),), generator=chance)
    drawn = rows[torch.randperm(len(rows), generator=chance), 3]
    seldom = torch.rand(len(rows), generator=chance) < 0.8
    drawn = torch.where(seldom, torch.randint(599, (len(rows),), generator=chance), drawn)
    middle = torch.where(y == 1, rows[:, 3], drawn)
    return torch.cat((around, middle[:, None]), 1), y


def _parts(source: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the remarks, the docstrings, the other texts and the lines of code without any of a source."""
    remarks: list[str] = []
    docs: list[str] = []
    texts: list[str] = []
    fresh, taken = True, set[int]()
    for part in tokenize.generate_tokens(io.StringIO(source).readline):
        if part.type in (tokenize.COMMENT, tokenize.STRING):
            taken.update(range(part.start[0], part.end[0] + 1))
        if part.type == tokenize.COMMENT:
            remarks.append(part.string.lstrip("#:! "))
        elif part.type == tokenize.STRING:
            (docs if fresh else texts).append(part.string.strip("rbfuRBFU").strip("\"'"))
        if part.type not in (tokenize.COMMENT, tokenize.NL):
            fresh = part.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = enumerate(source.splitlines(), 1)
    return remarks, docs, texts, [line for number, line in lines if number not in taken]


def scraps() -> Batch:
    """Return scraps of 28 letters of sources, and whether each is of a remark, a docstring, another text, or code."""
    texts: list[list[str]] = [[], [], [], []]
    for source in _sources():
        for kind, parts in enumerate(_parts(source)):
            texts[kind] += parts
    chance, x, y = _chance(), [], []
    for kind, parts in enumerate(texts):
        codes = _codes(" ".join(" ".join(parts).lower().split()))
        rows = codes[: len(codes) // 28 * 28].view(-1, 28)
        x.append(rows[torch.randperm(len(rows), generator=chance)[:1500]])
        y.append(torch.full((len(x[-1]),), kind))
    return torch.cat(x), torch.cat(y)


DATA: dict[str, Callable[..., Batch]] = {
    "docstrings": docstrings,
    "brackets": brackets,
    "company": company,
    "scraps": scraps,
}
