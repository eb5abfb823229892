"""What a comparison leaves behind: a table, ``report.json``, ``report.md`` and figures."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib.figure import Figure

from cat_jax.analysis import answer_attention_figure, save_figure, training_curves_figure
from cat_jax.compare.comparison import Comparison, MethodRun
from cat_jax.compare.evaluations import summary_tables, write_answers
from cat_jax.evaluation.aggregate import summarize_evaluations
from cat_jax.evaluation.results import Evaluation, is_absolute
from cat_jax.evaluation.rules import changed_name, changing_intervention
from cat_jax.files import write_text
from cat_jax.markdown import escape, markdown_table
from cat_jax.train.provenance import describe_environment, environment

logger = logging.getLogger(__name__)

TEXT_LOSS = "text_loss"

SCORE_TITLES = {
    "iid": "IID %",
    "ood": "OOD %",
    "changed_answers": "changed %",
    "causal_mass": "mass %",
    "seconds_per_step": "ms/step",
    TEXT_LOSS: "loss on plain texts, nats",
}
"""Titles of scores in tables; other test sets keep their names."""

EXPLANATIONS = {
    "iid": "*IID*: exact match of greedy answers to records distributed like the training data.",
    "ood": (
        "*OOD*: the same out of distribution, where the spurious correlations of the training data "
        "do not hold."
    ),
    "changed_answers": (
        "*Changed*: share of the first test set's answers that change when only what is spurious "
        "in a record is redrawn (0 is right)."
    ),
    "causal_mass": (
        "*Mass*: attention on annotated causes, averaged over layers, heads and annotated queries "
        "of the first test set."
    ),
    "seconds_per_step": "*ms/step*: median time of a train step.",
}
"""What a score means, where it was measured."""


def summarize(runs: Sequence[MethodRun]) -> dict[str, dict[str, Any]]:
    """Return the mean of each score by method and, of several seeds, its standard deviation.

    A score that is NaN (the causal mass of records without annotation) becomes None: JSON has no
    NaN.
    """
    summary = {}
    for method in dict.fromkeys(run.method.name for run in runs):
        same = [run for run in runs if run.method.name == method]
        values = {name: [run.scores[name] for run in same] for name in same[0].scores}
        summary[method] = _known({name: np.mean(numbers) for name, numbers in values.items()})
        if len(same) > 1:
            spreads = {name: np.std(numbers, ddof=1) for name, numbers in values.items()}
            summary[method]["std"] = _known(spreads)
            summary[method]["seeds"] = {str(run.seed): _known(run.scores) for run in same}
    return summary


def summarize_rules(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Return the mean of each score by reference rule, over the seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for rules in comparison.rules:
        for rule, scores in rules.items():
            for name, score in scores.items():
                found.setdefault(rule, {}).setdefault(name, []).append(score)
    return {
        rule: _known({name: np.mean(values) for name, values in scores.items()})
        for rule, scores in found.items()
    }


def _known(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if math.isnan(x) else float(x) for name, x in scores.items()}


def report_json(comparison: Comparison) -> dict[str, Any]:
    """Return the report as JSON values: one entry per method, the rules, how it was made."""
    rules = summarize_rules(comparison)
    return (
        summarize(comparison.runs)
        | ({"reference_rules": rules} if rules else {})
        | {
            "intervals": summarize_evaluations(evaluations(comparison)),
            "seconds": comparison.seconds,
            "config": comparison.settings,
            "machine": environment(),
        }
    )


def evaluations(comparison: Comparison) -> dict[str, list[Evaluation]]:
    """Return the evaluations of each method, one for each seed."""
    found: dict[str, list[Evaluation]] = {}
    for run in comparison.runs:
        found.setdefault(run.method.name, []).append(run.evaluation)
    return found


def save_report(comparison: Comparison, folder: str | os.PathLike[str]) -> epath.Path:
    """Write ``report.json``, ``report.md``, figures and all answers; return the path of the page.

    A figure that cannot be drawn is a warning in the page.
    """
    folder = epath.Path(folder)
    report = report_json(comparison)
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    for run in comparison.runs:
        name = f"{run.method.name}-seed-{run.seed}"
        write_answers(folder / "answers" / f"{name}.jsonl", run.evaluation)
    drawn: dict[str, str] = {}
    figures: dict[str, tuple[str, Callable[[Comparison], Figure]]] = {
        "attention": ("Attention of the query that predicts the answer", attention_figure),
    }
    if any(run.history for run in comparison.runs):
        figures["training"] = ("Accuracy and causal mass over training", training_figure)
    with comparison.phases.phase("figures"):
        for name, (caption, draw) in figures.items():
            try:
                save_figure(draw(comparison), folder / "figures" / f"{name}.png")
                drawn[name] = caption
            except Exception as error:  # whatever it is, the numbers are there
                logger.debug("figure %s", name, exc_info=True)
                comparison.note(f"warning: the figure {name} could not be drawn: {error}")
    write_text(folder / "report.md", report_page(comparison, drawn))
    return folder / "report.md"


def attention_figure(comparison: Comparison) -> Figure:
    """Draw what the query that predicts the answer attends to, method beside method."""
    example = comparison.example
    if example is None:
        raise ValueError("no attention was kept")
    chosen = example.chosen()
    causal, spurious = example.marked()
    return answer_attention_figure(
        example.tokens(),
        {title: rows[chosen] for title, rows in example.attention.items()},
        causal,
        spurious,
        title=f"Attention of the query that predicts “{example.target()}” (mean of all heads)",
    )


def training_figure(comparison: Comparison) -> Figure:
    """Draw accuracy and causal mass over the steps of every run."""
    history: dict[str, list[dict[str, Any]]] = {}
    trained = [run for run in comparison.runs if run.history]
    for run in trained:
        points = [{"causal_mass": math.nan} | x for x in run.history if x["kind"] == "eval"]
        history.setdefault(run.method.title, []).extend(points)
    names = dict.fromkeys(name for run in trained for name in run.evaluation)
    first = trained[0].history
    splits = [name for name in names if any(name in line for line in first)]
    return training_curves_figure(history, splits=splits)


def cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return column titles and rows of the table, the same on the terminal and on the page.

    A row per method, then one per reference rule.
    """
    summary = summarize(comparison.runs)
    titles = {run.method.name: run.method.title for run in comparison.runs}
    names = [name for name in next(iter(summary.values())) if name not in ("std", "seeds")]
    rows = []
    for method, scores in summary.items():
        row = [titles[method]]
        for name in names:
            row.append(format_score(name, scores[name], scores.get("std", {}).get(name)))
        rows.append(row)
    for rule, scores in summarize_rules(comparison).items():
        rows.append([f"rule: {rule}", *(format_score(x, scores.get(x), None) for x in names)])
    return ["", *map(score_title, names)], rows


