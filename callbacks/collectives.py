"""Collectives: refused while one rank alone runs the model, for the others would never answer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from ..store import OtoscopeError


class CollectiveError(OtoscopeError):
    """Raised when a loss that only one rank runs asks for a collective of all ranks."""


FUNCTIONS = (
    "all_gather",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_reduce",
    "all_reduce_coalesced",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "batch_isend_irecv",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "gather_object",
    "irecv",
    "isend",
    "monitored_barrier",
    "new_group",
    "new_subgroups",
    "recv",
    "recv_object_list",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "scatter",
    "scatter_object_list",
    "send",
    "send_object_list",
    "split_group",
    "_all_gather_base",
    "_broadcast_coalesced",
    "_reduce_scatter_base",
)
"""Of torch.distributed; refused by their own names, which is what a person reads in the event."""

METHODS = (
    "_allgather_base",
    "_reduce_scatter_base",
    "all_gather_single",
    "all_gather_single_coalesced",
    "all_to_all_single",
    "allgather",
    "allgather_coalesced",
    "allgather_into_tensor_coalesced",
    "allreduce",
    "allreduce_coalesced",
    "alltoall",
    "alltoall_base",
    "barrier",
    "broadcast",
    "gather",
    "monitored_barrier",
    "recv",
    "recv_anysource",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_single",
    "reduce_scatter_single_coalesced",
    "reduce_scatter_tensor_coalesced",
    "scatter",
    "send",
)
"""Of a process group: what a function that was imported by its name comes to."""

OPERATORS = (
    "all_gather_into_tensor",
    "all_gather_into_tensor_coalesced",
    "all_gather_into_tensor_out",
    "all_reduce",
    "all_reduce_",
    "all_reduce_coalesced",
    "all_reduce_coalesced_",
    "all_to_all_single",
    "broadcast",
    "broadcast_",
    "reduce_scatter_tensor",
    "reduce_scatter_tensor_coalesced",
)
"""Of torch.ops._c10d_functional: what functional collectives and DTensors come to."""


_ELSEWHERE = object()


@contextlib.contextmanager
def no_collectives() -> Iterator[None]:
    """Let every collective raise CollectiveError, where there is more than one rank.

    Other threads of the process (a checkpoint that is saved in the background) go on undisturbed;
    those that autograd runs a backward pass in count as ours.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        yield
        return
    taken: list[tuple[Any, str, Any]] = []
    ours = threading.get_ident()
    try:
        for place, name, words in _doors():
            if hasattr(place, name):
                # as it stands there: what a class gives out is no method any more
                taken.append((place, name, vars(place).get(name, _ELSEWHERE)))
                setattr(place, name, _refuse(words, getattr(place, name), ours))
        yield
    finally:
        for place, name, held in reversed(taken):
            if held is _ELSEWHERE:
                delattr(place, name)
            else:
                setattr(place, name, held)


def _doors() -> Iterator[tuple[Any, str, str]]:
    """Yield where collectives can be reached: owner, name, and what to call it."""
    for name in FUNCTIONS:
        for place in (dist, dist.distributed_c10d):
            yield place, name, f"torch.distributed.{name}"
    for name in METHODS:
        yield dist.ProcessGroup, name, f"ProcessGroup.{name}"
    for name in OPERATORS:
        yield torch.ops._c10d_functional, name, f"the functional collective {name}"
    yield DistributedDataParallel, "forward", "DistributedDataParallel (the module's wrapper)"


def _refuse(words: str, function: Callable[..., Any], ours: int) -> Callable[..., Any]:
    def refused(*args: Any, **kwargs: Any) -> Any:
        if is_elsewhere(ours):
            return function(*args, **kwargs)
        raise CollectiveError(
            f"the loss calls {words}, but only this rank runs it to look at its curvature; "
            "offer curvature_loss(batch) on the module without it"
        )

    return refused


def is_elsewhere(ours: int) -> bool:
    """Tell whether this is a thread of the user's, not `ours` and none of autograd's."""
    # python made no object for a thread that autograd started, until we asked
    return threading.get_ident() != ours and not isinstance(
        threading.current_thread(), threading._DummyThread
    )
