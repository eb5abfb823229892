"""What evaluations leave behind: answers as JSONL, ``report.json``, ``report.md`` and a figure."""

import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from cat_jax.analysis.score_figure import scores_figure
from cat_jax.data.sources import training_record_fields
from cat_jax.evaluation.aggregate import summarize_evaluations
from cat_jax.evaluation.results import Evaluation, TestAnswers, is_absolute
from cat_jax.evaluation.statistics import Score
from cat_jax.evaluation.text_loss import TextLoss, Texts
from cat_jax.files import write_bytes, write_lines, write_text
from cat_jax.markdown import escape, markdown_table
from cat_jax.train.provenance import describe_environment, environment

Evaluations = Mapping[str, Mapping[str, Sequence[Evaluation]]]
"""By task, by method, one for each seed."""

EXPLANATION = (
    "Shares are in percent, with their 95 % interval: Wilson's of one seed, else a bootstrap over "
    "seeds and records. *error*: mean absolute error of the answers that are numbers. *log p*: "
    "log-probability of the right answer in nats, its end included. *p*: exact McNemar test on the "
    "same records against the first model."
)
EDITS = (
    "*changed*: answers that are not what they were. *right*: answers that are right after the "
    "edit. *rightly changed*: where the right answer changed, answers that became it. *wrongly "
    "changed*: where the right answer stayed, answers that changed all the same."
)


