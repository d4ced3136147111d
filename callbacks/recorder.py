"""The recorder: follows a training loop step by step and sends what it saw; it knows only torch."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store import OtoscopeError, Sink
from ..store.connecting import open_sink
from ..store.identity import new_run_id
from ..store.keys import checked_run_id
from ..store.meta import ATTEMPT_SETTINGS
from ..store.project import find_project, read_project
from ..store.schemas import Json
from .answering import applied_of, parent_of
from .checkpoints import Files
from .describing import described_anew, described_model
from .norms import all_finite
from .pace import linger_of
from .probes.probe import clock
from .ranks import FirstRank, OtherRank, job_of_this_fit, place_of
from .sampling import chosen_probes
from .schedule import Schedules
from .sender import Sender
from .stepping import Stepping
from .transfer import Pending
from .validation import validation_sample

log = logging.getLogger("otoscope")


@dataclass
class Origin:
    """Where an attempt comes from: a new run, or a known one that goes on at a step."""

    run_id: str | None = None
    attempt: int = 1
    step: int = 0
    from_attempt: int | None = None


class Recorder(Stepping):
    """Records one attempt of a run. Made by `attach` and by the Lightning callback.

    `hook` before the first forward pass, `begin` once it is known which run this is; then
    `before_step` … `end_step` for every step, and `finish` or `fail`. `sink` replaces the place
    that `options.url` names.
    """

    _hooked = False
    _told: dict[str, Any] | None = None
    """The settings that the attempt has told of itself, until its first step."""

    # -- beginning ------------------------------------------------------------------------------

    def hook(self) -> None:
        """Hook into model and optimizers; call before the first forward pass."""
        begun = clock()
        with self.guard("recorder"):
            self.files = Files()
            """The checkpoints that were told of."""
            columns = self._throughput.attach(self._training)
            self._journal.follow(self._throughput.schema(columns), self._throughput.fill)
            self._schedules = Schedules(len(self._throughput.lrs()))
            self._sampling.attach(chosen_probes(self.options.probes), self.steps)
            if self._listen:
                self._tap.listen()
            for optimizer in self._optimizers:
                self._handles.append(optimizer.register_step_post_hook(self._on_stepped))
                if self._waiting is not None:
                    self._handles.append(optimizer.register_step_pre_hook(self._before_stepped))
            self._hooked = True
        self._budget.start_seconds += clock() - begun

    def begin(
        self,
        origin: Origin,
        *,
        max_steps: int | None = None,
        meta: Mapping[str, Json] | None = None,
        dispatch: float = 0.0,
    ) -> None:
        """Settle which run this is, and start sending.

        `dispatch` is what whoever calls us spends on it in a step, in seconds: a cost of ours too.
        Raises OtoscopeError where `hook` failed: what steps left would wait for ever.
        """
        if not self._hooked:
            raise OtoscopeError(
                "nothing is recorded: hooking into model and optimizers failed, as was logged before"
            )
        begun = clock()
        self.dispatch = dispatch
        name = self.options.run or type(self._model).__name__
        self._first = origin.step
        self._budget.begin(origin.step, max_steps)
        identify, open_rank = self._identity(name, origin)
        self.sender = Sender(
            identify.provisional.run,
            self._sink or open_rank,
            identify.provisional.spool,
            attempt=origin.attempt,
            identify=identify,
            linger=linger_of(self._training.world_size),
        )
        world = {"world_size": self._training.world_size}
        fields = {**world, **(meta or {}), "name": name, "max_steps": max_steps}
        body = {"world_size": self._training.world_size, "batch_size": fields.get("batch_size")}
        told = self._meta(origin, fields)
        settings = {name: told[name] for name in ATTEMPT_SETTINGS if name in told}
        self._told = None if self.rank else settings
        if applied := applied_of(os.environ):
            settings["applied"] = applied
        begins: dict[str, dict[str, Json]] = {
            "started": {**body, "start_step": origin.step, "settings": settings}
        }
        with self.guard("otoscope.toml"):
            if (project := find_project()) is not None:
                begins["project"] = {"numbers": read_project(project)}
        if origin.from_attempt is not None:
            begins["resumed"] = {"from_attempt": origin.from_attempt, "from_step": origin.step}
        self._journal.open(self.sender, origin.step, told, begins)
        with contextlib.ExitStack() as undo:  # without the thread nobody takes what waits
            undo.callback(self._journal.shut)
            self.sender.start()
            undo.pop_all()
        self._budget.start_seconds += clock() - begun
        self.restart_clock()

    def before_step(self) -> None:
        """Decide what the coming step measures; call before its first forward pass."""
        if self._told is not None:
            with self.guard("recorder"):
                self._look_again()
        super().before_step()

    def _look_again(self) -> None:
        """Tell what hooks behind ours have set since the attempt told of its optimizers.

        `started` waits until the first step begins, so what it tells can still be mended.
        """
        settings, self._told = self._told or {}, None
        before = settings["optimizers"]
        rows = [
            described_anew(optimizer, row)
            for optimizer, row in zip(self._optimizers, before, strict=True)
        ]
        if not self._first:  # a warm-up by hand may hold the rate down already
            rows = [{**row, "lr": old["lr"]} for row, old in zip(rows, before, strict=True)]
        if rows != before:
            settings["optimizers"] = rows
            self.sender.emit({"optimizers": rows})

    def _identity(
        self, name: str, origin: Origin
    ) -> tuple[FirstRank | OtherRank, Callable[[], Sink]]:
        """Return what tells the sender which run this is, and what opens the place to write to."""
        root, url = Path(self.options.spool or ".otoscope").absolute(), self.options.url
        job = job_of_this_fit(self._one_node) if self._training.world_size > 1 else None
        if self.rank and job is not None:
            other = OtherRank(self.rank, root, job)
            return other, lambda: other.open_sink(url)
        asked = origin.run_id or os.environ.get("OTOSCOPE_RUN_ID")
        run = checked_run_id(asked) if asked else new_run_id(name)
        place = place_of(root, run)
        return FirstRank(run, place, job, origin.attempt), lambda: open_sink(url, run, place)

    @property
    def world_size(self) -> int:
        """Processes of the run."""
        return self._training.world_size

    @property
    def directory(self) -> Path:
        """Where the run is recorded, or waits for a server."""
        return self.sender.spool

    def _meta(self, origin: Origin, meta: Mapping[str, Json]) -> dict[str, Json]:
        options = self.options
        fields: dict[str, Json] = {
            **described_model(self._model, self._optimizers),
            **meta,
            "task": options.task,
            "tags": list(options.tags),
            "notes": options.notes,
            "budget": options.budget,
            "probes": ["throughput", *self._sampling.names],
        }
        if parent := parent_of(os.environ):
            fields["parent"] = parent
        fields["began"] = time.time()
        return fields if origin.from_attempt is not None else {**fields, "started": fields["began"]}

    # -- beside the steps ------------------------------------------------------------------------

    def validate(self, metrics: Mapping[str, Any], *, epoch: float = math.nan) -> None:
        """Record the user's own validation metrics, at the count of steps done."""
        if self.finished or self.rank:
            return
        with self.guard("validation"):
            schema, values = validation_sample(metrics, epoch)
            self._journal.enlist(schema)
            frame = self._journal.frame("validation", schema.hash, values)
            self._journal.keep([Pending(frame)])

    def checkpoint(self, path: str | os.PathLike[str], *, finite: bool | None = None) -> None:
        """Note that a checkpoint was written; `finite` says whether all weights were finite."""
        with self.guard("checkpoint"):
            if self.rank:
                return
            if finite is None:
                finite = all_finite(list(self._model.parameters()))
            self.files.add(str(path))
            gone: list[Json] = [*self.files.gone()]
            told: dict[str, Json] = {"path": str(path), "finite": finite}
            self.event("checkpoint", {**told, "gone": gone} if gone else told)

    def event(self, kind: str, body: Mapping[str, Json] | None = None) -> None:
        """Send an event of this step; it counts after the frames of the step."""
        with self._border:
            if not self.finished:
                self._journal.event(kind, body)

    # -- ending ---------------------------------------------------------------------------------

    def finish(self, reason: str = "end of training") -> None:
        """End the recording: remove every hook, send what is left, print the verdict."""
        ended = False
        with self._border:
            ended = self._end("finished", "finished", {"reason": reason}, reason)
        if ended and self.options.verdict and not self.rank:
            with self.guard("verdict"):
                from .verdict import print_verdict

                print_verdict(self)

    def fail(self, error: BaseException) -> None:
        """Note the user's exception and let go of everything."""
        with self._border:
            body = {"type": type(error).__name__, "message": _message(error)[:2000]}
            self._end("failed", "exception", body, f"{body['type']}: {body['message']}"[:300])

    def _end(self, how: str, kind: str, body: dict[str, Json], reason: str) -> bool:
        """Let go of everything, once; returns whether there is a run that ended here."""
        if self.finished:
            return False
        for let_go in (self._sampling.detach, self._tap.close, self._unhook):
            with self._border:  # each: what one of them leaves would stay on the user's model
                let_go()
        if self.begun:
            with self._border:
                self._enter()
            with self._border:
                self.event(kind, body)
                self._journal.close(how, reason)
        self.finished = True
        return self.begun

    def _unhook(self) -> None:
        if self._waiting is not None:
            self._waiting.close()
        for handle in self._handles:
            handle.remove()


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # the user's own __str__; nobody else guards it
        return f"(its message cannot be made: {type(broken).__name__})"
