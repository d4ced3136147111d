"""Runs that take turns: several trainings, each in a process of its own, of which one works at a time.

A shared machine is some percent faster or slower from one second to the next, so runs one after the
other differ by more than what is to be measured. Here each works for a fraction of a second and hands
over between two epochs, where Otoscope starts its clock anew; what a slow spell costs, it costs all of
them. What a process computes while it has no turn (a thread that sends) is added to its wall time.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import pytorch_lightning as lightning
import torch

TURN = 0.4
"""Seconds of a turn, at least: it ends with the epoch."""


class Baton(lightning.Callback):
    """Lets a training work only while it is its turn, and knows what it used in the meantime."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self.waited = self.beside = 0.0
        self._begun = time.perf_counter()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if time.perf_counter() - self._begun < TURN:
            return
        before = time.perf_counter(), time.process_time()
        self._link.send(None)
        self._link.recv()
        self._begun = time.perf_counter()
        self.waited += self._begun - before[0]
        self.beside += time.process_time() - before[1]


@dataclass(frozen=True)
class Work:
    """What a process shall do: `train(argument, baton)` returns wall and CPU seconds, and a figure."""

    train: Callable[..., tuple[float, float, float]]
    argument: Any


def serve(link: Connection, threads: int) -> None:
    """Do the work that comes over a link, in turns, until there is no more."""
    for name in ("pytorch_lightning", "lightning.pytorch", "otoscope"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (work := link.recv()) is not None:
            link.recv()
            gc.collect()
            baton = Baton(link)
            wall, cpu, figure = work.train(work.argument, baton)
            link.send((wall - baton.waited + baton.beside, cpu, figure))


@contextlib.contextmanager
def workers(count: int, threads: int) -> Iterator[list[Connection]]:
    """Give links to as many processes, which end with the block."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(count)]
    processes = [
        context.Process(target=serve, args=(there, threads), daemon=True) for _, there in pairs
    ]
    for process, (_, there) in zip(processes, pairs, strict=True):
        process.start()
        there.close()
    try:
        yield [here for here, _ in pairs]
    finally:
        for here, _ in pairs:
            here.close()
        for process in processes:
            process.join(10)
            process.terminate()


def in_turns(
    links: Sequence[Connection], works: Sequence[Work], seed: int
) -> list[tuple[float, float, float]]:
    """Have each process do its work, and return (wall seconds, CPU seconds, figure) of each.

    The order of the turns is another one each time around, by `seed`.
    """
    for link, work in zip(links, works, strict=True):
        link.send(work)
    chance = random.Random(seed)
    found: dict[int, tuple[float, float, float]] = {}
    while open_ := [i for i in range(len(links)) if i not in found]:
        chance.shuffle(open_)
        for i in open_:
            links[i].send(None)
            try:
                answer = links[i].recv()
            except EOFError:
                raise SystemExit("a training ended before its time: see what it wrote") from None
            if answer is not None:
                found[i] = answer
    return [found[i] for i in range(len(links))]