def score_title(score: str) -> str:
    """Return the title of a score's column."""
    intervention = changing_intervention(score)
    if intervention is not None and score not in SCORE_TITLES:
        return f"{intervention} changed %"
    if is_absolute(score):
        return f"{score.removesuffix('_absolute_error')} error"
    return SCORE_TITLES.get(score, f"{score} %")


def format_score(name: str, value: float | None, std: float | None) -> str:
    """Format shares in percent with "± std" over seeds, times in milliseconds, None as "–".

    Errors stay in units of the answer, losses in nats per token.
    """
    if value is None:
        return "–"
    if name == "seconds_per_step":
        return f"{1000 * value:.1f}"
    if name == TEXT_LOSS:
        return f"{value:.3f}" + ("" if std is None else f" ± {std:.3f}")
    scale = 1 if is_absolute(name) else 100
    spread = "" if std is None else f" ± {scale * std:.1f}"
    return f"{scale * value:.1f}{spread}"


def _explain_others(comparison: Comparison) -> list[str]:
    """Explain the columns and rows that not every comparison has."""
    found = comparison.runs[0].evaluation
    others = [escape(name) for name in found if name not in SCORE_TITLES]
    sentences = []
    if others:
        sentences.append(f"{', '.join(others)}: exact match on the test sets of these names.")
    measures = dict.fromkeys(name for answers in found.values() for name in answers.measures)
    if any(map(is_absolute, measures)):
        sentences.append("*error*: mean absolute error of the answers that are numbers.")
    for name in measures:
        if name.startswith("within_"):
            limit = name.removeprefix("within_")
            sentences.append(f"*{name}*: share of answers that are off by {limit} at most.")
    edits = [name for name in map(changing_intervention, comparison.runs[0].scores) if name]
    for name in edits:
        if changed_name(name) not in EXPLANATIONS:
            sentences.append(f"*{name} changed*: the same after the intervention of this name.")
    if any(comparison.rules):
        sentences.append("*rule*: answers without a model (docs/tasks.md).")
    return sentences


def report_page(comparison: Comparison, drawn: Mapping[str, str]) -> str:
    """Return the page ``report.md``: table, figures, and how to get the same again."""
    seeds = len({run.seed for run in comparison.runs})
    scores = summarize(comparison.runs).values()
    explained = [
        text
        for name, text in EXPLANATIONS.items()
        if any(found.get(name) is not None for found in scores)
    ]
    explained += _explain_others(comparison)
    summary = summarize_evaluations(evaluations(comparison))
    spread = f"Values are the mean ± standard deviation of {seeds} seeds."
    parts = [
        f"# {escape(str(comparison.settings.get('name', 'Comparison')))}",
        markdown_table(*cells(comparison)).rstrip(),
        " ".join([spread if seeds > 1 else "Values are of one seed.", *explained]),
        *(f"![{caption}](figures/{name}.png)" for name, caption in drawn.items()),
        "## Intervals and tests",
        *summary_tables(summary, {}),
        "## How it was made",
        "\n".join(
            [
                *(f"- {escape(note)}" for note in comparison.notes),
                f"- {comparison.seconds:.0f} s of training; {describe_environment()}",
                "- all settings: `config.json`; all numbers: `report.json`, "
                "`seed-*/*/metrics.jsonl`; all answers: `answers/`",
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"
