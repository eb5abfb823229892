"""The two figures of a comparison."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cat_jax.analysis import answer_attention_figure, attention_maps, training_curves_figure
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.evaluation import answers
from cat_jax.train.metrics import read_metrics
from experiments.comparison import Bench, Outcome, method_folder
from experiments.report import METHOD_TITLES
from experiments.splits import spurious_spans
from experiments.training_run import align


def attention_figure(bench: Bench, outcomes: Sequence[Outcome]) -> Figure:
    """What the row that predicts the answer looks at, method beside method, on one OOD row.

    The row is the first that the baseline answers wrongly and CAT rightly; failing that, the
    first of all.
    """
    index = telling_row(bench, outcomes)
    record, example = bench.splits.tests["ood"][index], bench.tests["ood"].examples[index]
    answer = int(example.target_mask.argmax()) - 1
    tokens_BT = jnp.asarray(example.tokens[None, : answer + 1])
    attention = {}
    for outcome in outcomes:
        maps_NBHQK = attention_maps(bench.model, outcome.params, tokens_BT)
        attention[METHOD_TITLES[outcome.method]] = np.asarray(
            maps_NBHQK[:, 0, :, answer].mean((0, 1))
        )
    tokens = [str(bench.tokenizer.decode([token])) for token in example.tokens[: answer + 1]]
    causes = [cause for note in record.important for cause in note.causes]
    return answer_attention_figure(
        tokens,
        attention,
        marked_tokens(bench, record, causes)[: answer + 1],
        marked_tokens(bench, record, spurious_spans(bench.config.data, record))[: answer + 1],
        title=f"Attention of the row that predicts “{record.target}”, mean of layers and heads",
    )


def telling_row(bench: Bench, outcomes: Sequence[Outcome]) -> int:
    """Index of the first OOD row where only the baseline is wrong, 0 if there is none."""
    test = bench.tests["ood"]
    right = {
        outcome.method: np.array(
            answers(bench.model, outcome.params, bench.tokenizer, test.examples)
        )
        == np.array(test.targets)
        for outcome in outcomes
    }
    return int((right["cat"] & ~right["baseline"]).argmax())


def marked_tokens(bench: Bench, record: Record, spans: Sequence[Span]) -> np.ndarray:
    """Which tokens of the record the spans cover, bool [T]."""
    target = Span(record.target, len(record.input))
    marked = dataclasses.replace(record, important=(Annotation(target, tuple(spans)),))
    (example,), _ = align([marked], bench.tokenizer, bench.config.train)
    return np.asarray(example.k_bits.any(-1))


def training_figure(folder: Path, outcomes: Sequence[Outcome]) -> Figure:
    """IID and OOD accuracy and causal mass over the steps of every run."""
    history: dict[str, list[dict[str, Any]]] = {}
    for outcome in outcomes:
        lines = read_metrics(method_folder(folder, outcome.seed, outcome.method) / "metrics.jsonl")
        points = [{"causal_mass": math.nan} | line for line in lines if line["kind"] == "eval"]
        history.setdefault(METHOD_TITLES[outcome.method], []).extend(points)
    return training_curves_figure(history)
