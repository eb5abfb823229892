"""Checksums of arrays on their devices: the same on every mesh, without a copy to the host."""

from typing import Any

import jax
import jax.numpy as jnp

from cat_jax.types import Array


@jax.jit
def checksums(tree: Any) -> Array:
    """Return one uint32 for each leaf, [leaves].

    The bits of every element times an odd number that depends on its index, summed modulo 2**32:
    a change within one element is always detected, any other with probability 1 - 2**-32. Integer
    sums have no order, so shards may be added up in any.
    """
    return jnp.stack([_checksum(leaf) for leaf in jax.tree.leaves(tree)])


def _checksum(x: Array) -> Array:
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    index = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return jnp.sum(bits * (_mixed(index) | 1), dtype=jnp.uint32)


def _mixed(index: Array) -> Array:
    """Mix bits with the finalizer of MurmurHash3: neighbours get unrelated numbers."""
    index = (index ^ (index >> 16)) * jnp.uint32(0x85EBCA6B)
    index = (index ^ (index >> 13)) * jnp.uint32(0xC2B2AE35)
    return index ^ (index >> 16)
