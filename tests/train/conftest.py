import sys
from pathlib import Path

import pytest

from cat_jax.testing import toy_examples

sys.path.insert(0, str(Path(__file__).parent))  # for toy.py


@pytest.fixture(scope="session")
def make_examples():
    """Sequences whose last token repeats the first, on which it is annotated to depend."""
    return toy_examples
