"""What is known of a step whose numbers are not finite: where they began, and odd settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.config import Guidance, LoraConfig, Optimizer
from cat_jax.errors import InputError
from cat_jax.types import Array, Bool

NONFINITE = "nonfinite_gradients"
"""Name of ``nonfinite_leaves`` of the gradient among the values of a step."""


def leaf_names(tree: Any) -> list[str]:
    """Return the path of every leaf, in the order of ``jax.tree.leaves``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]


def nonfinite_leaves(tree: Any) -> Bool[Array, " L"]:
    """Tell for every leaf whether its norm is NaN or infinite, bool [leaves].

    The sums of squares are those of the global norm, which XLA computes once.
    """
    return jnp.stack([~jnp.isfinite(jnp.sum(jnp.square(x))) for x in jax.tree.leaves(tree)])


def find_nonfinite(params: Any) -> str | None:
    """Return the path of the first parameter that holds NaN or infinity, and how many do."""
    wrong = _named(params, jax.device_get(_nonfinite_params(params)))
    return f"{wrong[0]}{_others(wrong)}" if wrong else None


def check_finite(params: Any) -> None:
    """Check parameters before training.

    Raises:
        InputError: One holds NaN or infinity; it is named.
    """
    wrong = find_nonfinite(params)
    if wrong is not None:
        raise InputError(
            f"the model holds NaN or infinity before training, in {wrong}; load its weights again, "
            "or take another model"
        )


@jax.jit
def _nonfinite_params(params: Any) -> Bool[Array, " L"]:
    return jnp.stack([~jnp.isfinite(x).all() for x in jax.tree.leaves(params)])


def first_nonfinite(values: Mapping[str, float], flags: Any, params: Any) -> str:
    """Say which value of a step was the first that is not finite.

    Args:
        values: Losses and gradient norm of the step.
        flags: ``nonfinite_leaves`` of its gradient.
        params: Parameters, whose leaves the gradient has.
    """
    terms = [name for name in ("next_token_loss", "guidance_loss") if name in values]
    # A batch without annotated queries has no guidance loss: it is NaN beside a finite loss.
    for name in () if np.isfinite(values["loss"]) else (*terms, "loss"):
        if not np.isfinite(values[name]):
            others = [n for n in (*terms, "gamma") if n in values and n != name]
            shown = ", ".join(f"{n} {values[n]:.4g}" for n in others)
            return f"{name} is {values[name]}" + (f" ({shown})" if shown else "")
    wrong = _named(params, flags)
    where = f"gradient of {wrong[0]}{_others(wrong)} is not finite" if wrong else "norm overflows"
    return f"loss {values['loss']:.4g}, gradient norm {values['gradient_norm']}: the {where}"


def unusual_settings(
    optimizer: Optimizer, guidance: Guidance | None = None, lora: LoraConfig | None = None
) -> list[str]:
    """Return the settings that are far from usual, each as a clause."""
    guidance = guidance or Guidance()
    rules = [
        ("optimizer.learning_rate", optimizer.learning_rate, "at most 0.01", 0, 0.01),
        ("optimizer.b2", optimizer.b2, "0.95 to 0.999", 0.9, 1),
        ("optimizer.clip", optimizer.clip, "about 1", 0, 100),
        ("optimizer.weight_decay", optimizer.weight_decay, "0 to 0.1", 0, 1),
        ("guidance.weight", guidance.weight, "0.1 to 10", 0, 100),
        ("guidance.alpha", guidance.alpha, "about 2", 0, 100),
    ]
    if lora is not None:
        rules.append(("lora.alpha / lora.rank", lora.scale, "0.5 to 2", 0, 16))
    return [
        f"{name} is {value:g} (usual: {usual})"
        for name, value, usual, low, high in rules
        if not low <= value <= high
    ]


def advice(step: int, unusual: Sequence[str]) -> str:
    """Say what to change: what is unusual, or else what is left."""
    if unusual:
        return f"far from usual: {', '.join(unusual)}"
    if step == 1:  # before any update
        return "no parameter was updated yet: look at the data, model.dtype and guidance.form"
    return "no setting is far from usual; try a lower optimizer.learning_rate or optimizer.clip"


def _named(tree: Any, flags: Any) -> list[str]:
    return [name for name, wrong in zip(leaf_names(tree), flags, strict=True) if wrong]


def _others(wrong: Sequence[str]) -> str:
    return f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