def answer_lines(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield every answer of an evaluation as JSON values, those after interventions too."""
    first = next(iter(evaluation), "")
    for name, found in evaluation.items():
        yield from _lines(found, {"set": name})
    for name, found in evaluation.edited.items():
        yield from _lines(found, {"set": first, "intervention": name})


def _lines(found: TestAnswers, where: dict[str, str]) -> Iterator[dict[str, Any]]:
    for n, record in enumerate(found.records):
        measured = {
            name: None if math.isnan(values[n]) else float(values[n])
            for name, values in found.measured.items()
        }
        log_prob = {} if found.log_probs is None else {"log_probability": float(found.log_probs[n])}
        yield {
            **where,
            "index": n,
            "record": training_record_fields(record),
            "reply": found.replies[n],
            "answer": found.answers[n],
            "target": found.targets[n],
            "right": bool(found.right[n]),
            **log_prob,
            "group": found.groups[n],
            **measured,
        }


def write_answers(path: epath.Path, evaluation: Evaluation) -> None:
    """Write every answer of an evaluation as JSONL; see ``answer_lines``."""
    lines = answer_lines(evaluation)
    write_lines(path, (json.dumps(line, ensure_ascii=False) for line in lines))


def save_evaluations(
    evaluations: Evaluations,
    folder: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
    *,
    losses: Mapping[str, Sequence[TextLoss]] | None = None,
    texts: Texts | None = None,
) -> epath.Path:
    """Write all answers, ``report.json``, ``report.md`` and a figure for each task.

    Answers are in ``answers/TASK/METHOD.jsonl``, or ``METHOD-0.jsonl`` and so on of several seeds.

    Args:
        evaluations: By task, by method, one for each seed.
        folder: Where to write.
        settings: JSON values that say how they were made.
        losses: Loss on plain texts by method, one for each seed.
        texts: Those texts.

    Returns:
        The path of ``report.md``.

    Raises:
        InputError: Methods of a task answered other records.
    """
    folder = epath.Path(folder)
    summaries = {task: summarize_evaluations(methods) for task, methods in evaluations.items()}
    for task, methods in evaluations.items():
        for method, found in methods.items():
            for seed, evaluation in enumerate(found):
                name = f"{method}-{seed}" if len(found) > 1 else method
                write_answers(folder / "answers" / task / f"{name}.jsonl", evaluation)
        write_bytes(folder / "figures" / f"{task}.png", _figure(task, summaries[task]))
    rules = {task: _rules(methods) for task, methods in evaluations.items()}
    report = {
        "tasks": {
            task: {"methods": summary, "reference_rules": rules[task]}
            for task, summary in summaries.items()
        },
        "texts": _text_losses(losses or {}, texts),
        "settings": dict(settings or {}),
        "machine": environment(),
    }
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(folder / "report.md", evaluations_page(summaries, rules, report["texts"]))
    return folder / "report.md"


def _text_losses(losses: Mapping[str, Sequence[TextLoss]], texts: Texts | None) -> dict[str, Any]:
    if texts is None:
        return {}
    methods = {
        name: [{"loss": x.loss, "perplexity": x.perplexity, "tokens": x.tokens} for x in found]
        for name, found in losses.items()
    }
    return {"name": texts.name, "sha256": texts.sha256, "methods": methods}


def _figure(task: str, summary: Mapping[str, Any]) -> bytes:
    exact = {
        method: {name: Score(**scores["exact_match"]) for name, scores in found["sets"].items()}
        for method, found in summary.items()
    }
    file = io.BytesIO()
    scores_figure(exact, title=task).savefig(file, dpi=150, format="png")
    return file.getvalue()


def _rules(methods: Mapping[str, Sequence[Evaluation]]) -> dict[str, dict[str, float]]:
    return next(iter(methods.values()))[0].rules


def evaluations_page(
    summaries: Mapping[str, Mapping[str, Any]],
    rules: Mapping[str, Mapping[str, Any]],
    texts: Mapping[str, Any] | None = None,
) -> str:
    """Return the page ``report.md``: the tables of every task.

    Args:
        summaries: Of each task, from ``summarize_evaluations``.
        rules: Scores of the reference rules of each task.
        texts: Loss on plain texts, as in ``report.json``.
    """
    parts = ["# Evaluation"]
    for task, summary in summaries.items():
        parts += [f"## {escape(task)}", *summary_tables(summary, rules[task])]
        parts.append(f"![{task}](figures/{task}.png)")
    if texts:
        rows = [
            [method, ", ".join(f"{x['loss']:.4f} ({x['perplexity']:.2f})" for x in found)]
            for method, found in texts["methods"].items()
        ]
        parts += [
            "## Loss on plain texts",
            f"{escape(texts['name'])}, SHA-256 {texts['sha256'][:12]}: next-token loss in nats per "
            "token (perplexity); it rises as a model forgets.",
            markdown_table(["", "loss"], rows),
        ]
    parts.append(f"{describe_environment()}; all numbers: `report.json`, all answers: `answers/`")
    return "\n\n".join(parts) + "\n"


def summary_tables(
    summary: Mapping[str, Any], rules: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Return the tables of a task in Markdown, and what their columns mean.

    Args:
        summary: From ``summarize_evaluations``.
        rules: Scores of the reference rules, for rows below the methods.
    """
    parts = [EXPLANATION, markdown_table(*_score_cells(summary, rules))]
    if any(found["interventions"] for found in summary.values()):
        parts += [EDITS, markdown_table(*_edit_cells(summary))]
    titles, rows = _split_cells(summary)
    return [*parts, markdown_table(titles, rows)] if rows else parts


def _score_cells(
    summary: Mapping[str, Any], rules: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], list[list[str]]]:
    """Return column titles and rows: methods by test set, then the reference rules."""
    names = list(next(iter(summary.values()))["sets"])
    columns = ["", *(f"{name} %" for name in names), "mass %"]
    columns += [f"{name} {what}" for name in names for what in ("log p", "p")]
    rows = []
    for method, found in summary.items():
        against = next(iter(found.get("against", {}).values()), {})
        mass = found["causal_mass"]
        row = [method, *(format_interval(found["sets"][name]["exact_match"]) for name in names)]
        row.append("–" if mass is None else f"{100 * mass:.1f}")
        for name in names:
            log_prob = found["log_probability"][name]
            row.append("–" if log_prob is None else f"{log_prob:.2f}")
            row.append(f"{against[name]['p_value']:.2g}" if name in against else "–")
        rows.append(row)
    for rule, scores in rules.items():
        shares = [f"{100 * scores[name]:.1f}" if name in scores else "–" for name in names]
        rows.append([f"rule: {rule}", *shares, *["–"] * (1 + 2 * len(names))])
    empty = [n for n, title in enumerate(columns) if title and all(r[n] == "–" for r in rows)]
    return _without(columns, empty), [_without(row, empty) for row in rows]


def _without(cells: Sequence[str], dropped: Sequence[int]) -> list[str]:
    return [cell for n, cell in enumerate(cells) if n not in dropped]


def _edit_cells(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    kinds = ("changed", "right", "rightly_changed", "wrongly_changed")
    rows = [
        [method, name, *(format_interval(scores.get(kind)) for kind in kinds)]
        for method, found in summary.items()
        for name, scores in found["interventions"].items()
    ]
    return ["", "edit", *(f"{kind.replace('_', ' ')} %" for kind in kinds)], rows


def _split_cells(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return a row for every measure, label and group of a test set, a column per method."""
    keys = dict.fromkeys(
        (name, score)
        for found in summary.values()
        for name, scores in found["sets"].items()
        for score in scores
        if score != "exact_match"
    )
    rows = [
        [
            f"{name}, {score}",
            *(
                format_interval(found["sets"].get(name, {}).get(score), is_absolute(score))
                for found in summary.values()
            ),
        ]
        for name, score in keys
    ]
    return ["", *summary], rows


def format_interval(score: Mapping[str, float] | None, absolute: bool = False) -> str:
    """Format a score as "97.5 [95.4, 98.7]", in percent unless it is absolute; None as "–"."""
    if score is None:
        return "–"
    scale = 1 if absolute else 100
    value, low, high = (scale * score[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"
