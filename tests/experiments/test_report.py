import dataclasses
import io
import itertools
import json
import math
import os
import re
import statistics

import pytest
from experiments.comparison import Outcome
from experiments.report import report_json, report_page, summarize, terminal_table
from experiments.run_folder import write_text
from markdown_it import MarkdownIt
from rich.console import Console

from cat_jax.config import Experiment, GeneratedData, Scratch

CONFIG = Experiment("one", GeneratedData(), Scratch())
SCORES = {
    ("baseline", 0): {"iid": 0.5, "ood": 0.25, "seconds_per_step": 0.01},
    ("baseline", 4): {"iid": 0.75, "ood": 0.5, "seconds_per_step": 0.02},
    ("baseline", 9): {"iid": 1.0, "ood": 0.875, "seconds_per_step": 0.06},
    ("cat", 0): {"iid": 0.875, "ood": 0.8125, "seconds_per_step": 0.0123456},
    ("cat", 4): {"iid": 0.875, "ood": 0.9, "seconds_per_step": 0.04},
    ("cat", 9): {"iid": 1.0, "ood": 0.7, "seconds_per_step": 0.02},
}
STRANGE = ["a|b", "a\\|b", "[bold]x", "[/]", "*x*", "_x_", "`x", "<b>x</b>", "&amp;", ":smile:"]


def outcomes(seeds, extra=None):
    return [
        Outcome(method, seed, scores | (extra or {}), params=None)
        for (method, seed), scores in SCORES.items()
        if seed in seeds
    ]


def page_of(results, config=CONFIG, notes=()):
    return report_page(config, report_json(config, results, 12.4), notes)


def html_table(page):
    """Cells of the table as a reader sees them, by another Markdown implementation."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    cells, rows = [], []
    for before, token in itertools.pairwise(tokens):
        if before.type in ("th_open", "td_open"):
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special"}, kinds
            cells.append("".join(child.content for child in token.children))
        if token.type == "tr_close":
            rows.append(cells)
            cells = []
    return rows


def printed(summary):
    console = Console(file=io.StringIO(), width=300)
    console.print(terminal_table(summary))
    return console.file.getvalue()


def test_one_seed_is_reported_as_it_is():
    summary = summarize(outcomes([0]))
    assert list(summary) == ["baseline", "cat"]
    assert summary == {"baseline": SCORES["baseline", 0], "cat": SCORES["cat", 0]}


def test_several_seeds_have_mean_and_sample_deviation():
    summary = summarize(outcomes([0, 4, 9]))
    for method in ("baseline", "cat"):
        runs = {str(seed): scores for (m, seed), scores in SCORES.items() if m == method}
        assert summary[method]["seeds"] == runs
        for name in ("iid", "ood", "seconds_per_step"):
            values = [scores[name] for scores in runs.values()]
            assert summary[method][name] == pytest.approx(statistics.mean(values), abs=1e-12)
            spread = summary[method]["std"][name]
            assert spread == pytest.approx(statistics.stdev(values), abs=1e-12)
    # By hand: 50, 75 and 100 percent.
    assert summary["baseline"]["iid"] == 0.75
    assert summary["baseline"]["std"]["iid"] == pytest.approx(0.25)


def test_table_of_one_seed():
    assert html_table(page_of(outcomes([0]))) == [
        ["", "IID %", "OOD %", "ms/step"],
        ["plain fine-tuning", "50.0", "25.0", "10.0"],
        ["CAT", "87.5", "81.2", "12.3"],
    ]


def test_table_of_several_seeds():
    assert html_table(page_of(outcomes([0, 4, 9])))[1] == [
        "plain fine-tuning",
        "75.0 ± 25.0",
        "54.2 ± 31.5",
        "30.0",
    ]


def test_terminal_table_has_the_cells_of_the_page():
    lines = printed(summarize(outcomes([0, 4, 9]))).splitlines()
    rows = [re.split(r"\s*[┃│]\s*", line.strip())[1:-1] for line in lines if line[0] in "┃│"]
    assert rows == html_table(page_of(outcomes([0, 4, 9])))


def test_names_of_test_files_stand_as_they_are():
    extra = dict.fromkeys(STRANGE, 0.5)
    rows = html_table(page_of(outcomes([0], extra)))
    assert rows[0] == ["", "IID %", "OOD %", "ms/step", *(f"{name} %" for name in STRANGE)]
    assert rows[1][4:] == ["50.0"] * len(STRANGE)
    text = printed(summarize(outcomes([0], extra)))
    assert all(f" {name} % " in text for name in STRANGE)


def test_a_line_break_in_a_name_does_not_end_the_table():
    rows = html_table(page_of(outcomes([0], {"a\nb": 0.5})))
    assert [len(row) for row in rows] == [5, 5, 5]
    assert rows[0][-1] == "a b %"


@pytest.mark.parametrize("seeds", [[0], [0, 4]])
def test_a_mass_of_nothing_annotated_is_null(seeds):
    """Own test rows often have no annotation."""
    results = outcomes(seeds, {"causal_mass": math.nan})
    report = report_json(CONFIG, results, 1.0)
    text = json.dumps(report, allow_nan=False)
    assert json.loads(text)["cat"]["causal_mass"] is None
    assert html_table(page_of(results))[1][-1] == "–"
    assert "–" in printed(summarize(results))


def test_report_json_says_how_it_was_made():
    report = json.loads(json.dumps(report_json(CONFIG, outcomes([0]), 12.4)))
    assert report["baseline"] == SCORES["baseline", 0]
    assert report["seconds"] == 12.4
    assert report["config"]["name"] == "one"
    assert report["config"]["data"]["game"] == "stg"
    assert report["machine"]["cpu_cores"] == os.cpu_count()
    assert report["machine"]["jax"][0].isdigit()


def test_page_tells_name_notes_seeds_and_seconds():
    config = dataclasses.replace(CONFIG, name="a_b_*c*", seeds=(0, 4, 9))
    page = page_of(outcomes([0, 4, 9]), config, notes=["cat: spans found 3/4"])
    html = MarkdownIt("commonmark").enable("table").render(page)
    assert "<h1>a_b_*c*</h1>" in html
    assert "<li>cat: spans found 3/4</li>" in html
    assert "<li>12 s in all; device " in html
    assert "mean ± standard deviation of 3 seeds" in html
    assert "one seed" in page_of(outcomes([0]))
    for name in ("attention", "training"):
        assert f'src="figures/{name}.png"' in html


def test_text_is_written_whole_into_new_folders(tmp_path):
    path = tmp_path / "new" / "report.md"
    write_text(path, "± 1")
    write_text(path, "± 2")
    assert path.read_text("utf-8") == "± 2"
    assert list(path.parent.iterdir()) == [path]
