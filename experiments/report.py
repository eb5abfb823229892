"""What a comparison leaves behind: a table, ``report.json``, ``report.md`` and figures."""

import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from rich.table import Table
from rich.text import Text

from cat_jax import __version__
from cat_jax.config import Experiment
from experiments.comparison import Outcome
from experiments.run_folder import settings

METHOD_TITLES = {
    "baseline": "plain fine-tuning",
    "cat": "CAT",
    "cat_published": "CAT, published loss",
}
SCORE_TITLES = {
    "iid": "IID %",
    "ood": "OOD %",
    "changed_answers": "changed %",
    "causal_mass": "mass %",
    "seconds_per_step": "ms/step",
}
"""How methods and scores are called where people read them; test files keep their names."""

EXPLANATIONS = """\
IID and OOD are exact-match accuracy of greedy answers; out of distribution the spurious
factors are drawn independently of the causal ones. *Changed*: share of IID answers that
change when only the spurious factors are redrawn (0 is right). *Mass*: attention on annotated
causes, averaged over layers, heads and annotated rows of the IID test set.
"""


def summarize(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Per method: the mean of each score, and with several seeds its standard deviation.

    A score that is NaN (the causal mass of rows without annotation) becomes None: JSON has no NaN.
    """
    summary = {}
    for method in dict.fromkeys(outcome.method for outcome in outcomes):
        runs = [outcome for outcome in outcomes if outcome.method == method]
        values = {name: [run.scores[name] for run in runs] for name in runs[0].scores}
        summary[method] = _known({name: np.mean(numbers) for name, numbers in values.items()})
        if len(runs) > 1:
            spreads = {name: np.std(numbers, ddof=1) for name, numbers in values.items()}
            summary[method]["std"] = _known(spreads)
            summary[method]["seeds"] = {str(run.seed): _known(run.scores) for run in runs}
    return summary


def _known(scores: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if math.isnan(x) else float(x) for name, x in scores.items()}


def report_json(config: Experiment, outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """The report as JSON values: one entry per method, then how it was made."""
    return summarize(outcomes) | {
        "seconds": seconds,
        "config": settings(config),
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "cpu_cores": os.cpu_count(),
        "python": platform.python_version(),
        "cat-jax": __version__,
        **{name: version(name) for name in ("jax", "flax", "optax")},
    }


def cells(summary: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Column titles and rows of the table, the same on the terminal and on the page."""
    names = [name for name in next(iter(summary.values())) if name not in ("std", "seeds")]
    rows = []
    for method, scores in summary.items():
        row = [METHOD_TITLES[method]]
        for name in names:
            row.append(format_score(name, scores[name], scores.get("std", {}).get(name)))
        rows.append(row)
    return ["", *(SCORE_TITLES.get(name, f"{name} %") for name in names)], rows


def format_score(name: str, value: float | None, std: float | None) -> str:
    """Shares in percent with "± std" over seeds, times in milliseconds; "–" for None."""
    if value is None:
        return "–"
    if name == "seconds_per_step":
        return f"{1000 * value:.1f}"
    spread = "" if std is None else f" ± {100 * std:.1f}"
    return f"{100 * value:.1f}{spread}"


def terminal_table(summary: dict[str, dict[str, Any]]) -> Table:
    """The table for a rich console."""
    columns, rows = cells(summary)
    table = Table()
    for title in columns:
        # As Text, because a file name may hold what rich takes for markup.
        table.add_column(Text(title), justify="right" if title else "left")
    for row in rows:
        table.add_row(*row)
    return table


def report_page(config: Experiment, report: dict[str, Any], notes: Sequence[str]) -> str:
    """The page ``report.md``: table, figures, and how to get the same again."""
    columns, rows = cells({name: report[name] for name in METHOD_TITLES if name in report})
    columns = [plain(title) for title in columns]
    made_on = ", ".join(f"{name} {value}" for name, value in report["machine"].items())
    seeds = f"mean ± standard deviation of {len(config.seeds)} seeds"
    return "\n".join(
        [
            f"# {plain(config.name)}",
            "",
            *("| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *rows)),
            "",
            f"Values are the {seeds}." if len(config.seeds) > 1 else "Values are of one seed.",
            EXPLANATIONS,
            "![Attention of the answer row](figures/attention.png)",
            "",
            "![Accuracy and causal mass over training](figures/training.png)",
            "",
            "## How it was made",
            "",
            *(f"- {note}" for note in notes),
            f"- {report['seconds']:.0f} s in all; {made_on}",
            "- all settings: `config.json`; all numbers: `report.json`, `seed-*/*/metrics.jsonl`",
            "",
        ]
    )


def plain(text: str) -> str:
    """Markdown that reads as ``text``, in a table too."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))
