"""The cursor: what was encoded comes back, and nothing else is taken for one."""

import base64
import json

import pytest
from otoscope.dashboard.cursor import Cursor


def encoded(body: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")


def test_a_cursor_comes_back_as_it_was():
    cursor = Cursor(
        "abc",
        "1700000000000-3",
        {"train": 900, "gradients": 890},
        {"train": "c"},
        "d1",
        "abcdef012345",
    )

    assert Cursor.decode(cursor.encode()) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "%00",
        "é",
        "a" * 100_000,
        encoded({}),
        encoded([]),
        encoded(["a", "1-0", {"train": -1}, {}, "", ""]),
        encoded(["a", "1-0", {"train": 1.5}, {}, "", ""]),
        encoded(["a", "1-0", {"train": True}, {}, "", ""]),
        encoded(["a", "1-0", {"train": 2**60}, {}, "", ""]),
        encoded(["a", "+", {}, {}, "", ""]),
        encoded(["a", "1-0-0", {}, {}, "", ""]),
        encoded([1, "1-0", {}, {}, "", ""]),
        encoded(["a", "1-0", {}, {"train": 1}, "", ""]),
        encoded(["a", "1-0", {}, [], "", ""]),
        encoded(["a", "1-0", {}, {}, "", 7]),
        encoded(["a", "1-0", {}, {}, ""]),
        base64.urlsafe_b64encode(b"[" * 2000).decode(),
    ],
)
def test_anything_else_is_no_cursor(text):
    assert Cursor.decode(text) is None
