"""A random member of the whole family: kind and model."""

from contextlib import suppress
from typing import Any

import numpy as np

from cat_jax.errors import InputError
from cat_jax.tasks.scm.task import SCM


def random_scm(seed: int, **settings: Any) -> SCM:
    """Draw a kind of causal model, then the first model of that kind that passes the check.

    Args:
        seed: Seed of the draw.
        **settings: Settings of ``SCM`` that are not drawn, such as ``label="binary"``.

    Raises:
        InputError: Twenty models of the drawn kind did not pass; the last one's scores are named.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(b"family")))
    kind = _draw_kind(rng) | settings
    model_seeds = [kind.pop("model_seed")] if "model_seed" in kind else _model_seeds(rng)
    *first, last = (SCM(model_seed=model_seed, **kind) for model_seed in model_seeds)
    for task in first:
        with suppress(InputError):
            task.stream("iid")
            return task
    last.stream("iid")
    return last


def _model_seeds(rng: np.random.Generator) -> list[int]:
    return rng.integers(0, 2**31, size=20).tolist()


def _draw_kind(rng: np.random.Generator) -> dict[str, Any]:
    causes, twins = int(rng.integers(2, 5)), int(rng.integers(1, 5))
    distractors = int(rng.integers(1, 4))
    return {
        "causes": causes,
        "twins": twins,
        "distractors": distractors,
        "mediators": int(rng.integers(0, causes)),
        "confounders": int(rng.integers(0, min(causes, twins))),
        "colliders": int(rng.integers(0, 2)),
        "mechanism": str(rng.choice(["linear", "threshold", "product", "lookup"])),
        "noise": float(rng.choice([0.0, 0.1, 0.2])),
        "strength": tuple(rng.choice([0.8, 0.9, 0.95, 1.0], size=twins).tolist()),
        "order": str(rng.choice(["shuffled", "fixed"])),
        "wording": str(rng.choice(["list", "sentences", "table", "json"])),
        "label": str(rng.choice(["binary", "classes", "number"])),
        "classes": int(rng.integers(3, 6)),
        "shifts": ("ood", "reversed", "range", "mechanism"),
    }
