"""Glossary of shape suffixes, and the array types that annotations use.

The suffix of a name lists the axes of the array in order: ``query_BQHC`` is [B, Q, H, C].

====  ===========================================================
B     sequences of a batch
T     positions of a sequence (Q as queries, K as keys)
S     slots of a key/value cache; in the guidance loss, separate constraints
D     width of the residual stream
F     hidden width of the feed-forward block
V     vocabulary
N     layers
H     query heads
G     key/value heads (G divides H; query head h reads group h // (H // G))
C     width of one head
W     32-bit words of an annotation bitset
====  ===========================================================
"""

from jax import Array
from jaxtyping import Bool, Float, Int, UInt32

__all__ = ["Array", "Bool", "Float", "Int", "UInt32"]
