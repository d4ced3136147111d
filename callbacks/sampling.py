"""Sampling: the probes at work, armed and asked in the steps that the budget allows them."""

from __future__ import annotations

import copy
import importlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..store import Frame, Schema
from ..store.schemas import Json
from .budget import POOL, Budget
from .guard import LIMIT, Guard
from .probes.activations import Activations
from .probes.gradients import Gradients
from .probes.head import Head
from .probes.initialization import Initialization
from .probes.inputs import Inputs
from .probes.modes import Modes
from .probes.noise import Noise
from .probes.pool import batch_size, copied
from .probes.probe import AFTERMATH, Probe, ProbeOffError, Training, clock
from .probes.replicas import Replicas
from .probes.symmetry import Symmetry
from .probes.system import System
from .transfer import Pending

log = logging.getLogger("otoscope")

NORM = "norm"
"""Name in the budget of the gradient norm of `train`."""
NORM_BORDER = "gradient norm"
TENDED = 10
"""Steps between two looks at what is hopeless, and at what may be let go of."""


def chosen_probes(asked: str | Sequence[Probe | str]) -> list[Probe]:
    """Return the probes that were asked for: a set by its name, or a list of probes and sets.

    A probe of a list takes the place of one of the same name in a set; it is copied, so that it
    can be given to another run as well.
    """
    items = [asked] if isinstance(asked, str) else list(asked)
    sets = [probe for item in items if isinstance(item, str) for probe in default_probes(item)]
    own = [copy.deepcopy(item) for item in items if isinstance(item, Probe)]
    return list({probe.name: probe for probe in [*sets, *own]}.values())


def default_probes(which: str) -> list[Probe]:
    """Return the probes of "default" or "all"; curvature and landscape where they can be imported."""
    probes: list[Probe] = [Gradients(), Activations(), Noise(), Inputs(), Initialization()]
    probes += [Head(), Symmetry(), Modes(), System(), Replicas()]
    try:
        module = importlib.import_module(".probes.curvature", __package__)
    except ImportError as error:
        log.debug("no curvature probe: %s", error)
    else:
        probes.append(module.Curvature(k=5 if which == "all" else 1))
        probes.append(importlib.import_module(".probes.landscape", __package__).Landscape())
    return probes


@dataclass
class _Attached:
    probe: Probe
    schema: Schema
    armed: bool = False
    arm_seconds: float = 0.0
    border: str = ""


