"""Peers on the runs of the fault bench: what their rules say of the same losses, norms and layers."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m benchmarks.peers`."""
    from .__main__ import main as run  # what it needs of torch is not needed by the pure rules

    return run(argv)
