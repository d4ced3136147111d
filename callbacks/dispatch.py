"""Dispatch: what Lightning spends in a step on calling a callback's hooks, and how it calls fewer."""

from __future__ import annotations

import math
import time
from typing import Any

from .probes.probe import COLD

HOOKS_OF_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
"""Hooks that Lightning calls on every callback in a step, whether it does something there or not."""
NORM_HOOK = "on_before_optimizer_step"
"""The one that measures gradients: it rests in steps that measure none."""
PACKAGES = ("otoscope", "lightning", "pytorch_lightning")


class Dispatch:
    """What Lightning calls of a callback, and about what that costs.

    Args:
        callback: the one whose hooks are called.
    """

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self._may_rest = False
        self._call_seconds = 0.0
        call_all(callback)

    def begin(self, trainer: Any) -> None:
        """Find out what calling a hook costs here."""
        self._call_seconds = call_seconds(trainer, self._callback)

    @property
    def seconds(self) -> float:
        """About what Lightning spends in a step on calling the hooks that it calls now."""
        names = (name for name in HOOKS_OF_A_STEP if callable(getattr(self._callback, name)))
        return self._call_seconds * len(list(names))

    def leave_out(self, trainer: Any, pl_module: Any, *, waits: bool) -> None:
        """Have Lightning not call the hooks of a step that do nothing in this fit.

        It calls what is callable; each call takes it 2 µs, cold some 5. Left as they are where the
        Trainer does not hold the callback itself (another one may pass the calls on), and where a
        subclass has such a hook of its own. `waits`: whether the wait for other ranks is measured.
        """
        call_all(self._callback)
        self._may_rest = False
        idle = ["on_before_zero_grad"]
        if pl_module.automatic_optimization:
            idle.append("on_before_backward")
        if not waits:
            idle.append("on_after_backward")
        for name in idle:
            if self._may_leave_out(trainer, name):
                setattr(self._callback, name, None)

    def allow_rest(self, trainer: Any) -> None:
        """Let the hook that measures gradients rest: the optimizer itself tells of its steps."""
        if not self._may_rest:
            self._may_rest = self._may_leave_out(trainer, NORM_HOOK)

    def rest(self, resting: bool) -> bool:
        """Have Lightning not call that hook, where it may rest, or call it again; tells of a change."""
        own = vars(self._callback)
        if not self._may_rest or resting == (NORM_HOOK in own):
            return False
        if resting:
            own[NORM_HOOK] = None
        else:
            del own[NORM_HOOK]
        return True

    def _may_leave_out(self, trainer: Any, name: str) -> bool:
        """Tell whether a hook is ours alone."""
        callback = self._callback
        if not any(other is callback for other in trainer.callbacks):
            return False
        owner = next(cls for cls in type(callback).__mro__ if name in vars(cls))
        return name not in vars(callback) and owner.__module__.split(".")[0] in PACKAGES


def call_seconds(trainer: Any, callback: Any) -> float:
    """Return about what Lightning spends on calling one hook of a callback in a step, in seconds.

    Nobody can time that from inside the hooks, so a hook that does nothing is called some times
    as Lightning calls it.
    """
    best = math.inf
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(8):
            with trainer.profiler.profile(f"[Callback]{callback.state_key}.on_train_start"):
                getattr(callback, "on_test_start")(trainer, None)  # noqa: B009
        best = min(best, (time.perf_counter() - begun) / 8)
    return best * COLD


def call_all(callback: Any) -> None:
    """Have every hook called again."""
    own = vars(callback)
    for name in HOOKS_OF_A_STEP:
        if name in own and own[name] is None:  # another value is the user's, set on the callback
            del own[name]
