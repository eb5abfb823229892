"""Layers one by one instead of stacked in front, for decoding on a CPU.

A step of decoding reads every weight once. XLA for CPUs copies a layer's weights out of the stack
before it multiplies by them, which takes longer than all the rest of a step.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_on_one_cpu(params: Any) -> bool:
    """Tell whether all parameters lie in the memory of one CPU device of this process."""
    leaves = jax.tree.leaves(params)
    if not all(isinstance(leaf, jax.Array) for leaf in leaves):
        return False
    devices = {device for leaf in leaves for device in leaf.devices()}
    return len(devices) == 1 and devices.pop().platform == "cpu"


def unstack_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters whose "layers" are a tuple, for ``CausalLM.extend``.

    The arrays are views: nothing is copied, but for those whose rows do not begin at multiples of
    64 bytes. As long as they are held, the memory of ``params`` is not given to others.

    Args:
        params: Parameters on one CPU.
    """
    leaves, tree = jax.tree.flatten(params["layers"])
    views = [_view(leaf) for leaf in leaves]
    device = next(iter(leaves[0].devices()))
    layers = (
        jax.tree.unflatten(tree, jax.device_put([view[n] for view in views], device))
        for n in range(len(views[0]))
    )
    return {**params, "layers": tuple(layers)}


def _view(x: Any) -> np.ndarray:
    # np.asarray would leave its view with the array, whose memory a donation then could not take;
    # but only it knows bfloat16, the dtype of frozen parameters, which nobody donates.
    return np.asarray(x) if x.dtype == jnp.bfloat16 else np.from_dlpack(x)