class Sampling:
    """Holds the attached probes; decides by the budget, measures what each costs.

    Args:
        training: what the probes may know.
        budget: decides which are due.
        guard: where their errors end; after three failures a probe is switched off.
        tell: told of an event, (kind, body).
        enlist: told of a new schema.
        framed: makes a frame of the current step, (family, schema hash, values).
    """

    def __init__(
        self,
        training: Training,
        budget: Budget,
        guard: Guard,
        *,
        tell: Callable[[str, Mapping[str, Json]], None],
        enlist: Callable[[Schema], None],
        framed: Callable[[str, str, np.ndarray], Frame],
    ) -> None:
        self.batches: deque[Any] = deque(maxlen=POOL)
        self.hook_seconds = 0.0
        """Seconds that the hooks of the probes took inside the step sampled last."""
        self._training = training
        self._budget = budget
        self._guard = guard
        self._tell = tell
        self._enlist = enlist
        self._framed = framed
        self._attached: dict[str, _Attached] = {}
        self._norm_due = False
        self._armed = False
        self._priced = False
        self._wants_batch = False
        self._attaching: Probe | None = None
        guard.on_failure = self._failed

    @property
    def names(self) -> list[str]:
        """Names of the probes that are on."""
        return list(self._attached)

    @property
    def is_dear(self) -> bool:
        """Whether any probe that runs the model is on."""
        return any(attached.probe.dear for attached in self._attached.values())

    @property
    def is_eager(self) -> bool:
        """Whether any probe that is on would look at once where something happened."""
        return any(one.probe.dear or one.probe.eager for one in self._attached.values())

    def attach(self, probes: Sequence[Probe], step: int) -> None:
        """Hook the probes into the model; the first samples are due after `step`."""
        assert self._training.tap is not None
        if self._training.tap.parameters:
            self._budget.claim(NORM, weight=2.0, first=step + 1, aligned=self._training.sharded)
        for probe in probes:
            if probe.family != "train" and probe.is_on(self._training):
                self._attaching = probe
                with self._guard(f"probe {probe.name}"):
                    self._attach(probe, step)
        self._attaching = None

    def _attach(self, probe: Probe, step: int) -> None:
        try:
            schema = probe.schema(probe.attach(self._training))
        except ProbeOffError as error:
            self._off(probe, str(error))
            return
        self._enlist(schema)
        self._budget.claim(
            probe.name,
            weight=probe.weight,
            dear=probe.dear,
            first=step + probe.first,
            every=probe.every,
            least=probe.least,
            aligned=probe.on_every_rank(self._training),
            guess=probe.guess,
            eager=probe.eager,
            promised=probe.promised,
        )
        self._attached[probe.name] = _Attached(probe, schema, border=f"probe {probe.name}")

    def arm(self, step: int) -> None:
        """Get ready for a step: ask the budget, arm what is due."""
        due = self._budget.due(step)
        if not due:
            return
        self._armed = True
        self._norm_due = NORM in due
        for name in due:
            if name in self._attached:
                self._arm(self._attached[name], step)
        assert self._training.tap is not None
        if self._training.tap.parameters:
            self._training.tap.arm()

    def _arm(self, attached: _Attached, step: int) -> None:
        probe = attached.probe
        begun = clock()
        attached.armed = True
        probe.hook_seconds = 0.0
        self._wants_batch = self._wants_batch or probe.sees_batch
        with self._guard(attached.border):
            probe.arm(step)
        attached.arm_seconds = clock() - begun

    @property
    def is_armed(self) -> bool:
        """Whether the coming step is measured."""
        tap = self._training.tap
        return self._armed or (tap is not None and (tap.armed or tap.exact))

    @property
    def looks_from(self) -> float:
        """Step from which `keep_batch` may have something to do with a batch."""
        if self._wants_batch or self.batches:
            return 0
        return self._budget.dear_from - POOL

    def is_looking(self, step: int) -> bool:
        """Tell whether `keep_batch` has anything to do with a batch of a step."""
        return self.looks_from <= step

    def keep_batch(self, batch: Any, step: int) -> None:
        """Keep the tensors of a batch while a probe that looks at batches is about to sample."""
        dear = self._budget.dear_from - POOL <= step
        if self._wants_batch or dear:
            self.batches.append(copied(batch))
        elif self.batches:  # a dear probe was due, and cannot be paid for a long time
            self.batches.clear()
        if dear and not self._priced:
            self._price(batch_size(batch) or 0)

    def _price(self, samples: int) -> None:
        """Tell the budget what the dear probes cost on batches of this size, now that one is seen."""
        self._priced = True
        parts = max(1, len(self._training.parts()))
        for attached in self._attached.values():
            with self._guard(attached.border):
                if attached.probe.dear and samples:
                    guess = attached.probe.price(samples) / parts
                    self._budget.claims[attached.probe.name].guess = guess

    def has_work(self, step: int) -> bool:
        """Tell whether anything is to be done at the end of a step: in most there is nothing."""
        return self._armed or step % TENDED == 0

    def sample(self, step: int) -> tuple[list[Pending], float]:
        """Ask the armed probes, the dear ones last; returns their frames and what they took."""
        self._armed = False
        frames: list[Pending] = []
        seconds = self.hook_seconds = self._norm_paid(step)
        armed = [attached for attached in self._attached.values() if attached.armed]
        for attached in sorted(armed, key=lambda attached: attached.probe.dear):
            attached.armed = False
            seconds += self._sample(attached, step, frames)
        if self._wants_batch:
            self._wants_batch = False
            if self._budget.dear_from - POOL > step:
                self.batches.clear()
        if step % TENDED == 0:
            if self._training.tap is not None:
                self._training.tap.pairs.let_go(step)
            for name, why in self._budget.hopeless(step):
                self._off(self._attached[name].probe, why)
        return frames, seconds

    def _norm_paid(self, step: int) -> float:
        tap = self._training.tap
        assert tap is not None
        if tap.error is not None:
            with self._guard(NORM_BORDER):
                error, tap.error = tap.error, None
                raise error
        if not self._norm_due and not tap.armed:
            return 0.0
        if self._norm_due:
            self._norm_due = False
            self._budget.paid(NORM, AFTERMATH * tap.seconds, step)
        else:
            self._budget.spent_on(NORM, AFTERMATH * tap.seconds)
        return tap.seconds

    def _sample(self, attached: _Attached, step: int, frames: list[Pending]) -> float:
        probe = attached.probe
        # a dear probe may wait for the device: wall time
        now = time.perf_counter if probe.dear else clock
        begun = now()
        with self._guard(attached.border):
            try:
                if probe.watch_error is not None:
                    raise probe.watch_error
                frames.append(self._framed_sample(attached, probe.sample(step)))
            except ProbeOffError as error:
                self._off(probe, str(error))
            finally:
                probe.unwatch()
                probe.disarm()
        if probe.dear:
            self.batches.clear()
        self.hook_seconds += probe.hook_seconds
        seconds = now() - begun + probe.hook_seconds + attached.arm_seconds
        probe.hook_seconds = 0.0
        charged = seconds if probe.dear else AFTERMATH * seconds
        probe.cost.add(charged)
        self._budget.paid(probe.name, charged, step, again=self._is_hungry(attached))
        return seconds

    def _framed_sample(
        self, attached: _Attached, values: torch.Tensor | Sequence[float]
    ) -> Pending:
        columns = attached.probe.changed()
        if columns is not None:
            attached.schema = attached.probe.schema(columns)
            self._enlist(attached.schema)
        schema = attached.schema
        late: list[torch.Tensor] = []
        vector = np.zeros(0, np.float32)
        if isinstance(values, torch.Tensor):
            late = [values.detach().reshape(-1).float()]
        else:
            with np.errstate(over="ignore"):
                vector = np.asarray(values, dtype=np.float32).reshape(-1)
        found = late[0].numel() if late else vector.size
        if found != len(schema.columns):
            raise ValueError(f"{found} numbers were sampled for {len(schema.columns)} columns")
        return Pending(self._framed(schema.family, schema.hash, vector), late)

    def _is_hungry(self, attached: _Attached) -> bool:
        with self._guard(attached.border):
            on = attached.probe.name in self._attached
            return on and attached.probe.hungry() and attached.probe.every is None
        return False

    def detach(self) -> None:
        """Remove every hook and let go of the batches."""
        for attached in self._attached.values():
            with self._guard(attached.border):
                attached.probe.unwatch()
                attached.probe.disarm()
                attached.probe.detach()
        self.batches.clear()

    def _failed(self, kind: str, error: Exception, count: int) -> None:
        if kind == NORM_BORDER and count == LIMIT:
            self._budget.off(NORM, str(error))
            why = f"failed {count} times: {type(error).__name__}: {error}"
            self._tell("probe_off", {"probe": NORM, "why": why})
        attached = self._attached.get(kind.removeprefix("probe "))
        probe = self._attaching
        if probe is not None and kind == f"probe {probe.name}":
            self._off(probe, f"{type(error).__name__}: {error}")
        elif attached is not None and kind == attached.border and count >= LIMIT:
            self._off(attached.probe, f"failed {count} times: {type(error).__name__}: {error}")

    def _off(self, probe: Probe, why: str) -> None:
        """Switch a probe off for the rest of the run, and say why."""
        log.info("probe %s is off: %s", probe.name, why)
        self._tell("probe_off", {"probe": probe.name, "why": why})
        self._attached.pop(probe.name, None)
        if probe.name in self._budget.claims:
            self._budget.off(probe.name, why)
        with self._guard(f"detaching {probe.name}"):
            probe.unwatch()
            probe.disarm()
            probe.detach()
        if not self.is_dear:
            self.batches.clear()
