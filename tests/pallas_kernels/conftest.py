import os
import sys
from pathlib import Path

import jax
import pytest

# JAX's GPU interpreter waits at barriers in threads of XLA's pool, which has one a core: on two
# cores the three warpgroups of a block can wait for each other for ever. Older versions have none,
# and all else is slower with more threads than cores.
if jax.__version_info__ >= (0, 11):
    os.environ.setdefault("NPROC", "8")
sys.path.insert(0, str(Path(__file__).parent))  # for cases.py


@pytest.fixture(autouse=True)
def _no_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield
