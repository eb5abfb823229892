"""Interventions inside a model: attention knocked out, activations patched, and what that shows."""

from cat_jax.analysis.interventions.knock_out import KnockOut, knock_out, knock_out_heads
from cat_jax.analysis.interventions.marks import (
    KINDS,
    MarkedExample,
    TracedRecords,
    edges,
    marked_tokens,
    other_answers,
    trace_records,
)
from cat_jax.analysis.interventions.patching import (
    Patching,
    TwinPairs,
    patch_activations,
    twin_pairs,
)
from cat_jax.analysis.interventions.paths import SpuriousPaths, trace_spurious
from cat_jax.analysis.interventions.report import paths_figure, paths_json, paths_markdown
from cat_jax.analysis.interventions.scores import AnswerScores

__all__ = [
    "KINDS",
    "AnswerScores",
    "KnockOut",
    "MarkedExample",
    "Patching",
    "SpuriousPaths",
    "TracedRecords",
    "TwinPairs",
    "edges",
    "knock_out",
    "knock_out_heads",
    "marked_tokens",
    "other_answers",
    "patch_activations",
    "paths_figure",
    "paths_json",
    "paths_markdown",
    "trace_records",
    "trace_spurious",
    "twin_pairs",
]
