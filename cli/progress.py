"""A progress bar: on a terminal, and nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)


def bars(*, in_bytes: bool = False) -> Progress:
    """Return rich's bars on stderr; silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn() if in_bytes else MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )


@contextmanager
def progress_bar(label: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, of) that moves a bar."""
    with bars(in_bytes=in_bytes) as progress:
        task = progress.add_task(label, total=None)

        def move(done: int, of: int) -> None:
            progress.update(task, completed=done, total=of)

        yield move
