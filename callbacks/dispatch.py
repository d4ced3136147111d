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
PACKAGES = ("otoscope", "lightning", "pytorch_lightning")


def dispatch_seconds(trainer: Any, callback: Any) -> float:
    """Return about what Lightning spends in a step on calling a callback's hooks, in seconds.

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
    called = sum(callable(getattr(callback, name)) for name in HOOKS_OF_A_STEP)
    return best * called * COLD


def leave_out(trainer: Any, pl_module: Any, callback: Any, *, waits: bool) -> None:
    """Have Lightning not call the hooks of a step that do nothing in this fit, until `call_all`.

    It calls what is callable; each call takes it 2 µs, cold some 5. Left as they are where the Trainer
    does not hold the callback itself (another one may pass the calls on), and where a subclass has
    such a hook of its own. `waits` tells whether the wait for other ranks is measured.
    """
    call_all(callback)
    idle = ["on_before_zero_grad"]
    if pl_module.automatic_optimization:
        idle.append("on_before_backward")
    if not waits:
        idle.append("on_after_backward")
    if not any(other is callback for other in trainer.callbacks):
        return
    for name in idle:
        owner = next(cls for cls in type(callback).__mro__ if name in vars(cls))
        if name not in vars(callback) and owner.__module__.split(".")[0] in PACKAGES:
            setattr(callback, name, None)


def call_all(callback: Any) -> None:
    """Have every hook called again."""
    own = vars(callback)
    for name in HOOKS_OF_A_STEP:
        if name in own and own[name] is None:  # another value is the user's, set on the callback
            del own[name]
