"""The table of a sweep: a row per kind of run, over its seeds, from the results that are there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from statistics import fmean, stdev
from typing import Any

from etils import epath

from cat_jax.compare.report import format_score, score_title
from cat_jax.compare.sweep.folder import SweepFolder, cell_settings
from cat_jax.config import Cell
from cat_jax.evaluation.results import is_absolute
from cat_jax.evaluation.rules import changing_intervention
from cat_jax.evaluation.statistics import mean_interval, share_interval
from cat_jax.files import write_text
from cat_jax.markdown import markdown_table

NOT_RUN = "not run"
Answers = Mapping[str, Sequence[Mapping[str, Any]]]
"""Answers of a cell by test set, as ``SweepFolder.read_answers`` returns them."""

CAPTION = (
    "Values are the mean over seeds, ± standard deviation of several. In brackets: 95 % interval, "
    "of several seeds the bootstrap over seeds and test records, of one seed Wilson's over records."
)


@dataclass(frozen=True)
class Score:
    """A score over the seeds of a row.

    Attributes:
        mean: Mean over seeds; None where the score is not known.
        std: Standard deviation over seeds; None of a single one.
        interval: Limits of the 95 % interval; None where records are not known.
        values: Score of each seed.
        records: Records behind each value, of a share.
    """

    mean: float | None
    std: float | None
    interval: tuple[float, float] | None
    values: tuple[float | None, ...]
    records: int | None = None


@dataclass(frozen=True)
class Row:
    """Cells of one row.

    Attributes:
        name: Name of the row.
        method: Name of the method.
        title: The method for readers; its name where no cell was run.
        seeds: Seeds of the results.
        missing: Seeds that were not run.
        failed: Why a seed failed, by seed.
        scores: Scores over the seeds; empty where no cell was run.
        settings: Settings of the first cell, seed included.
    """

    name: str
    method: str
    title: str
    seeds: tuple[int, ...]
    missing: tuple[int, ...]
    failed: dict[int, str]
    scores: dict[str, Score] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def summarize_cells(cells: Sequence[Cell], folder: str | PathLike[str] | SweepFolder) -> list[Row]:
    """Return the rows of a sweep, from the results in its folder alone.

    Raises:
        InputError: A result is of other settings, or cannot be read.
    """
    store = folder if isinstance(folder, SweepFolder) else SweepFolder(folder)
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    return [_row(name, same, store) for name, same in rows.items()]


def _row(name: str, cells: Sequence[Cell], store: SweepFolder) -> Row:
    found = [store.progress(cell) for cell in cells]
    done = [x.cell for x in found if x.state == "done"]
    results = [store.read_result(cell) for cell in done]
    answers = [store.read_answers(cell.name) for cell in done]
    return Row(
        name=name,
        method=cells[0].method,
        title=results[0]["title"] if results else cells[0].method,
        seeds=tuple(cell.seed for cell in done),
        missing=tuple(x.cell.seed for x in found if x.state == "missing"),
        failed={x.cell.seed: x.problem or "" for x in found if x.state == "failed"},
        scores=_scores(results, answers),
        settings=cell_settings(cells[0]),
    )


def _scores(results: Sequence[Mapping[str, Any]], answers: Sequence[Answers]) -> dict[str, Score]:
    names = dict.fromkeys(name for result in results for name in result["scores"])
    scores = {}
    for name in names:
        interval, records = _interval(name, answers)
        values = tuple(result["scores"].get(name) for result in results)
        scores[name] = score_of(values, interval, records)
    return scores


def _shared_values(name: str, sets: Answers) -> tuple[list[bool], list[Any]] | None:
    """Return the values of a score that is a share, and the records; None of another score."""
    first = next(iter(sets))
    intervention = changing_intervention(name)
    edited = None if intervention is None else sets.get(f"{first} [{intervention}]")
    if name in sets:
        lines = sets[name]
        return [line["right"] for line in lines], [line["record"] for line in lines]
    if edited is not None:
        pairs = zip(sets[first], edited, strict=True)
        changed = [a["answer"].strip() != b["answer"].strip() for a, b in pairs]
        return changed, [line["record"] for line in edited]
    return None


def score_of(
    values: Sequence[float | None],
    interval: tuple[float, float] | None = None,
    records: int | None = None,
) -> Score:
    """Return a score from its values, one per seed; one that is missing leaves no mean."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return Score(None, None, None, tuple(values), records)
    std = stdev(known) if len(known) > 1 else None
    return Score(fmean(known), std, interval, tuple(values), records)


