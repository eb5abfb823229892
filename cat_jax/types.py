"""Glossary of the shape suffixes used in every name, and the array types of annotations.

A suffix lists the axes of an array in order: ``query_BQHC`` is [B, Q, H, C].

====  ===========================================================
B     rows of a batch
T     positions of a row (Q when they query, K when they are keys)
S     slots of a key/value cache
D     width of the residual stream
F     hidden width of the feed-forward block
V     vocabulary
N     layers
H     query heads
G     key/value heads (G divides H; query head h reads group h // (H // G))
C     size of one head
W     32-bit words of an annotation bitset
====  ===========================================================
"""

from jax import Array
from jaxtyping import Bool, Float, Int, UInt32

__all__ = ["Array", "Bool", "Float", "Int", "UInt32"]
