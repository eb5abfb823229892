"""Random streams of generated tasks."""

import numpy as np

from cat_jax.errors import InputError


def random_stream(game: str, split: str, seed: int) -> np.random.Generator:
    """Open a random stream of its own for every game, split and seed.

    Raises:
        InputError: A negative seed.
    """
    if seed < 0:
        raise InputError(f"seed must be 0 or greater, not {seed}")
    key = tuple(f"{game}/{split}".encode())
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
