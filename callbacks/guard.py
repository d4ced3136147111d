"""The guard at the border: no error of ours reaches the user's run.

`Guard` stands where the training calls us and reports at once; `HookGuard` stands in the hooks that torch
calls inside a forward or backward pass, and keeps what went wrong for the sample of that step. There is
no other `except Exception` on the training's path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType

log = logging.getLogger("otoscope")

LIMIT = 3
"""Failures after which a kind is reported as hopeless, so that its probe is switched off."""


class Guard:
    """Swallows and counts the errors of our own code, by kind; logs each kind once.

    With `strict` they are raised again, for tests. KeyboardInterrupt and SystemExit are the
    user's own and always pass. `on_failure(kind, error, count)` is told of every failure.

    >>> guard = Guard()
    >>> logging.getLogger("otoscope").disabled = True
    >>> with guard("arithmetic"):
    ...     _ = 1 / 0
    >>> guard.failures
    {'arithmetic': 1}
    """

    def __init__(
        self,
        strict: bool = False,
        on_failure: Callable[[str, Exception, int], None] | None = None,
    ) -> None:
        self.strict = strict
        self.failures: dict[str, int] = {}
        self.on_failure = on_failure
        self._borders: dict[str, Border] = {}

    def __call__(self, kind: str) -> Border:
        # one object a kind, made once: a generator-based context manager costs 1 µs more
        border = self._borders.get(kind)
        if border is None:
            border = self._borders[kind] = Border(self, kind)
        return border

    def failed(self, kind: str, error: Exception) -> None:
        """Count a failure of a kind, and log its first."""
        count = self.failures[kind] = self.failures.get(kind, 0) + 1
        if count == 1:
            log.warning(
                "%s failed and was skipped; training goes on: %s: %s",
                kind,
                type(error).__name__,
                error,
                exc_info=log.isEnabledFor(logging.DEBUG),
            )
        if self.on_failure is not None:
            with HookGuard(
                lambda broken: log.debug("nobody was told that %s failed: %r", kind, broken)
            ):
                self.on_failure(kind, error, count)


class _Ends:
    """Ends an error of a `with` block, as far as `caught` says so; it holds no state and may be nested."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        return self.caught(error)

    def caught(self, error: Exception) -> bool:
        """Take an error of ours; returns whether it ends here."""
        raise NotImplementedError


class Border(_Ends):
    """What `with guard(kind):` enters."""

    __slots__ = ("guard", "kind")

    def __init__(self, guard: Guard, kind: str) -> None:
        self.guard = guard
        self.kind = kind

    def caught(self, error: Exception) -> bool:
        self.guard.failed(self.kind, error)
        return not self.guard.strict


class HookGuard(_Ends):
    """Ends an error of ours inside a hook of torch: `failed` is handed it, and the pass goes on.

    Nothing is logged or counted there: whoever samples the step raises the error again, under the
    `Guard` of its probe. 0.1 µs a pass through it.

    >>> errors = []
    >>> with HookGuard(errors.append):
    ...     _ = 1 / 0
    >>> errors
    [ZeroDivisionError('division by zero')]
    """

    __slots__ = ("failed",)

    def __init__(self, failed: Callable[[Exception], None]) -> None:
        self.failed = failed

    def caught(self, error: Exception) -> bool:
        self.failed(error)
        return True
