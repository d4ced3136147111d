"""In place: the lines to paste where an optimizer has groups or a schedule, which stay as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .rule import Context
from .words import rounded

NEVER_OVER = {
    *("ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "LinearLR"),
    *("PolynomialLR", "ReduceLROnPlateau"),
}
"""Schedules that take no rate over the one they count from: above it, something else raised it."""

GOES_BY = {"OneCycleLR": "max_lr", "CyclicLR": "base_lr and max_lr"}
"""Schedules that set the rate by arguments of their own, whatever the optimizer was made with."""


def is_kept(context: Context) -> bool:
    """Tell whether the run's optimizer has what a new one would drop: groups, or a schedule."""
    return bool(_kept(context))


def _kept(context: Context) -> str:
    parts = [f"its {_groups(context)} groups"] if _groups(context) > 1 else []
    if has_schedule(context):
        named = ", ".join(_schedules(context))
        parts.insert(0, f"its schedule ({named})" if named else "its schedule")
    return " and ".join(parts)


def has_schedule(context: Context) -> bool:
    """Tell whether a schedule moves the rate of the run's optimizer."""
    return bool(_schedules(context)) or base_of(context) is not None


def _schedules(context: Context) -> list[str]:
    """Return the names of the run's schedules; a loop of one's own tells none but that of OneCycleLR."""
    told = context.meta.config.get("schedules")
    if isinstance(told, list) and told:
        return [str(name) for name in told]
    return ["OneCycleLR"] if context.optimizer.get("max_lr") else []


def _goes_by(context: Context, which: int = 0) -> str:
    """Return the schedule that sets an optimizer's rate by arguments of its own, empty where none does."""
    tops = [bool(row.get("max_lr")) for row in context.meta.optimizers]
    if which < len(tops) and tops[which]:
        return "OneCycleLR"  # also within another
    names = [name for name in _schedules(context) if name in GOES_BY]
    return next((name for name in names if name != "OneCycleLR" or not any(tops)), "")


def _hides(context: Context) -> bool:
    """Tell whether there may be such a schedule that nobody told of."""
    names = _schedules(context)
    return not names or not {"SequentialLR", "ChainedScheduler"}.isdisjoint(names)


def _groups(context: Context) -> int:
    groups = context.optimizer.get("groups")
    return groups if isinstance(groups, int) else 1


def base_of(context: Context) -> float | None:
    """Return the rate that a schedule counts from, None where there is none."""
    base = context.optimizer.get("base_lr")
    return base if isinstance(base, float) and base > 0 else None


def _made_with(context: Context) -> float:
    """Return the rate that the optimizer was made with; NaN where that is not known."""
    told = base_of(context) or context.optimizer.get("lr")
    return told if isinstance(told, float) else math.nan


def _at_hand(context: Context) -> float:
    """Return the rate of the last step; NaN where that is not known."""
    now, told = context.facts.lr_last, context.optimizer.get("lr")
    if not now > 0:
        now = told if isinstance(told, float) else math.nan
    return now if now > 0 else math.nan


def raised_to(context: Context, rate: float) -> float | None:
    """Return the rate at hand, where something beside the schedule raised it and a lower one is to be set.

    A schedule that may take it there counts as that which did, unless the rate to set is the one that the
    optimizer was made with already: then there is nothing to make it with but what raised it later.
    """
    now, base = _at_hand(context), _made_with(context)
    if not (now > 1.01 * base and now > rate) or _goes_by(context):
        return None
    names = _schedules(context)
    bound = not has_schedule(context) or (bool(names) and NEVER_OVER.issuperset(names))
    return now if bound or is_one(rate / base) else None


def times_of(context: Context, rate: float) -> float:
    """Return a rate over the one at hand, or over the one made where that was raised; NaN if not known."""
    raised = raised_to(context, rate)
    return rate / (_at_hand(context) if raised is None else _made_with(context))


def as_made(context: Context, rate: float) -> float:
    """Return what to make the optimizer with, so that the step at hand has a rate: schedules go from there."""
    base, times = base_of(context), times_of(context, rate)
    if base is None or not math.isfinite(times):
        return rate
    return base if is_one(times) else rounded(base * times)


def is_one(times: float) -> bool:
    """Tell whether a factor changes nothing."""
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
    if made is not None:
        name = _goes_by(context)
        by = f"  # of {name}: it goes by that alone" if name else ""
        lines += [f"optimizer_class = {made}  # in place of {context.optimizer_name}"]
        lines += [f"{'max_lr' if name else 'lr'} = {rate:g}{by}"]
    elif not is_one(rate / _at_hand(context)):
        lines += _rate_lines(context, rate)
    if betas is not None:
        lines.append(f"betas = {tuple(betas)}")
    if weight_decay is not None:
        lines.append(f"weight_decay = {weight_decay:g}  # in the groups that have one")
    return "\n".join(lines)


