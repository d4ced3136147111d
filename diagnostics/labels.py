"""Labels: how many classes they are of, how often each comes, and what weighs them alike."""

from __future__ import annotations

import math

import numpy as np

from .rule import Context
from .windows import Window

LETTERS = 24
"""Classes of tokens, beyond which they are the letters of a text, and no tags of its words."""


def how_many(window: Window, context: Context) -> int:
    """Return how many classes there are, as told, else as many as are counted; 0 where nobody knows."""
    return int(context.meta.classes or classes_of(window))


def is_binary(window: Window, context: Context) -> bool:
    """Tell whether the net gives one number a sample, of which a sigmoid would make a probability."""
    if how_many(window, context) >= 2:
        return False
    return not len(window.samples("head", "label_entropy").finite)  # else of more than are recorded


def classes_of(window: Window) -> int:
    """Return of how many classes it is counted how often they come."""
    table = window.history.tables.get("head")
    if table is None:
        return 0
    columns = table.schema.columns
    return window.history.once(
        "wrong_head.classes", (columns,), lambda: sum("class_share" in c.name for c in columns)
    )


def are_text(window: Window, context: Context) -> bool:
    """Tell whether the net is one of language: its inputs are tokens, with a label for each of them."""
    read = [
        window.history.column("inputs", name, context.start, window.step).values
        for name in ("is_integer", "label_entropy")
    ]
    return bool(len(read[0]) and (read[0] == 1).all() and np.isnan(read[1]).all())


def shares_of(window: Window) -> np.ndarray:
    """Return the share of each class in all labels seen; empty where it was not recorded of each."""
    found = [
        window.samples("head", f"class_share_{place}", count=1)
        for place in range(classes_of(window))
    ]
    if not found or not all(len(samples) for samples in found):
        return np.empty(0)
    return np.array([samples.values[-1] for samples in found])


def weights_of(shares: np.ndarray) -> list[float]:
    """Return the weight of each class that makes them count alike, from the shares of the labels."""
    known = np.where(shares > 0, shares, np.nan)
    weights = 1 / (np.isfinite(known).sum() * known)
    return [float(f"{w:.3g}") if math.isfinite(w) else 1.0 for w in weights]
