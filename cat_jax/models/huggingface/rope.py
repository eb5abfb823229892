"""Rotary settings of Hugging Face (``rope_parameters`` of transformers 5) and ours."""

import math
from collections.abc import Mapping
from typing import Any

from cat_jax.errors import InputError
from cat_jax.models.config import ModelConfig
from cat_jax.models.rope import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling

ORIGINAL = "original_max_position_embeddings"
LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    ORIGINAL: "original_max_positions",
}
"""The names of Hugging Face and the fields of ``Llama3Scaling``."""
YARN_OPTIONS = ("beta_fast", "beta_slow", "truncate")
# What each type is made of, besides rope_theta; "type" is an older name of "rope_type".
FIELDS = {
    "default": set(),
    "linear": {"factor"},
    "llama3": set(LLAMA3),
    "yarn": {"factor", ORIGINAL, "attention_factor", "mscale", "mscale_all_dim", *YARN_OPTIONS},
}
# Where a model was pretrained on its full context, the original length beside it changes nothing.
NEUTRAL = {"rope_theta", "rope_type", "type", ORIGINAL}


def rope_problem(rope: Mapping[str, Any]) -> str | None:
    """Return what of the rotary settings is not computed here."""
    kind = rope.get("rope_type")
    if kind not in FIELDS:
        known = ", ".join(FIELDS)
        return f"rope_type = {kind!r} (computed are {known})"
    if rope.get("type", kind) != kind:
        return f"rope_type = {kind!r} beside type = {rope['type']!r}"
    unknown = sorted(k for k in rope.keys() - FIELDS[kind] - NEUTRAL if rope[k] not in (None, 1))
    if unknown:
        return f"rope_parameters.{unknown[0]} = {rope[unknown[0]]!r}"
    return None


def rope_from_hf(
    rope: Mapping[str, Any], max_positions: int
) -> tuple[float, RopeScaling | None, int]:
    """Return theta, scaling and the longest position of rotary settings without ``rope_problem``.

    Args:
        rope: ``rope_parameters``.
        max_positions: ``max_position_embeddings``.

    Raises:
        InputError: A number that cannot be.
    """
    _check_numbers(rope)
    theta, kind = float(rope["rope_theta"]), rope["rope_type"]
    if kind == "linear":
        # Models of this kind give the length before interpolation.
        return theta, LinearScaling(rope["factor"]), int(max_positions * rope["factor"])
    if kind == "llama3":
        scaling = Llama3Scaling(**{ours: rope[theirs] for theirs, ours in LLAMA3.items()})
        return theta, scaling, max_positions
    if kind == "yarn":
        scaling = _yarn(rope, max_positions)
        longest = int(scaling.factor * scaling.original_max_positions)
        return theta, scaling, max(max_positions, longest)
    return theta, None, max_positions


def _check_numbers(rope: Mapping[str, Any]) -> None:
    for name in FIELDS[rope["rope_type"]] | {"rope_theta"}:
        value = rope.get(name)
        is_optional = rope["rope_type"] == "yarn" or name in rope
        if (value is None and is_optional) or isinstance(value, int | float):
            continue
        raise InputError(f"rope_parameters.{name} must be a number, got {value!r}")


def _yarn(rope: Mapping[str, Any], max_positions: int) -> YarnScaling:
    """Resolve the defaults of YaRN as ``transformers.modeling_rope_utils`` does."""
    original = rope.get(ORIGINAL) or max_positions
    factor = rope.get("factor") or max_positions / original
    attention_factor = rope.get("attention_factor")
    if attention_factor is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        attention_factor = _mscale(factor, rope["mscale"]) / _mscale(factor, rope["mscale_all_dim"])
    given = {name: rope[name] for name in YARN_OPTIONS if rope.get(name) is not None}
    return YarnScaling(factor, original, attention_factor, **given)


def _mscale(factor: float, scale: float) -> float:
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


def rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Return ``rope_parameters`` of a configuration."""
    scaling = config.rope_scaling
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    match scaling:
        case LinearScaling():
            rope |= {"rope_type": "linear", "factor": scaling.factor}
        case Llama3Scaling():
            rope |= {hf: getattr(scaling, ours) for hf, ours in LLAMA3.items()}
            rope["rope_type"] = "llama3"
        case YarnScaling():
            rope |= {name: getattr(scaling, name) for name in ("factor", *YARN_OPTIONS)}
            rope |= {"rope_type": "yarn", ORIGINAL: scaling.original_max_positions}
            if scaling.attention_factor is not None:
                rope["attention_factor"] = scaling.attention_factor
    return rope


def max_positions_to_hf(config: ModelConfig) -> int:
    """Return ``max_position_embeddings``, from which ``rope_from_hf`` gives the longest position.

    Readers take the factor of YaRN from it and the original length, if they do not read it.
    """
    if isinstance(config.rope_scaling, LinearScaling):
        return round(config.max_positions / config.rope_scaling.factor)
    return config.max_positions