def _rate_lines(context: Context, rate: float) -> list[str]:
    """Return what to make the optimizer, or its schedule, with."""
    times, name = times_of(context, rate), _goes_by(context)
    if name:
        all_of = "those alone" if " and " in GOES_BY[name] else "that alone"
        return [f"times = {times:g}  # to multiply {name}'s {GOES_BY[name]}: it goes by {all_of}"]
    value, base = as_made(context, rate), _made_with(context)
    raised = raised_to(context, rate)
    if is_one(value / base):
        return [
            f"# lr stays {base:g}, as it was made"
            + ("" if raised is None else f": leave out what raised it to {raised:g}")
        ]
    notes = [f"in place of {base:g}"] if base > 0 else []
    if _groups(context) > 1:
        notes.append("in each other group by the same factor")
    if raised is not None:
        notes.append(f"and leave out what raised it to {raised:g}")
    lines = [f"lr = {value:g}" + (f"  # {'; '.join(notes)}" if notes else "")]
    if has_schedule(context) and not _schedules(context):
        lines.append(f"# a schedule with a max_lr goes by that alone: max_lr times {times:g} then")
    return lines


def groups_by_layer(
    context: Context, factors: Mapping[str, float], net: str, trainer: str = ""
) -> str:
    """Return the lines that split an optimizer's groups by the factors to their rates.

    `trainer`: the name of Hugging Face's Trainer, which makes the optimizer, where there is one.
    """
    begin = "" if not trainer else f"optimizer = {trainer}.create_optimizer()\n"
    where = (
        "# in front of trainer.train()\n"
        if trainer
        else "# behind the line that makes the optimizer, in front of its schedule\n"
    )
    end = f"{trainer}.optimizer = optimizer" if trainer else _lists(context)
    return (
        f"{where}{begin}factors = {dict(factors)!r}\n"
        f"names = {{p: n.rpartition('.')[0] for n, p in {net}.named_parameters()}}\n"
        "groups = {}\n"
        "for of, group in enumerate(optimizer.param_groups):\n"
        "    for p in group['params']:\n"
        "        factor = factors.get(names.get(p), 1.0)\n"
        "        new = {**group, 'params': [], 'lr': group['lr'] * factor}\n"
        "        groups.setdefault((of, factor), new)['params'].append(p)\n"
        "optimizer = type(optimizer)(list(groups.values()), lr=optimizer.param_groups[0]['lr'])"
        + (f"\n{end}" if end else "")
    )


def _lists(context: Context) -> str:
    """Return the comments that say what a schedule of more groups is made with."""
    if not has_schedule(context):
        return ""
    name = _goes_by(context)
    line = "# a list with a value for each group: [values[of] for of, _ in groups]"
    if not (name or _hides(context)):
        return line
    return (
        f"# {name or 'a schedule with a max_lr'} sets the rates by its {GOES_BY.get(name, 'max_lr')}: "
        "make it [rate * factor for of, factor in groups], from a list rate[of] * factor\n"
        f"{line}"
    )


def group_raised(context: Context, which: int, place: int, factor: float, trainer: str = "") -> str:
    """Return the lines that raise the rate of one group where the optimizer `which` and its schedule are made.

    `trainer`: as for `groups_by_layer`.
    """
    name, several = _goes_by(context, which), len(context.meta.optimizers) > 1
    raised = f"max_lr[{place}] *= {factor:g}"
    if name:
        both = " and " in GOES_BY[name]
        what = "lists of values for the groups" if both else "a list with a value for each group"
        of = f"{name} of optimizer {which}" if several else name
        line = f"{raised}  # of {of}, {what}: it goes by {'those' if both else 'that'} alone"
        return f"base_lr[{place}] *= {factor:g}\n{line}" if both else line
    group = f"param_groups[{place}]['lr'] *= {factor:g}"
    if trainer:
        return f"{trainer}.create_optimizer().{group}  # in front of {trainer}.train()"
    where = f"where optimizer{f' {which}' if several else ''} is made, in front of its schedule"
    line = f"optimizer.{group}  # {where}"
    hidden = f"\n# a schedule with a max_lr goes by that alone: {raised} then, a list"
    return line + (hidden if _hides(context) else "")


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
