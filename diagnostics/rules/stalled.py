"""The run makes no steps any more.

What: every process has been silent for 60 seconds, or for ten steps where those are longer, by the
clock of the daemon, which writes it down as an event; half an hour where a validation or a checkpoint
was begun. It is over as soon as steps come again, or the run ends as it should.
Why: a process that waits in a collective waits for ever; a job that hangs costs as much as one that
trains.
Source: hanging collectives, loaders that died and full disks are found hours later by who looks at
the loss; heartbeats of each process tell within a minute which one moved last.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...store import Evidence, Recommendation
from ...store.schemas import Json
from ..rule import Case, Context, Verdict, breach, fine
from ..windows import Window

FAMILY = "train"
SHOWN = 8


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the daemon saw the run fall silent, and no step came since."""
    stall = context.memory.get("stall")
    if stall is None or window.step > stall["step"] or context.memory.get("ended"):
        return fine()
    return breach(2.0, _case(context, stall), certain=True)


def _case(context: Context, stall: Mapping[str, Json]) -> Case:
    seconds, step = float(stall["seconds"]), int(stall["step"])
    steps = {int(rank): int(last) for rank, last in (stall.get("steps") or {}).items()}
    silent = {int(rank): float(age) for rank, age in (stall.get("silent") or {}).items()}
    several = context.meta.world_size > 1
    behind = sorted(rank for rank, last in steps.items() if last < max(steps.values()))
    first = sorted(silent, key=lambda rank: -silent[rank])
    suspects = behind or (first[:1] if several else [])
    because = [
        Evidence(
            f"no step for {seconds:,.0f} s behind step {step:,}"
            + (", in a validation or at a checkpoint" if stall.get("pause") else ""),
            step=step,
            value=seconds,
        )
    ]
    if several:
        because += [_told(context, rank, steps, silent) for rank in (behind + first)[:SHOWN]]
    who = f"rank {suspects[0]}" if suspects else "its process"
    where = context.meta.hosts.get(str(suspects[0])) if suspects else None
    return Case(
        title=f"The run has made no step for {seconds:,.0f} seconds, since step {step:,}",
        why="Nothing is trained, and what it runs on is paid for. A process that waits for another "
        "one waits until it is killed.",
        because=tuple(_once(because)),
        recommendation=Recommendation(
            parameter="inspect",
            current=None,
            proposed=suspects or [step],
            basis="from your run",
            formula="ranks whose last step is behind the others'"
            if behind
            else "the process that was heard of first and not since",
            snippet=f"# where does {who}{f' on {where}' if where else ''} stand?\n"
            "# in a shell: py-spy dump --pid PID; or kill -QUIT PID, after faulthandler.register(signal.SIGQUIT)",
            effect="the run goes on, or is begun again from its last checkpoint",
            verify="steps come again",
            risk="a run that is killed loses the steps behind its last checkpoint",
        ),
        may_be_normal="A long pause on purpose: data that are downloaded, a process that was "
        "stopped, a laptop that slept.",
        severity="critical",
        ranks=tuple(suspects),
        onset=step,
    )


def _told(
    context: Context, rank: int, steps: Mapping[int, int], silent: Mapping[int, float]
) -> Evidence:
    host = context.meta.hosts.get(str(rank))
    last = f"last step {steps[rank]:,}" if rank in steps else "no step"
    age = f", silent for {silent[rank]:,.0f} s" if rank in silent else ""
    where = f" on {host}" if host else ""
    return Evidence(f"rank {rank}{where}: {last}{age}", None, None, steps.get(rank))


def _once(items: list[Evidence]) -> list[Evidence]:
    return list({item.text: item for item in items}.values())
