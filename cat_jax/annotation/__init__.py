"""Annotations: a task's causal prior, what an annotation must meet, rules without an assistant."""

from cat_jax.annotation.checks import InvalidReply, locate
from cat_jax.annotation.equations import annotate_calculations
from cat_jax.annotation.prior import PRIORS, Prior, read_prior
from cat_jax.annotation.reply import Dependency, Reply, Words
from cat_jax.annotation.tables import table_records

__all__ = [
    "PRIORS",
    "Dependency",
    "InvalidReply",
    "Prior",
    "Reply",
    "Words",
    "annotate_calculations",
    "locate",
    "read_prior",
    "table_records",
]
