"""Where spurious information travels through a model: knock-outs and patching side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cat_jax.analysis.interventions.knock_out import (
    Detail,
    KnockOut,
    check_detail,
    knock_out,
    knock_out_heads,
)
from cat_jax.analysis.interventions.marks import (
    Keys,
    Queries,
    TracedRecords,
    edges,
    other_answers,
    trace_records,
)
from cat_jax.analysis.interventions.patching import Patching, patch_activations, twin_pairs
from cat_jax.analysis.interventions.scores import AnswerScores
from cat_jax.data.conversations import TrainingRecord
from cat_jax.data.records import Record
from cat_jax.evaluation.causal_mass import CausalMass, measure_causal_mass
from cat_jax.models import LanguageModel
from cat_jax.tasks.base import Task
from cat_jax.tasks.controls.places import check_annotated, check_spurious

PATHS: tuple[tuple[Keys, Queries], ...] = (
    ("spurious", "answer"),
    ("spurious", "causal"),
    ("spurious", "other"),
    ("spurious", "all"),
    ("causal", "answer"),
    ("other", "answer"),
)
"""Kinds of the tokens that are read, and of those that read them."""


@dataclass(frozen=True)
class SpuriousPaths:
    """What a model does with spurious words, measured by interventions inside it.

    Attributes:
        records: How many records were traced.
        knock_outs: By the kinds of keys and queries.
        mass: Attention of the tokens that predict the answer, on the keys of each kind.
        clean: Scores of the records that have a twin of the same tokens.
        corrupted: Scores of their twins.
        residual: Patching of the residual stream; None with the detail "whole".
        heads: Patching of heads, at all positions; None but with the detail "heads".
        left_out: Records without a twin of the same tokens, which patching leaves out.
    """

    records: int
    knock_outs: dict[tuple[Keys, Queries], KnockOut]
    mass: dict[Keys, CausalMass]
    clean: AnswerScores
    corrupted: AnswerScores
    residual: Patching | None
    heads: Patching | None
    left_out: int


def trace_spurious(
    model: LanguageModel,
    task: Task,
    records: Sequence[TrainingRecord],
    *,
    alternatives: Sequence[str | None] | None = None,
    seed: int = 0,
    detail: Detail = "heads",
    batch_size: int = 64,
) -> SpuriousPaths:
    """Trace where spurious information travels.

    Guidance says what the answer's own attention is, on the whole. It leaves open what reaches the
    answer through other tokens, causes among them, and through single heads. Here the edges from
    spurious words are knocked out, to the answer, the causes, the other words and all, and the
    activations of records are patched into twins whose spurious words are redrawn.

    Args:
        model: The model: a result of ``fit``, or any ``LanguageModel``.
        task: Says what is spurious, and redraws it (its intervention "spurious").
        records: Annotated prompts and answers, such as ``task.records("iid")``.
        alternatives: For each record a wrong answer, or None. Where none are given and all records
            have one of two answers, it is the other one.
        seed: Seed of the twins.
        detail: "layers" leaves out single heads, of which a pretrained model has hundreds, and
            "whole" single layers too, and patching with them.
        batch_size: Sequences that are computed at a time.

    Raises:
        InputError: The task does not say what is spurious, no record is annotated, there is no
            such detail, or as ``trace_records`` and ``twin_pairs``.
    """
    check_detail(detail)
    given = other_answers(records) if alternatives is None else list(alternatives)
    traced = trace_records(model, task, records, given)
    plain = [record for record in records if isinstance(record, Record)]
    check_annotated(plain, "interventions")
    check_spurious(task, plain, "interventions")
    pairs = twin_pairs(model, task, records, alternatives=given, seed=seed)
    patch = partial(patch_activations, model, pairs, batch_size=batch_size)
    clean, corrupted = (
        knock_out_heads(model, side, {"none": ()}, batch_size=batch_size)["none"]
        for side in (pairs.clean, pairs.corrupted)
    )
    return SpuriousPaths(
        len(traced),
        {
            (keys, queries): knock_out(
                model, traced, keys=keys, queries=queries, detail=detail, batch_size=batch_size
            )
            for keys, queries in PATHS
        },
        {keys: answer_mass(model, traced, keys) for keys in ("spurious", "causal", "other")},
        clean,
        corrupted,
        residual=patch("residual") if detail != "whole" else None,
        heads=patch("heads") if detail == "heads" else None,
        left_out=pairs.left_out,
    )


def answer_mass(model: LanguageModel, traced: TracedRecords, keys: Keys) -> CausalMass:
    """Measure the attention on keys of a kind of the queries that predict the answer."""
    examples = [edges(marked, keys, "answer") for marked in traced.right]
    return measure_causal_mass(model.model, model.params, examples)
