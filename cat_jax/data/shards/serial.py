"""An example as bytes: a header of three numbers, then its arrays, little-endian."""

import struct

import numpy as np

from cat_jax.data.alignment import Example

HEADER = struct.Struct("<IIB")
"""Tokens, words of 32 annotation bits, and whether several records are packed."""
FIELDS = (
    ("tokens", "<i4"),
    ("target_mask", "|b1"),
    ("q_bits", "<u4"),
    ("k_bits", "<u4"),
    ("causal_count", "<i4"),
    ("visible_count", "<i4"),
)
PACKED = (("segment_ids", "<i4"), ("positions", "<i4"))


def to_bytes(example: Example) -> bytes:
    """Return the bytes of an example; the same example gives the same."""
    is_packed = example.segment_ids is not None
    length, words = example.q_bits.shape
    parts = [HEADER.pack(length, words, is_packed)]
    for name, dtype in FIELDS + (PACKED if is_packed else ()):
        parts.append(np.ascontiguousarray(getattr(example, name)).astype(dtype).tobytes())
    return b"".join(parts)


def from_bytes(data: bytes) -> Example:
    """Return the example of some bytes; its arrays are read-only.

    Raises:
        ValueError: These are not the bytes of an example.
    """
    if len(data) < HEADER.size:
        raise ValueError("too short for an example")
    length, words, is_packed = HEADER.unpack_from(data)
    offset, arrays = HEADER.size, {}
    for name, dtype in FIELDS + (PACKED if is_packed else ()):
        count = length * (words if name.endswith("bits") else 1)
        arrays[name] = np.frombuffer(data, dtype, count, offset)
        offset += arrays[name].nbytes
    if offset != len(data):
        raise ValueError(f"{len(data)} bytes for an example of {offset}")
    for name in ("q_bits", "k_bits"):
        arrays[name] = arrays[name].reshape(length, words)
    return Example(**arrays)
