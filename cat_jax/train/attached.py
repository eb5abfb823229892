"""Adapters that the parameters of a model in memory bring along."""

from collections.abc import Mapping
from typing import Any, cast

from flax.traverse_util import flatten_dict, unflatten_dict

from cat_jax.models import LoraConfig, merge_lora
from cat_jax.models.lora import KERNELS
from cat_jax.models.projection import LowRank


def merge_attached(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return parameters without adapters: those of ``attach_lora`` are added to their kernels."""
    base: dict[str, Any] = flatten_dict(params, sep="/")
    paths = [path for path, value in base.items() if isinstance(value, LowRank)]
    if not paths:
        return params
    attached = {path: base.pop(path) for path in paths}
    adapters = {
        path.removesuffix("lora") + name: getattr(adapter, name)
        for path, adapter in attached.items()
        for name in ("a", "b")
    }
    targets = [
        name
        for name, rule in KERNELS.items()
        if rule.path.removesuffix("kernel") + "lora" in attached
    ]
    one = attached[paths[0]]
    rank = one.a.shape[-1]
    lora = LoraConfig(rank, one.scale * rank, one.dropout, cast("Any", tuple(targets)))
    return merge_lora(unflatten_dict(base, sep="/"), unflatten_dict(adapters, sep="/"), lora)
