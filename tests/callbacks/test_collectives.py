"""Collectives in a look of ours: refused, for the other ranks would never come."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from otoscope.callbacks.collectives import CollectiveError, no_collectives
from torch import distributed, nn


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A process group of one that says it has two ranks."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0,
                                   world_size=1)  # fmt: skip
    monkeypatch.setattr(distributed, "get_world_size", lambda *_: 2)
    yield distributed.distributed_c10d._get_default_group()
    monkeypatch.undo()
    distributed.destroy_process_group()


def test_a_collective_is_refused_whatever_door_it_comes_by(group) -> None:
    from torch.distributed import _functional_collectives, all_reduce

    calls = {
        "by its module": lambda: distributed.barrier(),
        "for a group to be made": lambda: distributed.new_group([0, 1]),
        "imported by name": lambda: all_reduce(torch.ones(1)),
        "of the group": lambda: group.allreduce([torch.ones(1)]),
        "functional": lambda: _functional_collectives.all_reduce(torch.ones(1), "sum", group),
    }
    with no_collectives():
        for call in calls.values():
            with pytest.raises(CollectiveError, match="only this rank runs it"):
                call()
    assert all_reduce(torch.ones(1)) is None
    group.allreduce([torch.ones(1)]).wait()
    functional: Any = _functional_collectives.all_reduce(torch.ones(1), "sum", group)
    functional.wait()


def test_another_thread_may_go_on_with_its_collectives(group) -> None:
    tensor, done = torch.ones(2), []

    def checkpoint() -> None:
        distributed.all_reduce(tensor)
        done.append(True)

    with no_collectives():
        thread = threading.Thread(target=checkpoint)
        thread.start()
        thread.join(20)
    assert done


def test_a_model_in_its_distributed_wrapper_is_refused(group) -> None:
    wrapped = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
    with no_collectives(), pytest.raises(CollectiveError, match="DistributedDataParallel"):
        wrapped(torch.ones(1, 2))
