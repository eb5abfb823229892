"""Controls and rivals of guided attention: transforms of training records.

Each takes a task, its training records and a seed, and returns new records; the same seed gives the
same ones. A comparison knows them by name (``cat_jax.compare.methods``, docs/controls.md).
"""

from cat_jax.tasks.controls.annotations import random_spans, shuffled_causes, spurious_spans
from cat_jax.tasks.controls.samples import balanced, counterfactual, group_reweighting
from cat_jax.tasks.controls.shares import few_annotations, missing_causes, wrong_causes
from cat_jax.tasks.controls.texts import causes_only, masked_spurious, named_causes
from cat_jax.tasks.controls.wrong_prior import wrong_prior

__all__ = [
    "balanced",
    "causes_only",
    "counterfactual",
    "few_annotations",
    "group_reweighting",
    "masked_spurious",
    "missing_causes",
    "named_causes",
    "random_spans",
    "shuffled_causes",
    "spurious_spans",
    "wrong_causes",
    "wrong_prior",
]
