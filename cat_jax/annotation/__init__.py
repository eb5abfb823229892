"""Annotations: a task's causal prior, what an annotation must meet, rules without an assistant."""

from cat_jax.annotation.agreement import (
    Agreement,
    annotator_agreement,
    krippendorff_alpha,
)
from cat_jax.annotation.annotate import Annotated, Outcome, annotate, annotate_each
from cat_jax.annotation.cache import AnswerCache, Question
from cat_jax.annotation.checks import InvalidReply, locate
from cat_jax.annotation.client import Answer, Client, OpenAIClient, ServerFailed
from cat_jax.annotation.cost import Budget, OverBudget, Plan, Prices, plan
from cat_jax.annotation.equations import annotate_calculations, annotate_equation
from cat_jax.annotation.opinions import Opinion
from cat_jax.annotation.output import AnnotationFiles, outcome_fields
from cat_jax.annotation.patterns import annotate_patterns, template_pattern
from cat_jax.annotation.prior import PRIORS, Prior, read_prior
from cat_jax.annotation.questions import (
    BatchResults,
    annotate_answered,
    open_questions,
    read_batch,
    write_batch,
)
from cat_jax.annotation.reply import Dependency, Reply, Words
from cat_jax.annotation.tables import table_records

__all__ = [
    "PRIORS",
    "Agreement",
    "Annotated",
    "AnnotationFiles",
    "Answer",
    "AnswerCache",
    "BatchResults",
    "Budget",
    "Client",
    "Dependency",
    "InvalidReply",
    "OpenAIClient",
    "Opinion",
    "Outcome",
    "OverBudget",
    "Plan",
    "Prices",
    "Prior",
    "Question",
    "Reply",
    "ServerFailed",
    "Words",
    "annotate",
    "annotate_answered",
    "annotate_calculations",
    "annotate_each",
    "annotate_equation",
    "annotate_patterns",
    "annotator_agreement",
    "krippendorff_alpha",
    "locate",
    "open_questions",
    "outcome_fields",
    "plan",
    "read_batch",
    "read_prior",
    "table_records",
    "template_pattern",
    "write_batch",
]
