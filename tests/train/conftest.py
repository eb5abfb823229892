import sys
from pathlib import Path

import numpy as np
import pytest

from cat_jax.data.alignment import Example

sys.path.insert(0, str(Path(__file__).parent))  # for toy.py


@pytest.fixture(scope="session")
def make_examples():
    """Rows whose last token repeats the first, on which it is annotated to depend."""

    def make(count, length=6):
        rng = np.random.default_rng(0)
        positions = np.arange(length, dtype=np.int32)
        examples = []
        for _ in range(count):
            tokens = rng.integers(1, 13, length).astype(np.int32)
            tokens[-1] = tokens[0]
            examples.append(
                Example(
                    tokens=tokens,
                    target_mask=positions == length - 1,
                    q_bits=(positions == length - 2).astype(np.uint32)[:, None],
                    k_bits=(positions == 0).astype(np.uint32)[:, None],
                    causal_count=(positions == length - 2).astype(np.int32),
                    visible_count=positions + 1,
                )
            )
        return examples

    return make
