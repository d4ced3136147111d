"""Data of letters, code and syntax that were held out seventh; since looked at, and tuned on."""

from __future__ import annotations

import io
import keyword
import math
import tokenize
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...._data import TEXT, Batch

LINE, WORDS, TELLING = 30, 20, {"LETTER", "SIGN", "DIGIT", "SYMBOL", "MARK", "SMALL", "CAPITAL"}
"""Letters of a line, words of a tagged line, and words that say at once what a character is."""
SOURCES = (
    "ast.py", "calendar.py", "cgi.py", "codecs.py", "cmd.py", "copy.py", "csv.py", "datetime.py", "difflib.py",
    "dis.py", "filecmp.py", "getopt.py", "gettext.py", "glob.py", "gzip.py", "heapq.py", "imaplib.py",
    "locale.py", "mailbox.py", "nntplib.py", "optparse.py", "pathlib.py", "pickle.py", "platform.py",
    "plistlib.py", "poplib.py", "posixpath.py", "pprint.py", "random.py", "sched.py", "selectors.py",
    "shelve.py", "smtplib.py", "ssl.py", "statistics.py", "string.py", "tarfile.py", "telnetlib.py",
    "textwrap.py", "timeit.py", "tokenize.py", "trace.py", "turtle.py", "uuid.py", "webbrowser.py",
    "zipfile.py",
)  # fmt: skip
"""Modules of the standard library that are read, those that this Python has."""


def _sources() -> Iterator[str]:
    for name in SOURCES:
        if (TEXT / name).exists():
            yield (TEXT / name).read_text(encoding="utf-8")


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(6)


def _apart(x: Tensor) -> Tensor:
    """Return columns of mean 0 and deviation 1."""
    return (x - x.mean(0)) / x.std(0).clamp_min(1e-6)


def _names() -> Iterator[tuple[str, str]]:
    """Yield the names of characters below 0x1FB00 that are not numbered, and their kinds."""
    for code in range(0x20, 0x1FB00):
        name = unicodedata.name(chr(code), "")
        odd = (
            "CJK",
            "HANGUL SYLLABLE",
            "VARIATION",
            "TANGUT",
            "KHITAN",
            "NUSHU CHARACTER",
            "HIEROGLYPH",
        )
        if name and not any(part in name for part in odd):
            yield name, unicodedata.category(chr(code))


