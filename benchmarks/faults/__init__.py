"""The fault bench: small runs that are ill, well, or only look ill, and what Otoscope says of them."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the whole bench, as `python -m benchmarks` does with each of its parts."""
    from .bench import main as bench

    return bench(argv or ["--full"])
