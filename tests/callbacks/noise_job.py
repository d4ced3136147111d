"""What the distributed noise test launches: `python noise_job.py FOLDER`, one process of two.

Two fits of a regression with a known answer: one micro-batch in a step, and two.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch

from tests.callbacks.regressions import WINDOW, fit, rows

RANKS = 2
BATCH = 128


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for parts in (1, 2):
        data = rows(BATCH * WINDOW * 60, seed=parts)
        _, callback = fit(
            folder,
            data,
            BATCH // RANKS // parts,
            accumulate_grad_batches=parts,
            devices=RANKS,
            strategy="ddp",
        )
        if os.environ["RANK"] == "0":
            (folder / f"run-{parts}.txt").write_text(str(callback.run_id))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