def charts() -> Batch:
    """Return pieces of the names of characters, one name after the other, and the letter behind each."""
    letters = " -\n" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "0123456789"
    names = [name for name, _ in _names()]
    order = torch.randperm(len(names), generator=_chance())[:5000].tolist()
    told = "\n".join(names[place] for place in order)
    codes = torch.tensor([letters.find(letter) for letter in told if letter in letters])
    rows = codes[: len(codes) // (LINE + 1) * (LINE + 1)].view(-1, LINE + 1)[:3600]
    return rows[:, :-1], rows[:, 1:]


def characters() -> Batch:
    """Return the last five words of a character's name, nine letters each, and which of six kinds it is.

    Words that say at once what it is are left out of the names.
    """
    kinds = {
        "Ll": 0,
        "Lu": 0,
        "Lo": 1,
        "So": 2,
        "Mn": 3,
        "Mc": 3,
        "Nd": 4,
        "Nl": 4,
        "No": 4,
        "Sm": 5,
        "Po": 5,
    }
    names: list[list[str]] = [[] for _ in range(6)]
    for name, kind in _names():
        left = [word for word in name.replace("-", " ").split() if word not in TELLING]
        if kind in kinds and left:
            names[kinds[kind]].append(" ".join(left))
    chance, x, y = _chance(), [], []
    for kind, told in enumerate(names):
        for place in torch.randperm(len(told), generator=chance)[:800].tolist():
            words = told[place].split()[-5:]
            words = [""] * (5 - len(words)) + words
            x.append([[_letter(c) for c in word[:9].ljust(9)] for word in words])
            y.append(kind)
    return torch.tensor(x), torch.tensor(y)


def _letter(letter: str) -> int:
    """Return 0 for a blank, 1 to 26 for letters, 27 for all else."""
    if letter == " ":
        return 0
    return ord(letter) - 64 if "A" <= letter <= "Z" else 27


def _tag(kind: int, word: str, before: str, behind: str) -> int:
    """Return what part a word has: sign, keyword, called, attribute, set, other name, number, text."""
    if kind == tokenize.NUMBER:
        return 6
    if kind == tokenize.STRING:
        return 7
    if kind != tokenize.NAME:
        return 0
    if keyword.iskeyword(word):
        return 1
    if behind == "(":
        return 2
    return 3 if before == "." else 4 if behind in ("=", "+=", "in") else 5


def _shape(kind: int, word: str) -> int:
    """Return one of 16 kinds of words that are rare, by what they are made of."""
    if kind != tokenize.NAME:
        return 14 + (kind == tokenize.STRING)
    cased = 0 if word.islower() else 1 if word.isupper() else 2
    return 4 * cased + 2 * ("_" in word) + (len(word) > 6)


def tagged() -> Batch:
    """Return rows of 20 words of code as numbers, a third of them hidden (0), and what part each has."""
    told: list[tuple[int, str, int]] = []
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for source in _sources():
        read = tokenize.generate_tokens(io.StringIO(source).readline)
        words = [(part.type, part.string) for part in read if part.type not in layout]
        for (_, before), (kind, word), (_, behind) in zip(
            words, words[1:], words[2:], strict=False
        ):
            told.append((kind, word, _tag(kind, word, before, behind)))
    often = {w: n for n, (w, _) in enumerate(Counter(word for _, word, _ in told).most_common(580))}
    codes = torch.tensor([1 + often.get(w, 580 + _shape(kind, w)) for kind, w, _ in told])
    tags = torch.tensor([float(tag) for _, _, tag in told])
    many, chance = len(codes) // WORDS, _chance()
    rows = torch.randperm(many, generator=chance)[:5000]
    x, y = codes[: many * WORDS].view(-1, WORDS)[rows], tags[: many * WORDS].view(-1, WORDS)[rows]
    return x * (torch.rand(x.shape, generator=chance) > 0.33), y


def lines() -> Batch:
    """Return 24 columns about ten lines of a source, and how short they get where they are compressed."""
    kinds: tuple[Callable[[str], bool], ...] = (
        str.islower, str.isupper, str.isdigit, str.isspace, lambda c: c in "\"'", lambda c: c in "()[]{}",
        lambda c: c in ".,:;", lambda c: c in "=+-*/<>", lambda c: c == "_", lambda c: c in "#\\@%",
    )  # fmt: skip
    x, y = [], []
    for source in _sources():
        rows = [line for line in source.splitlines() if line.strip()]
        for first in range(0, len(rows) - 10, 5):
            part = rows[first : first + 10]
            text = "\n".join(part)
            words, many = text.split(), len(text)
            shares = [sum(map(kind, text)) / many for kind in kinds]
            long = [len(line) for line in part]
            deep = [len(line) - len(line.lstrip()) for line in part]
            starts = len({line.split()[0] for line in part})
            told = [math.log(many), len(words) / 50, sum(map(len, words)) / len(words), max(map(len, words)),
                    max(long), min(long), max(deep), min(deep), sum(deep), starts,
                    sum(word in keyword.kwlist for word in words), text.count("self"), text.count("    "),
                    sum(line.endswith(":") for line in part)]  # fmt: skip
            x.append([*shares, *map(float, told)])
            y.append([len(zlib.compress(text.encode(), 9)) / many])
    return _apart(torch.tensor(x)).clamp(-4, 4), _apart(torch.tensor(y))


DATA: dict[str, Callable[..., Batch]] = {
    "charts": charts,
    "characters": characters,
    "tagged": tagged,
    "lines": lines,
}
