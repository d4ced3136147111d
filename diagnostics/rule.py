"""The rule: a pure function from a window and a context to a verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..store import Evidence, Meta, Recommendation
from ..store.schemas import Json, Severity
from .facts import Facts
from .obstacles import Obstacles
from .soundness import sound
from .thresholds import Thresholds
from .windows import Window


@dataclass(frozen=True, slots=True)
class Case:
    """What a rule has to say where it was breached: everything of a finding but its identity.

    `scope`: what it is about, where that is not the whole run: `layer:<path>`, `rank:<n>` or
    `optimizer:<i>`; it is a part of the finding's id, so what is said of a group that may grow
    is about the run. The first of `because` with a family and column is the chart behind it.
    """

    title: str
    why: str
    because: tuple[Evidence, ...]
    recommendation: Recommendation
    may_be_normal: str
    severity: Severity | None = None
    layers: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    not_measured: tuple[str, ...] = ()
    onset: int | None = None
    scope: str = "run"


@dataclass(frozen=True, slots=True)
class Later:
    """A case about the whole run that is made only where it is needed: one of 200 layers is dear.

    A finding that stands takes nothing from the cases of later points but a graver severity, unless one
    has advice of a better basis. `severity` and `onset` are those of the case; `basis` is the best that
    its advice may have.
    """

    make: Callable[[], Case]
    basis: str
    severity: Severity | None = None
    onset: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule made of a window.

    `strength` is the effect over its threshold: 1 is at the threshold, below `clear` of
    rules.toml it counts towards clearing. `certain`: one sample tells all, no other is waited for.
    `why`: why it could not judge; of a rule of several parts also which of them it could not.
    """

    kind: Literal["unknown", "fine", "breach"]
    why: str = ""
    strength: float = 0.0
    case: Case | Later | None = None
    certain: bool = False


def unknown(why: str) -> Verdict:
    """Return the verdict of a rule that could not judge."""
    return Verdict("unknown", why)


def fine(strength: float = 0.0, partly: str = "") -> Verdict:
    """Return the verdict of a rule that found nothing; `partly`: what of it was not judged, and why."""
    return Verdict("fine", partly, strength=min(strength, 0.999))


def breach(strength: float, case: Case | Later, *, certain: bool = False) -> Verdict:
    """Return the verdict of a rule that was breached; advice that cannot be applied is replaced."""
    usable = case if isinstance(case, Later) else told(case)
    return Verdict("breach", strength=max(strength, 1.0), case=usable, certain=certain)


def told(case: Case | Later) -> Case:
    """Return a case, made where it was put off, with advice that can be applied."""
    if isinstance(case, Later):
        case = case.make()
    advice = getattr(case, "recommendation", None)  # a reader's own rule may return anything
    if isinstance(advice, Recommendation):
        steps = [getattr(item, "step", None) for item in case.because]
        step = next((step for step in steps if step is not None), case.onset or 0)
        usable = sound(advice, step)
        if usable is not advice:
            case = replace(case, recommendation=usable)
    return case


ADAPTIVE = (
    *("adam", "adamw", "nadam", "radam", "adamax", "lamb", "adafactor", "lion"),
    *("rmsprop", "adagrad", "adadelta", "rprop"),
)
UNCORRECTED = {"rmsprop": 10.0, "adagrad": 10.0}
"""How many times longer the first step is than later ones: its divisor holds one gradient alone.

RMSprop's is the root of a hundredth of its square; Adagrad's grows with the root of the steps, of
which there are a hundred soon.
"""


@dataclass(frozen=True)
class Context:
    """What the run told us, and what was kept of its past.

    `states` maps each rule to its state in the engine; `start` is the step before the attempt's
    first; `rates` are the numbers behind every advice on the learning rate; `memory` is what the
    rule's own `remember` kept of the attempt so far; `obstacles` what was read of curvature, landscape
    and noise, which windows forget between two samples.
    """

    meta: Meta
    facts: Facts
    thresholds: Thresholds
    rates: Thresholds
    start: int = 0
    states: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, Json] = field(default_factory=dict)
    obstacles: Obstacles = field(default_factory=Obstacles)
    known: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """What rules made of `meta` alone; see `once`."""

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what is made of `meta`, and of nothing else: once, for all rules, while it is the same."""
        if name not in self.known:
            self.known[name] = make()
        return self.known[name]

    @property
    def optimizer(self) -> Mapping[str, object]:
        """The first optimizer as Meta describes it; empty where the run told nothing."""
        return self.meta.optimizers[0] if self.meta.optimizers else {}

    @property
    def weight_layers(self) -> int:
        """How many layers of weights the model has."""
        rows = self.meta.parameters
        return self.once("weights", lambda: [row.get("kind") for row in rows].count("weight"))

    @property
    def optimizer_name(self) -> str:
        return str(self.optimizer.get("name") or "the optimizer")

    @property
    def adaptive(self) -> bool:
        """Whether the optimizer scales each weight's step by its own gradients."""
        return self.optimizer_name.lower() in ADAPTIVE

    def standing(self, *rules: str) -> list[str]:
        """Return those of the rules that are pending or firing."""
        return [rule for rule in rules if self.states.get(rule) in ("pending", "firing")]


Judge = Callable[[Window, Context], Verdict]

Remember = Callable[[Window, Context], dict[str, Json]]
"""What a rule wants to know of the past that no window reaches back to: small, plain JSON.

Called at every point of the grid, before the rule judges and from the attempt's first point on;
`context.memory` is what it returned at the point before, empty at first.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the catalogue: `family` is the one whose new samples it waits for."""

    id: str
    family: str
    judge: Judge
    document: str = ""
    from_start: bool = False
    """Whether it compares with how the run began, and cannot judge where that was not kept."""
    remember: Remember | None = None
    numbers: Mapping[str, Any] | None = None
    """Its section of numbers, where it brings them itself; else they stand in rules.toml."""
