"""The options that `Otoscope(...)` and `attach(...)` share, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..store import ConfigError
from ..store.addresses import checked_url
from .probes.probe import Probe

TASKS = ("supervised", "language-model", "gan", "reinforcement", "contrastive", "finetune")
PROBE_SETS = ("default", "all")


@dataclass(frozen=True)
class Options:
    """What the user asked for. Raises ConfigError where a value cannot be used.

    >>> Options(budget=0.05).budget
    0.05
    """

    run: str | None = None
    url: str | None = field(default=None, repr=False)  # it may hold a password
    budget: float = 0.02
    probes: str | Sequence[Probe | str] = "default"
    tags: Sequence[str] = ()
    notes: str = ""
    spool: str | os.PathLike[str] | None = None
    task: str = "supervised"
    strict: bool = False
    verdict: bool = True

    def __post_init__(self) -> None:
        if self.run is not None and not isinstance(self.run, str):
            raise ConfigError(f"run must be a name (a string) or None, got {self.run!r}")
        if self.url is not None:
            if not isinstance(self.url, str):
                raise ConfigError(f"url must be a string or None, got {type(self.url).__name__}")
            checked_url(self.url)
        if (
            isinstance(self.budget, bool)
            or not isinstance(self.budget, (int, float))
            or not 0 < self.budget <= 1
        ):
            raise ConfigError(
                f"budget must be in (0, 1], got {self.budget!r}; "
                "0.05 means five percent of the wall time"
            )
        if self.task not in TASKS:
            raise ConfigError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        self._check_probes()
        if isinstance(self.tags, str) or not all(isinstance(tag, str) for tag in self.tags):
            raise ConfigError(
                f'tags must be a list of strings, got {self.tags!r}; write tags=["baseline"]'
            )
        if not isinstance(self.notes, str):
            raise ConfigError(f"notes must be a string, got {self.notes!r}")
        if self.spool is not None and not isinstance(self.spool, (str, os.PathLike)):
            raise ConfigError(f"spool must be the path of a folder or None, got {self.spool!r}")
        for name in ("strict", "verdict"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be True or False, got {getattr(self, name)!r}")

    def _check_probes(self) -> None:
        if isinstance(self.probes, str):
            if self.probes not in PROBE_SETS:
                raise ConfigError(
                    f'probes must be "default", "all" or a list of probes, got {self.probes!r}'
                )
            return
        if not isinstance(self.probes, Sequence):
            raise ConfigError(
                f'probes must be "default", "all" or a list of probes, got {self.probes!r}; '
                "write probes=[Gradients(), Activations()]"
            )
        for probe in self.probes:
            if not isinstance(probe, Probe) and probe not in PROBE_SETS:
                hint = "; call the class" if isinstance(probe, type) else ""
                raise ConfigError(f"every probe must be a Probe object, got {probe!r}{hint}")
        names = [probe if isinstance(probe, str) else probe.name for probe in self.probes]
        if len(set(names)) != len(names):
            raise ConfigError(f"each probe may be given once, got {', '.join(names)}")
