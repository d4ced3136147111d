"""What the bench prints: a line for each run, and the score card of each set and column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def line(row: Mapping[str, Any]) -> str:
    """Return one run in one line."""
    where = f"{row['case']:<30} seed {row['seed']} {row['column']:<8}"
    if row["kind"] == "fault":
        mark = "ok  " if row["first"] else "late" if row["found"] else "MISS"
        advice = row["advice"] or {}
        said = f"{advice.get('parameter', '-')} = {str(advice.get('proposed'))[:60]}"
        wanted = f"(want {'|'.join(row['expect'])})"
        rules = ", ".join(row["rules"]) or "nothing"
        return f"{mark} {where} {rules} {wanted} after {row.get('delay', '-')} steps; {said}"
    alarms = "; ".join(f"{a['rule']} {a['severity']} at {a['first_step']}" for a in row["alarms"])
    if alarms:
        return f"FALSE {where} {alarms}"
    tempted = f" tempted: {', '.join(row['tempted'])}" if row["tempted"] else ""
    return f"{'tmpt' if tempted else 'ok  '} {where}{tempted} {', '.join(row['infos'])}".rstrip()


def mended(case: Mapping[str, Any]) -> str:
    """Return the efficacy of one case in one line."""
    if not case["clear"]:
        return (
            f"       {case['case']:<30} no clear gap ({case['gap']:.3g} ± {case['gap_error']:.2g})"
        )
    mark = "WORSE" if case["worse"] else "mends" if case["mended"] else "  no "
    folk = ", ".join(f"{name} {closed:.2f}" for name, closed in case["folk"].items())
    why = f" [{'; '.join(case['why_not'])}]" if case["why_not"] else ""
    said = ", ".join(case["parameters"])
    return f"{mark}  {case['case']:<30} closes {case['closed']:.2f} ({said}); {folk}{why}"


def card(name: str, told: Mapping[str, Any]) -> list[str]:
    """Return the lines of a score card."""
    lines = [f"\n{name}"]
    if "faults" in told:
        some = told["faults"]
        lines += [
            f"  faults                {some['cases']} cases, {some['runs']} runs",
            f"  found                 {_share(some['recall'], some['recall_interval'])}",
            f"  right cause first     {_share(some['right_cause_first'], some['first_interval'])}",
            f"  delay in steps        median {some['delay_median']:.0f}, 90 % within {some['delay_p90']:.0f}",
        ]
    if "healthy" in told:
        some = told["healthy"]
        low, high = some["runs_per_100_interval"]
        lines += [
            f"  healthy, look-alikes  {some['cases']} cases, {some['runs']} runs, {some['steps']} steps",
            f"  runs with an alarm    {some['runs_with_an_alarm']}: {some['runs_per_100']:.2f} in 100 "
            f"({low:.2f} to {high:.2f}), {some['criticals']} critical",
            f"  alarms                {some['alarms_per_1000_steps']:.4f} in 1,000 steps",
            f"  rules judged a run    {some['rules_judged_a_run']:.1f}, infos {some['infos_a_run']:.2f}",
        ]
        lines += [
            f"  tempted: {case} seed {seed}: {', '.join(rules)}"
            for case, seed, rules in told["tempted"]
        ]
    if "efficacy" in told:
        some = told["efficacy"]
        lines += [
            f"  efficacy              {some['cases']} faults with a clear gap, of {some['cases'] + len(some['left_out'])}",
            f"  mended (>= 80 %)      {some['mended']:.2f}, median of the gap closed {some['closed_median']:.2f}",
            f"  no folk remedy mends  {some['no_folk_remedy_mends']} of them; mended {some['of_these_mended']:.2f}",
            f"  worse than nothing    {some['worse']}",
        ]
        lines += [
            f"    {name:<19} {body['mended']:.2f}, median {body['closed_median']:.2f}"
            for name, body in some["folk"].items()
        ]
    return lines


def _share(share: float, ends: Sequence[float]) -> str:
    return f"{100 * share:.1f} % ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
