"""Bad input is refused in one sentence that names the argument."""

import jax
import numpy as np
import pytest

from pallas_kernels import causal_mass_attention


def arguments():
    rng = np.random.default_rng(0)
    shapes = {"query_BQHC": (2, 7, 6, 5), "key_BKGC": (2, 7, 3, 5), "value_BKGC": (2, 7, 3, 5)}
    floats = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    bits = np.ones((2, 7, 4), np.uint32)
    segments = np.zeros((2, 7), np.int32)
    return {**floats, "q_bits_BQW": bits, "k_bits_BKW": bits, "segment_ids": segments}


def f32(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementation": "cuda"}, r"'cuda' is not available: choose from 'xla', 'xla_chunked'"),
        ({"implementation": "flash"}, "'flash' is not available"),
        ({"query_BQHC": f32(2, 7, 30)}, "query must be"),
        ({"query_BQHC": f32(2, 0, 6, 5)}, "no empty axis"),
        ({"query_BQHC": np.zeros((2, 7, 6, 5))}, "query must be one of .* not float64"),
        ({"query_BQHC": np.zeros((2, 7, 6, 5), np.int32)}, "query must be one of .* not int32"),
        ({"query_BQHC": f32(2, 7, 4, 5)}, "4 heads, not a multiple of the 3"),
        ({"query_BQHC": f32(2, 8, 6, 5)}, "8 positions, more than the 7"),
        ({"key_BKGC": f32(3, 7, 3, 5)}, "key must be float32"),
        ({"key_BKGC": np.zeros((2, 7, 3, 5), np.float16)}, "key must be float32 .* not float16"),
        ({"value_BKGC": f32(2, 7, 3, 4)}, r"value must be float32 \[2, 7, 3, 5\], not"),
        ({"q_bits_BQW": np.ones((2, 7, 4), np.int32)}, "q_bits must be uint32 .* not int32"),
        ({"q_bits_BQW": np.ones((2, 6, 4), np.uint32)}, "q_bits must be uint32"),
        ({"q_bits_BQW": np.ones((2, 7, 0), np.uint32)}, "W >= 1"),
        ({"q_bits_BQW": np.uint32(1)}, "W >= 1"),
        ({"k_bits_BKW": np.ones((2, 7, 3), np.uint32)}, r"k_bits must be uint32 \[2, 7, 4\]"),
        ({"k_bits_BKW": None}, "together"),
        ({"q_bits_BQW": None}, "together"),
        ({"segment_ids": np.zeros((2, 7), np.int64)}, "segment_ids must be int32 .* not int64"),
        ({"segment_ids": np.zeros((2, 6), np.int32)}, r"segment_ids must be int32 \[2, 7\]"),
        ({"scale": float("nan")}, "scale must be a finite Python number"),
        ({"scale": "large"}, "scale must be a finite Python number"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ValueError, match=message):
        causal_mass_attention(**(arguments() | change))


def test_tpu_kernels_refuse_float16():
    given = arguments() | {"implementation": "mosaic_tpu"}
    halves = {name: x.astype(np.float16) for name, x in given.items() if name.endswith("C")}
    with pytest.raises(ValueError, match="mosaic_tpu takes bfloat16 or float32, not float16"):
        causal_mass_attention(**(given | halves))


def test_traced_scale_is_refused():
    with pytest.raises(ValueError, match="scale must be a finite Python number"):
        jax.jit(lambda scale: causal_mass_attention(**arguments(), scale=scale))(0.5)
