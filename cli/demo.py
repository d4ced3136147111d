"""`otoscope demo`: a fault is planted, found, mended; what `make demo` ends in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Event
from typing import Any

import click
from rich.progress import Progress
from rich.text import Text

from ..store import MissingExtraError
from ..store.login import port_is_free
from ..store.places import read_address
from .demonstration import FAULTS, Demonstration, Outcome, StoppedError, advised_setting
from .printing import console, number, print_json, print_table
from .progress import bars
from .signals import ending_signals
from .stack import Stack, answers
from .up import DEFAULT_PORT, PASTE, greet, open_page


@click.command(
    epilog="\b\nExample:\n  otoscope demo\n  otoscope demo --fault dead_units --seed 3\n"
    "  otoscope demo --once --json     # exit code 0 only if the fault was found and mended",
)
@click.option("--fault", type=click.Choice(FAULTS), default=FAULTS[0], show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--once", is_flag=True, help="End when it is through, instead of serving the page on."
)
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the page [default: 8050, or a free one]."
)
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
@click.pass_context
def demo(
    context: click.Context,
    fault: str,
    seed: int,
    once: bool,
    as_json: bool,
    port: int | None,
    no_browser: bool,
) -> None:
    """Train a healthy and a faulty net, watch the fault being named, and mend it.

    Both learn handwritten digits on this machine. Otoscope names the fault and computes a setting;
    the faulty net is trained again with exactly that, and the three are compared.
    """
    require_training_packages()
    say: Callable[[str], None] = (lambda line: None) if as_json else click.echo
    with ending_signals() as stop, running_stack(port, stop, say) as stack:
        if not as_json and not stop.is_set():
            greet(stack)
            if not (no_browser or once):
                open_page(stack)
        try:
            if stop.is_set():
                raise StoppedError("the demo was ended while it started")
            outcome = play(fault, seed, stack, stop, say)
        except StoppedError as error:
            click.echo(str(error), err=True)
            context.exit(1 if once else 0)
        show(outcome, as_json=as_json, served=stack.foreign or not once)
        if not once:
            say(f"\nThe page stays at {stack.page} until Ctrl-C. Now a run of your own:\n\n{PASTE}")
            stack.watch()
    context.exit(0 if not once or (outcome.found and outcome.mended) else 1)


def require_training_packages() -> None:
    """Raise MissingExtraError where this environment cannot train (it may only show runs)."""
    missing = [
        name for name in ("torch", "pytorch_lightning", "sklearn") if find_spec(name) is None
    ]
    if missing:
        raise MissingExtraError(
            f"the demo trains, and {', '.join(missing)} is not installed; "
            'install it with `pip install "otoscope[lightning]"`'
        )


@contextmanager
def running_stack(port: int | None, stop: Event, say: Callable[[str], None]) -> Iterator[Stack]:
    """Yield the parts: those that `otoscope up` runs already, else our own, ended afterwards."""
    address = read_address()
    if port is None and address is not None and answers(f"{address.dashboard}/healthz"):
        stack = Stack.of(address, stop)
        yield stack
        return
    stack = Stack(
        port=port or _port(), url=os.environ.get("OTOSCOPE_URL") or None, stop=stop, say=say
    )
    try:
        stack.start()
        yield stack
    finally:
        stack.end()


def _port() -> int:
    """Return the usual port, else the next free one: a demo should not fail for that."""
    ports = range(DEFAULT_PORT, DEFAULT_PORT + 50)
    return next((port for port in ports if port_is_free(port)), DEFAULT_PORT)


def play(fault: str, seed: int, stack: Stack, stop: Event, say: Callable[[str], None]) -> Outcome:
    """Run the demonstration with a progress bar a training."""
    with bars() as progress:

        def speak(line: str) -> None:
            if progress.disable:
                say(line)
            else:  # above the bars, which would else be drawn into it
                progress.console.print(line, markup=False, highlight=False)

        demonstration = Demonstration(
            fault,
            seed,
            url=stack.url,
            page=stack.page,
            check=stack.check,
            stop=stop,
            say=speak,
            move=_mover(progress),
        )
        return demonstration.run()


def _mover(progress: Progress) -> Callable[[str, int, int | None], None]:
    tasks: dict[str, Any] = {}

    def move(name: str, step: int, steps: int | None) -> None:
        if name not in tasks:
            tasks[name] = progress.add_task(name, total=steps)
        progress.update(tasks[name], completed=step, total=steps)

    return move


def show(outcome: Outcome, *, as_json: bool, served: bool) -> None:
    """Print what came of it: JSON, or the three runs side by side; `served` while the page stays."""
    if as_json:
        print_json(outcome.to_json())
        return
    advice = outcome.recommendation
    if advice is None:
        console().print(Text(f"\nNot found: {outcome.fault}", style="bold red"))
        return
    change = f"{advised_setting(outcome)} ({advice['basis']})"
    console().print(Text(f"\nFound {outcome.rule}; set {change}", style="bold"))
    print_table(
        ("", "before", "after", "healthy"),
        [
            (
                "final validation loss",
                number(outcome.before),
                number(outcome.after),
                number(outcome.healthy),
            )
        ],
    )
    verdict = (
        Text("mended", style="bold green") if outcome.mended else Text("not mended", "bold red")
    )
    console().print(Text(f"{100 * outcome.gap_closed:.0f} % of the gap closed: ").append(verdict))
    console().print(
        f"See {outcome.url}"
        if served
        else "The runs are kept; `otoscope up` shows them on its page."
    )
