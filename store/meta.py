"""What a run tells of itself, and its row in the list of runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

from .plain import Json, from_mapping, plain


@dataclass(slots=True)
class Meta:
    """What a run told us about itself; every field has a default, so any part may be unknown.

    `optimizers`: [{name, lr, base_lr, groups, betas, momentum, nesterov, weight_decay}], of the first
    group, `base_lr` where a schedule counts from it; `parameters`:
    [{name, layer, kind: weight|bias|norm|embedding, ndim, numel, requires_grad}]; `activations`:
    {path of a module: tanh, gelu, …}, of those that can saturate; `heartbeat`: {rank: epoch s of its
    last sample}; `left`: {rank: epoch s at which it ended as it should};
    `clock_offset`: {rank: seconds}. `attempt` is the latest, `began` the epoch s of its beginning.
    `sending`: {rank: {stored, waiting, lost}}, the samples of its attempt so far. `hosts`: {rank:
    name of its machine}, of runs of several processes. `num_workers`: processes that load the data,
    0 where the training does so itself, None where nobody knows; `cpu_count`: cores that each rank
    may use for them.
    `progress`: {step, loss, loss_best, step_seconds, spark}; `ended`: {attempt, how: finished|failed, t, reason} or
    None while it trains; `overhead`: {share, seconds, probes: {name: seconds}}.
    """

    name: str = ""
    model: str = ""
    max_steps: int | None = None
    task: str = "supervised"
    parameter_count: int = 0
    training_samples: int | None = None
    optimizers: list[dict[str, Json]] = field(default_factory=list)
    precision: str = "32-true"
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None
    accumulate_grad_batches: int = 1
    batch_size: int | None = None
    num_workers: int | None = None
    cpu_count: int | None = None
    world_size: int = 1
    classes: int | None = None
    parameters: list[dict[str, Json]] = field(default_factory=list)
    activations: dict[str, str] = field(default_factory=dict)
    heartbeat: dict[str, float] = field(default_factory=dict)
    clock_offset: dict[str, float] = field(default_factory=dict)
    left: dict[str, float] = field(default_factory=dict)
    sending: dict[str, dict[str, int]] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)
    parent: str | None = None
    attempt: int = 1
    started: float = 0.0
    began: float = 0.0
    tags: list[str] = field(default_factory=list)
    notes: str = ""
    budget: float = 0.02
    probes: list[str] = field(default_factory=list)
    config: dict[str, Json] = field(default_factory=dict)
    progress: dict[str, Json] = field(default_factory=dict)
    ended: dict[str, Json] | None = None
    overhead: dict[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        """Return the meta as a JSON object."""
        return plain(asdict(self))

    @classmethod
    def from_json(cls, body: Mapping[str, Json]) -> Meta:
        """Read what `to_json` wrote; unknown keys, and values that cannot be, are ignored."""
        meta = from_mapping(cls, body)
        meta.started = meta.started if _is_number(meta.started) else 0.0
        meta.began = meta.began if _is_number(meta.began) else 0.0
        if meta.ended is not None and not _is_number(meta.ended.get("t", 0.0)):
            meta.ended = {**meta.ended, "t": 0.0}
        meta.left = {k: t for k, t in meta.left.items() if _is_number(t)}
        meta.heartbeat = {k: t for k, t in meta.heartbeat.items() if _is_number(t)}
        meta.sending = {k: v for k, v in meta.sending.items() if _are_counts(v)}
        meta.hosts = {k: name for k, name in meta.hosts.items() if isinstance(name, str)}
        meta.clock_offset = {k: t for k, t in meta.clock_offset.items() if _is_number(t)}
        meta.progress = {k: v for k, v in meta.progress.items() if _is_progress(v)}
        meta.optimizers = [item for item in meta.optimizers if isinstance(item, dict)]
        meta.parameters = [item for item in meta.parameters if isinstance(item, dict)]
        meta.activations = {k: v for k, v in meta.activations.items() if isinstance(v, str)}
        meta.tags = [str(tag) for tag in meta.tags]
        return meta


ATTEMPT_SETTINGS = (
    "optimizers",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "accumulate_grad_batches",
    "batch_size",
    "precision",
    "max_steps",
)
"""What the `started` event tells of its attempt besides, since Meta only holds the latest one's."""


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_counts(value: Json) -> bool:
    known = {"stored", "waiting", "lost"}
    return isinstance(value, dict) and known == set(value) and all(map(_is_number, value.values()))


def _is_progress(value: Json) -> bool:
    if isinstance(value, list):
        return all(_is_progress(item) for item in value)
    return value is None or _is_number(value) or value in ("Infinity", "-Infinity")


Status = Literal["live", "stale", "lost", "finished", "failed"]


@dataclass(slots=True)
class RunInfo:
    """One row of the list of runs. `open` counts unresolved findings by severity.

    `spark`: at most 48 means of the loss from the first step to the last, for a small curve;
    `obstacles`: as the daemon committed them; `lost_ranks`: those that fell silent while others
    go on, or had not ended when the run did.
    """

    id: str
    name: str
    status: Status
    attempt: int
    step: int
    max_steps: int | None
    started: float
    last_seen: float
    world_size: int
    loss_last: float
    loss_best: float
    open: dict[str, int]
    tags: list[str]
    notes: str
    parent: str | None
    spark: list[float] = field(default_factory=list)
    obstacles: dict[str, Json] = field(default_factory=dict)
    lost_ranks: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, Json]:
        """Return the row as a JSON object."""
        # not asdict, which copies every number of every curve first
        return plain({item.name: getattr(self, item.name) for item in fields(self)})
