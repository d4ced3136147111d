"""Outlier features: a layer in which single outputs are many times larger than all others.

What: the largest output of a linear layer over eight times the root mean square of all of them,
in two of three samples. Gaussian outputs reach four to five.
Why: numbers of eight bits, scaled to the largest, leave no digits to the others: such a net loses
its accuracy when it is quantized.
Source: Dettmers et al. 2022, LLM.int8().
"""

from __future__ import annotations

import numpy as np
from otoscope.diagnostics import (
    Case,
    Context,
    Evidence,
    Recommendation,
    Verdict,
    Window,
    breach,
    fine,
    unknown,
)

FAMILY = "outliers"
NUMBERS = {"fire": 8.0, "severity": "warning"}


def judge(window: Window, context: Context) -> Verdict:
    """Breach where the last sample of a layer is over `fire`."""
    found = window.layers("outliers", "outlier_ratio", count=1)
    if not len(found) or not np.isfinite(found.values).any():
        return unknown("no layer's outputs have been seen yet")
    ratios = np.nan_to_num(found.values[-1])
    worst = int(np.argmax(ratios))
    limit = context.thresholds.fire
    if ratios[worst] <= limit:
        return fine(float(ratios[worst]) / limit)
    layer, ratio = found.layers[worst], float(ratios[worst])
    seen = Evidence(
        f"largest output {ratio:.0f} times the root mean square of all",
        "outliers",
        f"outlier_ratio/{layer}",
        int(found.steps[-1]),
        ratio,
        limit,
    )
    return breach(
        ratio / limit,
        Case(
            title=f"Outlier features in `{layer}`",
            why="Quantized to eight bits, the other outputs of the layer would keep no digits.",
            because=(seen,),
            recommendation=Recommendation(
                parameter="weight_decay",
                current=context.optimizer.get("weight_decay"),  # type: ignore[arg-type]
                proposed=0.1,
                formula="as large language models are trained; it holds single rows back",
                snippet="torch.optim.AdamW(model.parameters(), weight_decay=0.1)",
                effect="single units no longer grow far beyond the others",
                verify="the ratio falls below eight",
            ),
            may_be_normal="A net that is never quantized loses nothing by them.",
            layers=(layer,),
        ),
    )
