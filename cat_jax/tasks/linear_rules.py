"""Linear rules fitted to the values of factors: what a linear learner gets from them."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy.optimize import minimize

from cat_jax.tasks.causal_model import Values

LinearFit = Literal["least_squares", "logistic"]


def fit_linear_rule(
    values: Sequence[Values],
    targets: Sequence[str],
    factors: Sequence[str],
    fit: LinearFit = "least_squares",
) -> Callable[[Values], str]:
    """Fit answers as a linear function of some factors and an intercept.

    Numbers are regressed and rounded to whole ones within the range of the training answers;
    of other answers, each is scored and the highest wins.

    Args:
        values: Factors of every training record.
        targets: Its answer.
        factors: Factors that the rule may read.
        fit: Least squares, or a logistic regression, which several classes in a row need.

    Returns:
        Rule from the values of a record to its answer.
    """
    design = np.array([_row(row, factors) for row in values])
    if all(_is_number(target) for target in targets):
        numbers = np.array([float(target) for target in targets])
        weights = np.linalg.lstsq(design, numbers, rcond=None)[0]
        low, high = numbers.min(), numbers.max()
        return lambda row: str(round(float(np.clip(_row(row, factors) @ weights, low, high))))
    classes = sorted(set(targets))
    is_class = np.array([[target == name for name in classes] for target in targets], float)
    if fit == "least_squares":
        scores = np.linalg.lstsq(design, is_class, rcond=None)[0]
    else:
        scores = _logistic(design, is_class)
    return lambda row: classes[int(np.argmax(_row(row, factors) @ scores))]


def _row(values: Values, factors: Sequence[str]) -> np.ndarray:
    return np.array([*(values[name] for name in factors), 1.0])


def _is_number(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _logistic(design: np.ndarray, is_class: np.ndarray, ridge: float = 1e-3) -> np.ndarray:
    """Return the weights [D, C] of a multinomial logistic regression; separable data need ridge."""
    scale = np.maximum(np.abs(design).max(axis=0), 1e-9)
    scaled = design / scale
    count, (width, classes) = len(design), (design.shape[1], is_class.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(width, classes)
        logits = scaled @ weights
        logits -= logits.max(axis=1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        value = -(is_class * log_probs).sum() / count + ridge * (weights**2).sum() / 2
        gradient = scaled.T @ (np.exp(log_probs) - is_class) / count + ridge * weights
        return float(value), gradient.ravel()

    found = minimize(loss, np.zeros(width * classes), jac=True, method="L-BFGS-B")
    return found.x.reshape(width, classes) / scale[:, None]
