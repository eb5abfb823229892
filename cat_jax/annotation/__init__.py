"""Annotations: a task's causal prior, what an annotation must meet, rules without an assistant."""

from cat_jax.annotation.annotate import Annotated, Outcome, annotate, annotate_each
from cat_jax.annotation.cache import AnswerCache
from cat_jax.annotation.checks import InvalidReply, locate
from cat_jax.annotation.client import Answer, Client, OpenAIClient, ServerFailed
from cat_jax.annotation.equations import annotate_calculations
from cat_jax.annotation.prior import PRIORS, Prior, read_prior
from cat_jax.annotation.reply import Dependency, Reply, Words
from cat_jax.annotation.tables import table_records

__all__ = [
    "PRIORS",
    "Annotated",
    "Answer",
    "AnswerCache",
    "Client",
    "Dependency",
    "InvalidReply",
    "OpenAIClient",
    "Outcome",
    "Prior",
    "Reply",
    "ServerFailed",
    "Words",
    "annotate",
    "annotate_calculations",
    "annotate_each",
    "locate",
    "read_prior",
    "table_records",
]
