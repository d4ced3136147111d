"""Fetching: the seconds that a Lightning fit waits in its loader, and in nothing else between two steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

HOOKS = ("on_run_start", "_on_before_fetch", "_on_after_fetch")
"""What the loop over batches calls as an epoch begins, which may start the loader's processes, before
it takes a batch out of the loader, and behind that; in Lightning 2.5 and 2.6."""


class Fetching:
    """Adds up what a fit waits for its batches.

    Between two steps the user's loggers and callbacks run too, and a batch moves to its device, behind
    what the device still computes: none of that is the loader's. So Lightning's own calls around the
    loader's `__next__`, those of its profiler, are listened to: 0.3 µs a batch.

    `seconds`: waited since it was last set to 0. `hears`: whether those calls are made here; where
    they are not, the time between two batches is all there is to tell.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.hears = False
        self._loop: Any = None
        self._theirs: dict[str, Any] = {}

    def begin(self, loop: Any) -> None:
        """Listen to a loop over batches, `trainer.fit_loop.epoch_loop`."""
        self.close()
        run, before, after = (getattr(loop, name, None) for name in HOOKS)
        if callable(run) and callable(before) and callable(after):
            self._loop = loop
            self._theirs = {name: vars(loop)[name] for name in HOOKS if name in vars(loop)}
            for name, hook in zip(HOOKS, self._around(run, before, after), strict=True):
                setattr(loop, name, hook)

    def _around(
        self, run: Callable[..., Any], before: Callable[[], Any], after: Callable[[], Any]
    ) -> tuple[Callable[..., Any], Callable[[], None], Callable[[], None]]:
        """Return the loop's own calls with a clock around them; the clock alone is ours, and cannot fail."""
        clock, begun = time.perf_counter, 0.0

        def running(*args: Any, **kwargs: Any) -> Any:
            start = clock()
            try:
                return run(*args, **kwargs)
            finally:  # it may fetch ahead, which is within; what came before is no step's of this epoch
                self.seconds = clock() - start

        def fetching() -> None:
            nonlocal begun
            before()
            begun = clock()

        def fetched() -> None:
            self.seconds += clock() - begun
            self.hears = True
            after()

        return running, fetching, fetched

    def close(self) -> None:
        """Leave the loop as it was."""
        loop, self._loop = self._loop, None
        self.seconds, self.hears = 0.0, False
        if loop is not None:
            for name in HOOKS:
                vars(loop).pop(name, None)
            vars(loop).update(self._theirs)
