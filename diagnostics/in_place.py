"""In place: the lines to paste where an optimizer has groups or a schedule, which stay as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .rule import Context
from .words import rounded

KEYS = ("lr", "initial_lr", "max_lr", "min_lr")
"""What schedules of torch keep of a rate in a group: OneCycleLR reads all of them."""


def is_kept(context: Context) -> bool:
    """Tell whether the run's optimizer has what a new one would drop: groups, or a schedule."""
    return bool(_kept(context))


def _kept(context: Context) -> str:
    groups = context.optimizer.get("groups")
    parts = [f"its {groups} groups"] if isinstance(groups, int) and groups > 1 else []
    schedules = context.meta.config.get("schedules")
    named = ", ".join(map(str, schedules)) if isinstance(schedules, list) and schedules else ""
    if named or _base(context) is not None:
        parts.insert(0, f"its schedule ({named})" if named else "its schedule")
    return " and ".join(parts)


def _base(context: Context) -> float | None:
    """Return the rate that a schedule counts from, None where there is none."""
    base = context.optimizer.get("base_lr")
    return base if isinstance(base, float) and base > 0 else None


def times_of(context: Context, rate: float) -> float:
    """Return a rate over the one at hand; NaN where that is not known."""
    now = context.facts.lr_last
    if not now > 0:
        told = context.optimizer.get("lr")
        now = told if isinstance(told, float) else math.nan
    return rate / now if now > 0 else math.nan


def as_made(context: Context, rate: float) -> float:
    """Return what to make the optimizer with, so that the step at hand has a rate: schedules go from there."""
    base, times = _base(context), times_of(context, rate)
    if base is None or not math.isfinite(times):
        return rate
    return base if _is_one(times) else rounded(base * times)


def _is_one(times: float) -> bool:
    return math.isclose(times, 1.0, rel_tol=1e-3)


def place_of(context: Context, own: bool) -> str:
    """Return the comment that says where settings go, and what stays there."""
    where = "where the optimizer is made" if own else "in configure_optimizers"
    return f"# {where}: all else there stays, {_kept(context)}"


def settings_in_place(
    context: Context,
    rate: float,
    *,
    own: bool,
    made: str | None = None,
    betas: list[float] | None = None,
    weight_decay: float | None = None,
) -> str:
    """Return the settings to write there in place of those that stand there; `made`: another optimizer."""
    lines = [place_of(context, own)]
    value, base = as_made(context, rate), _base(context) or context.optimizer.get("lr")
    if made is not None:
        lines += [f"optimizer_class = {made}  # in place of {context.optimizer_name}"]
        lines += [f"lr = {rate:g}"]
    elif not _is_one(times := times_of(context, rate)):
        if "OneCycleLR" in (context.meta.config.get("schedules") or ()):
            lines.append(
                f"times = {times:g}  # to multiply OneCycleLR's max_lr: it goes by that alone"
            )
        else:
            lines.append(_rate_line(context, value, base))
    if betas is not None:
        lines.append(f"betas = {tuple(betas)}")
    if weight_decay is not None:
        lines.append(f"weight_decay = {weight_decay:g}  # in the groups that have one")
    return "\n".join(lines)


def _rate_line(context: Context, value: float, base: object) -> str:
    groups = context.optimizer.get("groups")
    rest = (
        "; in each other group by the same factor" if isinstance(groups, int) and groups > 1 else ""
    )
    return f"lr = {value:g}" + (
        f"  # in place of {base:g}{rest}" if isinstance(base, float) else ""
    )


def groups_by_layer(factors: Mapping[str, float], net: str, trainer: str = "") -> str:
    """Return the lines that split an optimizer's groups by parameter, each with a factor to its rate."""
    begin = "" if not trainer else f"optimizer = {trainer}.create_optimizer()\n"
    where = (
        "# in front of trainer.train()\n"
        if trainer
        else "# behind the line that makes the optimizer, in front of its schedule\n"
    )
    end = "" if not trainer else f"\n{trainer}.optimizer = optimizer"
    return (
        f"{where}{begin}factors = {dict(factors)!r}\n"
        f"names = {{p: n.rpartition('.')[0] for n, p in {net}.named_parameters()}}\n"
        "groups = [{**group, 'params': [p], 'lr': group['lr'] * factors.get(names[p], 1.0)} "
        "for group in optimizer.param_groups for p in group['params']]\n"
        f"optimizer = type(optimizer)(groups, lr=optimizer.param_groups[0]['lr']){end}"
    )


def warm_up_in_place(steps: int, *, by_hand: str = "") -> str:
    """Return the lines that shorten the first steps alone; `by_hand`: the count of steps in an own loop."""
    net, step = ("", by_hand) if by_hand else ("    ", "self.trainer.global_step")
    head = (
        "# around optimizer.step(): groups and schedule stay\n"
        if by_hand
        else "def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):\n"
        "    # configure_optimizers stays as it is, with its groups and its schedule\n"
    )
    call = "optimizer.step()" if by_hand else "optimizer.step(closure=optimizer_closure)"
    return head + "\n".join(
        net + line
        for line in (
            "rates = [group['lr'] for group in optimizer.param_groups]",
            "for group in optimizer.param_groups:",
            f"    group['lr'] *= min(1.0, ({step} + 1) / {steps})",
            call,
            "for group, rate in zip(optimizer.param_groups, rates):",
            "    group['lr'] = rate",
        )
    )


def rates_times(context: Context, times: float) -> list[str]:
    """Return the lines that multiply the rates of a group, behind `for group in …:`."""
    keys = KEYS if _base(context) is not None else KEYS[:1]
    return [f"    group.update({{key: {times:g} * group[key] for key in {keys} if key in group}})"]


def schedules_times(context: Context, times: float) -> list[str]:
    """Return the lines that multiply what a Lightning Trainer's schedules count from."""
    if _base(context) is None:
        return []
    return [
        "for told in self.trainer.lr_scheduler_configs:",
        "    for schedule in getattr(told.scheduler, '_schedulers', [told.scheduler]):",
        f"        schedule.base_lrs = [{times:g} * rate for rate in schedule.base_lrs]",
    ]
