"""The rollback: the lines to paste that go on from a checkpoint with other settings than its own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from ..store.schemas import Json
from .in_place import base_of, has_schedule, is_one, raised_to, times_of
from .rule import Context

KEYS = (
    *("lr", "initial_lr", "max_lr", "min_lr"),
    *("base_lrs", "max_lrs", "min_lrs", "eta_min"),
)
"""Where torch keeps rates: in a group (OneCycleLR reads all four), and in a schedule."""

MARK = "back_to"
"""The key of a group that says what it went back to. Checkpoints keep it, so that a run which is cut off later and
goes on from its own newer checkpoint is not given the settings twice; a count of steps is not the same in us and in
a Trainer that steps several optimizers, and a file may be written over."""


def going_back(context: Context, path: str, settings: Mapping[str, Json]) -> str:
    """Return the lines that go on from the checkpoint at `path` and then set an optimizer's settings, once.

    `settings`: as {"lr": 0.03, "betas": [0.9, 0.95]}; the rate is that of the first group.
    """
    quoted = json.dumps(path, ensure_ascii=False)  # a path of Windows has backslashes
    loop = context.meta.config.get("loop")
    values = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    if loop == "own":
        load = f"checkpoint = torch.load({quoted})  # into {_parts(context)}, before going on"
        lines = _setting(context, values, None)
        then = "# then, since it brings its own settings along"
        return "\n".join([load, then, *lines] if lines else [load, *_leave_out(context, values)])
    mark = _mark(context, path)
    if loop == "transformers":
        go_on = f"trainer.train(resume_from_checkpoint={quoted})"
        lines = _setting(context, values, mark, "scale(vars(lr_scheduler))")
        return _as_callback(lines, mark, go_on) if lines else _only(context, values, go_on)
    go_on = f"trainer.fit(model, ckpt_path={quoted})"
    lines = _setting(
        context,
        values,
        mark,
        "for told in self.trainer.lr_scheduler_configs:",
        "    if told.scheduler.optimizer is optimizer:",
        "        scale(vars(told.scheduler))",
    )
    return _as_hook(lines, mark, go_on) if lines else _only(context, values, go_on)


def _parts(context: Context) -> str:
    return "model, optimizer and schedule" if has_schedule(context) else "model and optimizer"


def _mark(context: Context, path: str) -> Json:
    """Return what marks the groups: the step of the checkpoint, its path where that is not known."""
    kept = reversed(context.facts.checkpoints)
    return next((entry["step"] for entry in kept if entry["path"] == path), path)


def _only(context: Context, values: Mapping[str, object], go_on: str) -> str:
    return "\n".join([*_leave_out(context, values), go_on])


def _leave_out(context: Context, values: Mapping[str, object]) -> list[str]:
    lr = values.get("lr")
    raised = raised_to(context, lr) if isinstance(lr, float) else None
    return [] if raised is None else [f"# and leave out what raised the rate to {raised:g}"]


def _setting(
    context: Context, values: Mapping[str, object], mark: Json, *schedules: str
) -> list[str]:
    """Return the lines that set an `optimizer`'s settings; `schedules`: those that scale what it counts from."""
    told = {name: repr(value) for name, value in values.items() if name != "lr"}
    lr, lines, each = values.get("lr"), [], []
    scheduled = has_schedule(context) or context.meta.config.get("loop") == "transformers"
    times = times_of(context, lr) if isinstance(lr, float) else math.nan
    if isinstance(lr, float) and scheduled and math.isfinite(times):
        # the first attempt's checkpoints hold the rate that the optimizer was made with
        if not is_one(times) or context.meta.attempt > 1:
            lines = [*_times(lr, base_of(context), times), *_SCALE, *schedules]
            each = ["    scale(group)"]
    elif isinstance(lr, float) and context.optimizer.get("groups") not in (None, 1):
        lines = _times(lr, None, times)
        told["lr"] = "times * group['lr']"
    elif lr is not None:
        told["lr"] = repr(lr)
    if not (told or each):
        return []
    if mark is not None:
        told[MARK] = repr(mark)
    if told:
        each.append(f"    group.update({', '.join(f'{name}={it}' for name, it in told.items())})")
    lines += ["for group in optimizer.param_groups:", *each]
    if mark is None and "    scale(group)" in each:
        lines.append("# and for each schedule of this optimizer: scale(vars(scheduler))")
    return [*_leave_out(context, values), *lines]


def _times(rate: float, base: float | None, times: float) -> list[str]:
    """Return the lines that take a rate over what the checkpoint holds, which may be of before a rollback.

    `base`: what the schedule counts from now; it is that which is told `times` as high, if there is one.
    """
    if base is None:
        return [
            f"times = {rate!r} / optimizer.param_groups[0]['lr']  # in each group by the same factor"
        ]
    return [
        "first = optimizer.param_groups[0]",
        f"times = {base * times:.6g} / first.get('initial_lr', first['lr'])"
        f"  # in place of {base:g}, where the schedule counts from",
    ]


_SCALE = (
    "def scale(told):  # every rate of a group or a schedule",
    f"    for key in ({', '.join(map(repr, KEYS[:4]))},",
    f"                {', '.join(map(repr, KEYS[4:]))}):",
    "        if told.get(key) is not None:",
    "            rates, several = told[key], isinstance(told[key], (list, tuple))",
    "            told[key] = [times * rate for rate in rates] if several else times * rates",
    "    for inner in told.get('_schedulers', ()):",
    "        scale(vars(inner))",
)
"""The lines that define `scale(told)`, for a group or what a schedule holds."""


def _once(mark: Json, steps: str) -> list[str]:
    return [
        f"if not {steps} or optimizer.param_groups[0].get({MARK!r}) == {mark!r}:",
        "    return  # from the first step, or from a later checkpoint: that has these settings",
    ]


def _as_hook(lines: list[str], mark: Json, go_on: str) -> str:
    """Return the hook of a LightningModule that sets them, and the call that goes on."""
    begin = "def on_train_start(self):  # the checkpoint brings its own settings along"
    first = ["optimizer = self.trainer.optimizers[0]", *_once(mark, "self.trainer.global_step")]
    return "\n".join([begin, *(f"    {line}" for line in (*first, *lines)), "", go_on])


def _as_callback(lines: list[str], mark: Json, go_on: str) -> str:
    """Return the callback of Hugging Face's Trainer that sets them, and the call that goes on."""
    begin = (
        "import transformers\n\n"
        "class Anew(transformers.TrainerCallback):  # the checkpoint brings its own settings along\n"
        "    def on_train_begin(self, args, state, control, optimizer, lr_scheduler, **more):"
    )
    inner = (f"        {line}" for line in (*_once(mark, "state.global_step"), *lines))
    return "\n".join([begin, *inner, "trainer.add_callback(Anew())", go_on])
