"""The healthy and look-alike tuning runs of the fault bench alone: what is said of them is a false alarm.

python -m benchmarks.silence [--only NAME] [--seeds 3] [--budget 0.02]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .faults import bench


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--budget", type=float, default=0.02)
    options = parser.parse_args(argv)
    column = "all" if options.budget > 0.1 else "defaults"
    asked = ["--kind", "healthy", "look-alike", "--column", column, "--seeds", options.seeds]
    return bench.main([*asked, "--only", options.only])


if __name__ == "__main__":
    raise SystemExit(main())
