"""Low-rank adapters (LoRA, Hu et al. 2021) as pure functions on parameters, in PEFT's terms.

Adapters are a tree of their own, and ``attach_lora`` hands them to the model inside the parameters.
Each is applied as (x a) b: merging in every step would materialise a second copy of the weights,
and PEFT drops inputs of ``a`` alone, which no merged weight expresses.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from cat_jax.config import LoraConfig
from cat_jax.errors import InputError
from cat_jax.models.config import ModelConfig
from cat_jax.models.huggingface.tensors import (
    KERNELS,
    TensorRule,
    axis_sizes,
    count_params,
    shape_problems,
)
from cat_jax.models.projection import LowRank
from cat_jax.models.quantization import Int8Kernel, dequantize_layers
from cat_jax.types import Array


def adapter_rules(lora: LoraConfig) -> list[TensorRule]:
    """Return the rules of ``lora_A`` and ``lora_B`` of every target."""
    rules = []
    for target in sorted(lora.targets):
        kernel = KERNELS[target]
        hf_out, hf_in = kernel.hf_axes.split()
        parent, module = kernel.path.removesuffix("kernel"), kernel.hf_name.removesuffix("weight")
        for name, hf_axes, axes in (
            ("A", f"R {hf_in}", [*hf_in, "R"]),
            ("B", f"{hf_out} R", ["R", *hf_out]),
        ):
            rules.append(
                TensorRule(
                    f"{module}lora_{name}.weight", hf_axes, parent + name.lower(), " ".join(axes)
                )
            )
    return rules


def adapter_sizes(config: ModelConfig, lora: LoraConfig) -> dict[str, int]:
    """Return the sizes of the axes that ``adapter_rules`` names."""
    return axis_sizes(config) | {"R": lora.rank}


def count_adapters(config: ModelConfig, lora: LoraConfig) -> int:
    """Return the number of parameters of all adapters."""
    return count_params(adapter_rules(lora), adapter_sizes(config, lora), config.num_layers)


def init_lora(key: Array, config: ModelConfig, lora: LoraConfig) -> dict[str, Any]:
    """Initialize adapters, float32: ``b`` is zero, so that they change nothing yet.

    ``a`` is uniform within 1 / sqrt(inputs) as in PEFT (Kaiming's bound for a slope of sqrt(5)).
    """
    adapters = {}
    for index, rule in enumerate(adapter_rules(lora)):
        shape = rule.shape(adapter_sizes(config, lora), config.num_layers)
        if rule.path.endswith("b"):
            adapters[rule.path] = jnp.zeros(shape)
        else:
            bound = math.prod(shape[1:-1]) ** -0.5
            key_here = jax.random.fold_in(key, index)
            adapters[rule.path] = jax.random.uniform(key_here, shape, minval=-bound, maxval=bound)
    return unflatten_dict(adapters, sep="/")


def attach_lora(
    params: Mapping[str, Any],
    adapters: Mapping[str, Any],
    lora: LoraConfig,
    dropout_key: Array | None = None,
) -> dict[str, Any]:
    """Return parameters that compute with the adapters; nothing is copied.

    Args:
        params: Parameters of the model.
        adapters: As from ``init_lora``.
        lora: Form of the adapters.
        dropout_key: Key of the dropout of one training step; None drops nothing.

    Raises:
        InputError: The adapters are not of this form, or not for this model.
    """
    attached: dict[str, Any] = flatten_dict(params, sep="/")
    for index, (path, a, b) in enumerate(_adapters_of(params, adapters, lora)):
        keys_N = None
        if dropout_key is not None and lora.dropout:
            keys_N = jax.random.split(jax.random.fold_in(dropout_key, index), len(a))
        attached[f"{path}/lora"] = LowRank(a, b, keys_N, lora.dropout, lora.scale)
    return unflatten_dict(attached, sep="/")


def merge_lora(
    params: Mapping[str, Any], adapters: Mapping[str, Any], lora: LoraConfig
) -> dict[str, Any]:
    """Return parameters with the adapters added to the kernels, which keep their dtype.

    A kernel in int8 that has an adapter becomes float32, as rounding again would lose much of what
    was learned; those without an adapter stay as they are.

    Raises:
        InputError: As ``attach_lora``.
    """
    merged: dict[str, Any] = flatten_dict(params, sep="/")
    for path, a, b in _adapters_of(params, adapters, lora):
        product = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1, precision="highest"))(a, b)
        kernel = merged[f"{path}/kernel"]
        if isinstance(kernel, Int8Kernel):
            kernel = dequantize_layers(kernel)
        merged[f"{path}/kernel"] = (kernel + lora.scale * product).astype(kernel.dtype)
    return unflatten_dict(merged, sep="/")


def check_adapters(
    adapters: Mapping[str, Any], lora: LoraConfig, sizes: Mapping[str, int], num_layers: int
) -> None:
    """Compare adapters with what ``init_lora`` would give.

    Raises:
        InputError: They are of another form or for another model; all differences are listed.
    """
    flat: dict[str, Any] = flatten_dict(adapters, sep="/")
    shapes = {rule.path: rule.shape(sizes, num_layers) for rule in adapter_rules(lora)}
    problems = shape_problems(flat, shapes)
    if problems:
        raise InputError(
            f"the adapters do not fit rank {lora.rank} on {', '.join(lora.targets)} of this "
            f"model: {'; '.join(problems)}"
        )


def _adapters_of(
    params: Mapping[str, Any], adapters: Mapping[str, Any], lora: LoraConfig
) -> Iterator[tuple[str, Array, Array]]:
    """Yield the path of the projection, a and b of every adapter; all fit."""
    kernels: dict[str, Any] = flatten_dict(params, sep="/")
    sizes, num_layers = {"R": lora.rank}, 0
    for rule in KERNELS.values():
        num_layers, *axes = kernels[rule.path].shape
        sizes |= dict(zip(rule.axes.split(), axes, strict=True))
    check_adapters(adapters, lora, sizes, num_layers)
    flat: dict[str, Any] = flatten_dict(adapters, sep="/")
    for target in sorted(lora.targets):
        path = KERNELS[target].path.removesuffix("/kernel")
        yield path, flat[f"{path}/a"], flat[f"{path}/b"]
