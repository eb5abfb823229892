"""The table of a sweep: numbers of the results that are there, and "not run" for the others."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cat_jax.compare.sweep import SweepFolder, save_table, summarize_cells, table_cells
from cat_jax.compare.sweep.folder import cell_settings
from cat_jax.config import Cell, RunConfig, Scratch
from cat_jax.data.records import Record
from cat_jax.evaluation.results import Evaluation, TestAnswers
from cat_jax.evaluation.statistics import mean_interval
from cat_jax.testing import ToyTask

RUN = RunConfig(name="toy", model=Scratch(), data=ToyTask())
RIGHT = {
    ("baseline", 0): [1, 0, 0, 1, 0, 0, 1],
    ("cat", 0): [1, 1, 1, 1, 0, 1, 1],
    ("cat", 5): [1, 0, 1, 1, 1, 1, 0],
}
MACHINE = {"description": "one machine", "versions": {"jax": "1"}, "git": None}


def cell(method, seed):
    return Cell(method, replace(RUN, seed=seed), method)


def write(store, method, seed, own_records=False):
    """Leaves a result as if the cell had been run."""
    right = RIGHT[method, seed]
    records = [Record(f"{n} ", "a") for n in range(7)]
    if own_records:
        records = [Record(f"{n} of {seed} ", "a") for n in range(7)]
    found, edited = (
        TestAnswers(
            answers,
            ["a"] * 7,
            np.array(right, bool),
            None,
            replies=answers,
            records=records,
            groups=[None] * 7,
        )
        for answers in (["a"] * 7, ["b", *["a"] * 5, "b"])
    )
    evaluation = Evaluation("toy", {"ood": found}, {"spurious": edited})
    result = {
        "title": f"the {method}",
        "scores": {"ood": float(np.mean(right)), "causal_mass": None, "changed_answers": 2 / 7},
        "training": {"seconds": 3.5},
        "date": f"2026-01-0{seed + 1}T00:00:00+00:00",
        "machine": MACHINE,
        "settings": cell_settings(cell(method, seed)),
    }
    store.write_result(cell(method, seed).name, result, evaluation)


@pytest.fixture
def store(tmp_path):
    store = SweepFolder(tmp_path)
    for method, seed in RIGHT:
        write(store, method, seed)
    return store


GRID = [cell(m, seed) for seed in (0, 5) for m in ("baseline", "cat", "random_spans")]


def test_rows_are_means_over_the_seeds_that_were_run(store):
    store.write_error("random_spans.seed-5", {"error": "it | broke"})
    baseline, cat, spans = summarize_cells(GRID, store)
    assert (baseline.seeds, baseline.missing) == ((0,), (5,))
    assert (cat.seeds, cat.missing, cat.title) == ((0, 5), (), "the cat")
    assert (spans.seeds, spans.missing, spans.failed) == ((), (0,), {5: "it | broke"})
    assert spans.scores == {}
    shares = [np.mean(RIGHT["cat", seed]) for seed in (0, 5)]
    score = cat.scores["ood"]
    assert (score.mean, score.std) == pytest.approx((np.mean(shares), np.std(shares, ddof=1)))
    assert score.values == pytest.approx(shares)
    low, high = score.interval
    assert 0 < low < min(shares) < max(shares) < high <= 1
    single = baseline.scores["ood"]
    expected = stats.binomtest(3, 7).proportion_ci(method="wilson")
    assert single.interval == pytest.approx((expected.low, expected.high))
    assert single.std is None
    changed = stats.binomtest(2, 7).proportion_ci(method="wilson")
    assert baseline.scores["changed_answers"].interval == pytest.approx((changed.low, changed.high))
    assert cat.scores["changed_answers"].records == 7
    assert cat.scores["causal_mass"].mean is None


def test_records_of_their_own_are_drawn_with_their_seed(tmp_path, store):
    """The bootstrap of other records in each seed is another one (``mean_interval``)."""
    own = SweepFolder(tmp_path / "own")
    for method, seed in RIGHT:
        write(own, method, seed, own_records=True)
    same, other = (summarize_cells(GRID, where)[1].scores["ood"].interval for where in (store, own))
    values = [RIGHT["cat", seed] for seed in (0, 5)]
    assert same == mean_interval(values, crossed=True)
    assert other == mean_interval(values, crossed=False)


def test_the_table_says_what_was_not_run(store):
    store.write_error("random_spans.seed-5", {"error": "it | broke"})
    rows = save_table(GRID, store.path, name="tried", title="A try.", command="run")
    columns, shown = table_cells(rows)
    assert columns == ["", "seeds", "OOD %", "mass %", "changed %"]
    assert shown[2] == ["random_spans", "0 of 2", "not run", "not run", "not run"]
    assert shown[0][:2] == ["baseline", "1 of 2"]
    assert shown[0][2] == "42.9 [15.8, 75.0]"
    assert shown[1][3] == "–"
    page = (store.path / "table.md").read_text()
    assert "- random_spans, seed 5: it | broke" in page
    values = json.loads((store.path / "table.json").read_text())
    assert values["dates"] == ["2026-01-01", "2026-01-06"]
    assert values["seconds"] == 10.5
    assert values["machines"] == [MACHINE]
    assert [row["name"] for row in values["rows"]] == ["baseline", "cat", "random_spans"]


def test_a_table_without_results_is_all_not_run(tmp_path):
    _, shown = table_cells(summarize_cells(GRID, tmp_path))
    assert shown == [[m, "0 of 2", "not run"] for m in ("baseline", "cat", "random_spans")]
