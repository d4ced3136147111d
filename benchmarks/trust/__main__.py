"""Runs the trust benchmark: `python -m benchmarks.trust`."""

from . import main

if __name__ == "__main__":
    raise SystemExit(main())
