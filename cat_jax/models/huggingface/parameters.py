"""Read the tensors of a Hugging Face folder into parameters, one by one and shard by shard."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from cat_jax.models.huggingface.safetensors import FLOAT_TYPES, StoredTensor, refuse_not_finite
from cat_jax.models.huggingface.tensors import TensorRule
from cat_jax.models.quantization import Int8Kernel, channel_scale, input_axes, round_to_int8
from cat_jax.types import Array

BLOCK = 2**17
"""Numbers copied at a time."""
Index = tuple[slice, ...]
"""What a shard is of an array."""


def load_parameter(
    stored: Mapping[str, StoredTensor],
    rule: TensorRule,
    sizes: Mapping[str, int],
    dtype: np.dtype | None,
    sharding: Sharding | None,
) -> Array:
    """Read the tensors of one rule into the parameter they make up.

    Args:
        stored: Tensors by name, one for each layer if the rule has layers.
        rule: Where they lie in the parameter.
        sizes: Sizes of its axes.
        dtype: Dtype of the parameter; None keeps that of the files.
        sharding: Sharding of the parameter; None is the default device.
    """
    names = list(stored)
    dtype = dtype or FLOAT_TYPES[stored[names[0]].dtype]

    def read(index: Index) -> np.ndarray:
        layers, rest = (index[0], index[1:]) if rule.is_layered else (slice(None), index)
        selected = names[layers]
        first = rule.from_hf(stored[selected[0]].map(), sizes)[rest]
        stacked = np.empty((len(selected), *first.shape), dtype)
        for name, target in zip(selected, stacked, strict=True):
            _read_tensor(name, rule.from_hf(stored[name].map(), sizes)[rest], target)
        return stacked if rule.is_layered else stacked[0]

    return _place(rule.shape(sizes, len(names)), sharding, read)


def load_int8_kernel(
    stored: Mapping[str, StoredTensor],
    rule: TensorRule,
    sizes: Mapping[str, int],
    sharding: Any,
) -> Int8Kernel:
    """Read the tensors of one projection into int8.

    The host holds one layer in float32 at a time. It reads every layer twice, and whole the first
    time: scales are of whole channels, however the kernel is split.

    Args:
        stored: Tensors by name, one for each layer.
        rule: Where they lie in the kernel.
        sizes: Sizes of its axes.
        sharding: An ``Int8Kernel`` of shardings, one sharding for both arrays, or None.
    """
    along: Any = sharding if isinstance(sharding, Int8Kernel) else Int8Kernel(sharding, sharding)
    names, shape = list(stored), rule.shape(sizes, len(stored))
    inputs = input_axes(rule)

    def kernel(name: str, index: Index = ()) -> np.ndarray:
        source = rule.from_hf(stored[name].map(), sizes)[index]
        return _read_tensor(name, source, np.empty(source.shape, np.float32))

    of_one_layer = tuple(axis - 1 for axis in inputs)
    scale = np.stack([channel_scale(kernel(name), of_one_layer) for name in names])
    beside = np.expand_dims(scale, inputs)

    def read(index: Index) -> np.ndarray:
        channels = tuple(slice(None) if n in inputs else one for n, one in enumerate(index))
        values = np.empty(np.broadcast_to(0, shape)[index].shape, np.int8)
        for name, one, target in zip(names[index[0]], beside[channels], values, strict=True):
            target[...] = round_to_int8(kernel(name, index[1:]), one)
        return values

    values = _place(shape, along.values, read)
    return Int8Kernel(values, _place(scale.shape, along.scale, scale.__getitem__))


def _read_tensor(name: str, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Copy a tensor, or what is wanted of it, and check its numbers."""
    copy_in_blocks(source, target)
    refuse_not_finite({name: target})
    return target


def _place(
    shape: tuple[int, ...], sharding: Sharding | None, read: Callable[[Index], np.ndarray]
) -> Array:
    """Return the array of this shape, of which ``read`` returns shards."""
    everything = (slice(None),) * len(shape)
    if sharding is None:
        array = jax.device_put(read(everything))
    else:
        array = jax.make_array_from_callback(shape, sharding, lambda one: read(one or everything))
    # The copy to the device is asynchronous, and until its end the host's copy stays.
    return array.block_until_ready()


def copy_in_blocks(source: np.ndarray, target: np.ndarray) -> None:
    """Copy and cast, in pieces that lie together in the source and fit a cache.

    Several times as fast as one assignment when the two lie transposed to each other.
    """
    axis = int(np.argmax(source.strides))
    length = source.shape[axis]
    step = max(1, BLOCK * length // source.size)
    source, target = np.moveaxis(source, axis, 0), np.moveaxis(target, axis, 0)
    for start in range(0, length, step):
        target[start : start + step] = source[start : start + step].astype(target.dtype)