def _interval(
    name: str, answers: Sequence[Answers]
) -> tuple[tuple[float, float] | None, int | None]:
    """Return the interval of a share over seeds and records, and the records of a seed."""
    found = [x for sets in answers if (x := _shared_values(name, sets)) is not None]
    if not found or len(found) < len(answers):
        return None, None
    shares_SR, records_SR = zip(*found, strict=True)
    count = len(shares_SR[0])
    if len(shares_SR) == 1:
        return share_interval(shares_SR[0]), count
    crossed = all(records_R == records_SR[0] for records_R in records_SR)
    return mean_interval(shares_SR, crossed=crossed), count


def table_cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return column titles and the cells of the table; what was not run is "not run"."""
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    columns = ["", "seeds", *map(score_title, names)] if names else ["", "seeds", ""]
    return columns, [
        [
            row.name,
            _seeds(row),
            *([_shown(name, row.scores.get(name)) for name in names] if row.scores else ()),
            *([] if row.scores else [_why(row)] * max(1, len(names))),
        ]
        for row in rows
    ]


def _why(row: Row) -> str:
    return "failed" if row.failed and not row.missing else NOT_RUN


def _seeds(row: Row) -> str:
    done, all_seeds = len(row.seeds), len(row.seeds) + len(row.missing) + len(row.failed)
    return f"{done}" if done == all_seeds else f"{done} of {all_seeds}"


def _shown(name: str, score: Score | None) -> str:
    if score is None or score.mean is None:
        return "–"
    shown = format_score(name, score.mean, score.std)
    if score.interval is None:
        return shown
    scale = 1 if is_absolute(name) else 100
    low, high = (f"{scale * limit:.1f}" for limit in score.interval)
    return f"{shown} [{low}, {high}]"


def save_table(
    cells: Sequence[Cell],
    folder: str | PathLike[str],
    *,
    name: str,
    title: str = "",
    command: str | None = None,
) -> list[Row]:
    """Write ``table.json`` and ``table.md`` into the folder of a sweep; return the rows.

    Args:
        cells: Cells of the sweep, run or not.
        folder: Folder of the sweep.
        name: Name of the sweep.
        title: What it is, in a line.
        command: Command that runs it.

    Raises:
        InputError: A result is of other settings, or cannot be read.
    """
    store, path = SweepFolder(folder), epath.Path(folder)
    rows = summarize_cells(cells, store)
    done = [cell for cell in cells if store.progress(cell).state == "done"]
    results = [store.read_result(cell) for cell in done]
    machines = {json.dumps(result["machine"], sort_keys=True): None for result in results}
    values = {
        "sweep": name,
        "title": title,
        "command": command,
        "dates": sorted({result["date"][:10] for result in results}),
        "seconds": round(sum(_seconds(result) for result in results), 1),
        "machines": [json.loads(machine) for machine in machines],
        "rows": [asdict(row) for row in rows],
    }
    write_text(path / "table.json", json.dumps(values, indent=1) + "\n")
    write_text(path / "table.md", table_page(rows, name, title))
    return rows


def _seconds(result: Mapping[str, Any]) -> float:
    return result["training"]["seconds"] if result["training"] else 0.0


def table_page(rows: Sequence[Row], name: str, title: str) -> str:
    """Return the table as a Markdown page, with the sentence of every cell that failed."""
    failed = [
        f"- {row.name}, seed {seed}: {sentence}"
        for row in rows
        for seed, sentence in row.failed.items()
    ]
    parts = [f"# {name}", title, markdown_table(*table_cells(rows)), CAPTION]
    parts += ["Failed:", "\n".join(failed)] if failed else []
    return "\n\n".join(part for part in parts if part) + "\n"
