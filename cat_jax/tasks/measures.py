"""Figures beside exact match."""

import math
from collections.abc import Mapping


def number_measures(answer: str, target: str, tolerance: float) -> Mapping[str, float]:
    """Return the absolute error of a number, and whether it is within a tolerance.

    An answer that is no number has no error (NaN), and is not close.
    """
    try:
        error = abs(float(answer) - float(target))
    except ValueError:
        error = math.nan
    return {"absolute_error": error, f"within_{tolerance:g}": float(error <= tolerance)}
