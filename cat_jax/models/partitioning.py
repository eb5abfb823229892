"""How parameters and adapters are split over a mesh: by the axes that their tables name."""

from collections.abc import Mapping
from typing import Any, get_args

from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding

from cat_jax.config import LoraConfig, LoraTarget
from cat_jax.models.huggingface.tensors import TENSOR_RULES, TensorRule
from cat_jax.models.lora import adapter_rules
from cat_jax.models.quantization import Int8Kernel
from cat_jax.sharding import check_divides, spec


def _axes(rule: TensorRule) -> str:
    return f"N {rule.axes}" if rule.is_layered else rule.axes


AXES_OF = {
    rule.path: _axes(rule)
    for rule in (*TENSOR_RULES, *adapter_rules(LoraConfig(targets=get_args(LoraTarget))))
}
"""Axes of every parameter and adapter by its path, layers in front."""


def param_shardings(params: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
    """Return the sharding of every leaf of parameters or adapters, which need a shape only.

    An ``Int8Kernel`` is split as its kernel would be, and its scales as the output axes.

    Raises:
        InputError: An axis does not divide among the devices that are to split it.
    """
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    for path, value in flat.items():
        check_divides(mesh, path, value.shape, AXES_OF[path])
    return unflatten_dict(
        {path: _sharding(value, AXES_OF[path], mesh) for path, value in flat.items()}, sep="/"
    )


def _sharding(value: Any, axes: str, mesh: Mesh) -> Any:
    whole = NamedSharding(mesh, spec(axes))
    if not isinstance(value, Int8Kernel):
        return whole
    layers, *rest = axes.split()
    outputs = rest[value.values.ndim - value.scale.ndim :]
    shardings: Any = whole, NamedSharding(mesh, spec(" ".join([layers, *outputs])))
    return Int8Kernel(*shardings)
