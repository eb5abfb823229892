"""Committed results as rows of tables: of sweeps, and of comparisons by method and seed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from scipy import stats

from cat_jax.compare.methods import METHODS
from cat_jax.compare.sweep.table import Row, Score, score_of
from cat_jax.errors import InputError
from cat_jax.evaluation.statistics import share_interval
from cat_jax.files import read_json

MEND = "put back a table.json that experiments.sweep has written"
OF_SWEEP = (
    "In brackets: 95 % interval, of several seeds the bootstrap over seeds and test records, of "
    "one seed Wilson's over records."
)
OF_SEEDS = "In brackets: 95 % interval of the mean over seeds (Student's t)."


@dataclass(frozen=True)
class Results:
    """A file of results.

    Attributes:
        name: Name of the file.
        title: What was run.
        rows: Rows of the table.
        intervals: What the intervals of the table are.
        made: How it was made: command, machine, versions, dates, each a line.
    """

    name: str
    title: str
    rows: list[Row]
    intervals: str
    made: list[str]


def read_results(folder: Path) -> list[Results]:
    """Read all files of results in a folder, by name.

    Raises:
        InputError: A file is none of results.
    """
    return [read_file(file) for file in sorted(folder.glob("*.json"))]


def read_file(file: Path) -> Results:
    """Read the table of a sweep, or the numbers of a comparison by method and seed.

    Raises:
        InputError: It is neither.
    """
    values = read_json(epath.Path(file), dict, MEND)
    try:
        if "rows" in values:
            return _of_sweep(file.stem, values)
        return _of_comparison(file.stem, values)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} holds no results ({error!r}); {MEND}") from None


def _of_sweep(name: str, values: Mapping[str, Any]) -> Results:
    rows = [_row(row) for row in values["rows"]]
    machines = [machine["description"] for machine in values["machines"]]
    commits = {
        (machine["git"] or {}).get("commit", "unknown")[:8] for machine in values["machines"]
    }
    made = [
        f"`{values['command']}`",
        *(machines or ["not run yet"]),
        *(
            [f"{', '.join(values['dates'])}, commit {', '.join(sorted(commits))}"]
            if machines
            else []
        ),
        *([f"{values['seconds'] / 60:,.0f} minutes of training"] if machines else []),
        *values.get("remarks", []),
    ]
    return Results(name, values["title"], rows, OF_SWEEP, list(dict.fromkeys(made)))


def _row(values: Mapping[str, Any]) -> Row:
    scores = {
        name: Score(**score | {"interval": score["interval"] and tuple(score["interval"])})
        for name, score in values["scores"].items()
    }
    tuples = {name: tuple(values[name]) for name in ("seeds", "missing")}
    failed = {int(seed): why for seed, why in values["failed"].items()}
    return Row(**{**values, **tuples, "scores": scores, "failed": failed})


def _of_comparison(name: str, values: Mapping[str, Any]) -> Results:
    records, seeds = values["records"], tuple(values["seeds"])
    measured = values["methods"] | {
        f"rule: {rule}": scores for rule, scores in values.get("reference_rules", {}).items()
    }
    rows = []
    for method, scores in measured.items():
        found = {
            score: _over_seeds(score, numbers, records.get(score))
            for score, numbers in scores.items()
        }
        ran = seeds[: len(next(iter(scores.values())))]
        missing = () if len(ran) == 1 else seeds[len(ran) :]
        title = METHODS[method].title if method in METHODS else method
        rows.append(Row(method, method, title, ran, missing, {}, found))
    machine = values["machine"]
    versions = ", ".join(f"{package} {number}" for package, number in machine["versions"].items())
    variants = [f"{variant}: {what}" for variant, what in values.get("variants", {}).items()]
    made = [f"`{values['command']}`", *variants, f"{_devices(machine)}, {versions}", values["date"]]
    return Results(name, values["title"], rows, OF_SEEDS, [*made, *_remarks(machine)])


def _devices(machine: Mapping[str, Any]) -> str:
    found = machine["devices"]
    return found if isinstance(found, str) else f"{found['count']} x {found['kind']}"


def _remarks(machine: Mapping[str, Any]) -> list[str]:
    return [machine["model"]] if "model" in machine else []


def _over_seeds(name: str, numbers: list[float], records: int | None) -> Score:
    """Return a score with the interval over seeds; of one seed Wilson's over its records."""
    score = score_of(numbers, records=records)
    if name == "seconds_per_step":
        return score
    if len(numbers) > 1:
        return replace(score, interval=seed_interval(numbers))
    return replace(score, interval=records and wilson(numbers[0], records))


def seed_interval(shares: list[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return Student's interval for the mean of shares over seeds, cut at 0 and 1."""
    error = stats.sem(shares)
    half = float(stats.t.ppf((1 + confidence) / 2, len(shares) - 1) * error)
    mean = float(np.mean(shares))
    return max(0.0, mean - half), min(1.0, mean + half)


def wilson(share: float, records: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of so many records."""
    return share_interval(np.arange(records) < round(share * records))
