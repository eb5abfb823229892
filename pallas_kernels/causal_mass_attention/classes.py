"""Classes of queries: those whose words of bits are equal, and so annotate the same keys.

With one class per query the mass is a product: column e marks the keys of class e, and a query
reads the column of its own class alone, so that no key can count twice.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, UInt32

from pallas_kernels.causal_mass_attention.reference import annotated_pairs

WORD = 32


class Classes(NamedTuple):
    """Classes of each sequence; E = 32 W, and columns that are not needed are False.

    Attributes:
        members_BQE: Which queries are of which class; a query without bits is of none.
        marks_BKE: Which keys each class annotates.
        is_known_BQ: False for queries of further classes, where a sequence has more than E.
    """

    members_BQE: Bool[Array, "B Q E"]
    marks_BKE: Bool[Array, "B K E"]
    is_known_BQ: Bool[Array, "B Q"]


def query_classes(
    q_bits_BQW: UInt32[Array, "B Q W"], k_bits_BKW: UInt32[Array, "B K W"]
) -> Classes:
    """Return the classes of the queries, of whatever bits.

    One bit per query at most, as ``cat_jax.data.bitset`` assigns them, never needs more than the E
    columns.
    """
    sets_BEW = _distinct_sets(q_bits_BQW)
    is_used_BE = (sets_BEW != 0).any(-1)
    members_BQE = (q_bits_BQW[:, :, None] == sets_BEW[:, None]).all(-1) & is_used_BE[:, None]
    has_bits_BQ = (q_bits_BQW != 0).any(-1)
    return Classes(
        members_BQE, annotated_pairs(k_bits_BKW, sets_BEW), members_BQE.any(-1) | ~has_bits_BQ
    )


def _distinct_sets(bits_BQW: Array) -> Array:
    """Return the first E sets of bits in the order of their words, [B, E, W]; then zeros."""
    words = bits_BQW.shape[-1]
    columns = [bits_BQW[..., word] for word in range(words)]
    ordered_BQW = jnp.stack(lax.sort(columns, dimension=1, num_keys=words), axis=-1)
    before_BQW = jnp.pad(ordered_BQW[:, :-1], ((0, 0), (1, 0), (0, 0)))  # zero: no set is one
    is_first_BQ = (ordered_BQW != before_BQW).any(-1)
    number_BQ = jnp.cumsum(is_first_BQ, axis=1, dtype=jnp.int32)
    numbers_E = jnp.arange(1, WORD * words + 1, dtype=jnp.int32)
    is_it_BEQ = (number_BQ[:, None] == numbers_E[None, :, None]) & is_first_BQ[:, None]
    return jnp.where(is_it_BEQ[..., None], ordered_BQW[:, None], jnp.uint32(0)).max(axis=2)
