"""Hooks of a step that do nothing in a fit are not called, and nobody misses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from otoscope.callbacks import Otoscope
from otoscope.callbacks.dispatch import HOOKS_OF_A_STEP

from tests.callbacks.fits import PACKAGES, fit, package, recorded

IDLE = {"on_before_zero_grad", "on_before_backward", "on_after_backward"}


def callback(where: Path, kind: type[Otoscope] = Otoscope) -> Any:
    return kind(spool=where, probes=[], strict=True, verdict=False)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_trainer_calls_the_hooks_that_have_something_to_do_until_the_fit_ends(
    name: str, tmp_path: Path
) -> None:
    seen: set[str] = set()
    otoscope = callback(tmp_path)

    class Watching(package(name).Callback):  # type: ignore[misc]
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            seen.update(h for h in HOOKS_OF_A_STEP if not callable(getattr(otoscope, h)))

    fit(name, tmp_path, [Watching(), otoscope])
    assert seen == IDLE | {"on_before_optimizer_step"}  # which rests in steps that measure nothing
    assert all(callable(getattr(otoscope, hook)) for hook in HOOKS_OF_A_STEP)
    assert len(recorded(tmp_path, otoscope.run_id).read(otoscope.run_id, "train")) == 12


def test_a_callback_that_passes_every_call_on_may_do_so(tmp_path: Path) -> None:
    inner = callback(tmp_path)

    class Passing(package(PACKAGES[0]).Callback):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_") or name in ("setup", "teardown"):
                return getattr(inner, name).__call__  # as a caller that looks at nothing would
            return super().__getattribute__(name)

    fit(PACKAGES[0], tmp_path, [Passing()])
    assert len(recorded(tmp_path, inner.run_id).read(inner.run_id, "train")) == 12


def test_a_subclass_keeps_hooks_of_its_own(tmp_path: Path) -> None:
    called: list[int] = []

    class Own(Otoscope):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            called.append(trainer.global_step)
            super().on_after_backward(trainer, pl_module)

    fit(PACKAGES[0], tmp_path, [callback(tmp_path, Own)])
    assert called == list(range(12))


def test_a_hook_set_on_the_callback_itself_is_called_and_stays(tmp_path: Path) -> None:
    called: list[int] = []
    otoscope = callback(tmp_path)
    own = lambda trainer, *told: called.append(trainer.global_step)  # noqa: E731
    otoscope.on_before_zero_grad = own
    fit(PACKAGES[0], tmp_path, [otoscope])
    assert len(called) == 12
    assert otoscope.on_before_zero_grad is own
