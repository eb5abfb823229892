import io
import itertools
import json
import math
import os
import re
import statistics

import numpy as np
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from cat_jax.compare import METHODS, Comparison, MethodRun, report, save_report, summarize
from cat_jax.compare.report import format_score, report_page
from cat_jax.data.records import Record
from cat_jax.evaluation.causal_mass import CausalMass
from cat_jax.evaluation.results import Evaluation, TestAnswers
from experiments.tables import comparison_table

SECONDS = "seconds_per_step"
SCORES = {
    ("baseline", 0): {"iid": 0.5, "ood": 0.25, SECONDS: 0.01},
    ("baseline", 4): {"iid": 0.75, "ood": 0.5, SECONDS: 0.02},
    ("baseline", 9): {"iid": 1.0, "ood": 0.875, SECONDS: 0.06},
    ("cat", 0): {"iid": 0.875, "ood": 0.8125, SECONDS: 0.0123456},
    ("cat", 4): {"iid": 0.875, "ood": 0.9, SECONDS: 0.04},
    ("cat", 9): {"iid": 1.0, "ood": 0.7, SECONDS: 0.02},
}
STRANGE = ["a|b", "a\\|b", "[bold]x", "[/]", "*x*", "_x_", "`x", "<b>x</b>", "&amp;", ":smile:"]
SETTINGS = {"name": "one", "train": {"steps": 2}}


def answered(share, mass):
    """Answers to 80 records, of which a share is right."""
    right = np.arange(80) < 80 * share
    causal_mass = CausalMass(mass, np.full((1, 1), mass))
    return TestAnswers([""] * 80, [""] * 80, right, causal_mass, **kept("before"))


def kept(prompt):
    """What is kept of each of 80 answers."""
    records = [Record(f"{prompt} {n}", "") for n in range(80)]
    return {"records": records, "replies": [""] * 80, "groups": [None] * 80}


def altered(share):
    """Answers to the same records after an intervention that changes a share of them."""
    after = ["x" if n < 80 * share else "" for n in range(80)]
    return TestAnswers(after, [""] * 80, np.array([not x for x in after]), None, **kept("after"))


def comparison_of(seeds, extra=None, mass=math.nan, changed=None, settings=SETTINGS, rules=()):
    """A comparison with the scores above, and further test sets."""
    runs = []
    for (name, seed), scores in SCORES.items():
        if seed in seeds:
            shares = {k: x for k, x in scores.items() if k != SECONDS} | (extra or {})
            sets = {test: answered(share, mass) for test, share in shares.items()}
            edited = {k: altered(share) for k, share in (changed or {}).items()}
            found = Evaluation("toy", sets, edited)
            history = [
                {"kind": "eval", "step": step, "iid": 0.5, "ood": 0.5, "causal_mass": 0.25}
                for step in (0, 2)
            ]
            runs.append(MethodRun(METHODS[name], seed, found, history, scores[SECONDS], None))
    return Comparison(settings, runs, seconds=12.4, rules=list(rules))


def page_of(*arguments, notes=(), **options):
    comparison = comparison_of(*arguments, **options)
    for note in notes:
        comparison.note(note)
    return report_page(comparison, {"attention": "One", "training": "Two"})


def html_table(page):
    """Cells of the first table as a reader sees them, by another Markdown implementation."""
    return html_tables(page)[0]


def html_tables(page):
    """Cells of all tables."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    cells, rows, tables = [], [], []
    for before, token in itertools.pairwise(tokens):
        if token.type == "table_close":
            tables.append(rows)
            rows = []
        if before.type in ("th_open", "td_open"):
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special"}, kinds
            cells.append("".join(child.content for child in token.children))
        if token.type == "tr_close":
            rows.append(cells)
            cells = []
    return tables


def printed(comparison):
    console = Console(file=io.StringIO(), width=300)
    console.print(comparison_table(comparison))
    return console.file.getvalue()


def saved(comparison, folder):
    """The page and the report that a comparison leaves."""
    page = save_report(comparison, folder).read_text()

    def refuse(constant):
        pytest.fail(f"{constant} is no JSON")

    return page, json.loads((folder / "report.json").read_text(), parse_constant=refuse)


def test_one_seed_is_reported_as_it_is():
    summary = summarize(comparison_of([0]).runs)
    assert list(summary) == ["baseline", "cat"]
    for method in summary:
        assert summary[method] == SCORES[method, 0] | {"causal_mass": None}


def test_several_seeds_have_mean_and_sample_deviation():
    summary = summarize(comparison_of([0, 4, 9], mass=0.5).runs)
    for method in ("baseline", "cat"):
        runs = {str(seed): scores for (m, seed), scores in SCORES.items() if m == method}
        expected = {seed: scores | {"causal_mass": 0.5} for seed, scores in runs.items()}
        assert summary[method]["seeds"] == expected
        for name in ("iid", "ood", SECONDS):
            values = [scores[name] for scores in runs.values()]
            assert summary[method][name] == pytest.approx(statistics.mean(values), abs=1e-12)
            spread = summary[method]["std"][name]
            assert spread == pytest.approx(statistics.stdev(values), abs=1e-12)
    # By hand: 50, 75 and 100 percent.
    assert summary["baseline"]["iid"] == 0.75
    assert summary["baseline"]["std"]["iid"] == pytest.approx(0.25)


def test_table_of_one_seed():
    assert html_table(page_of([0])) == [
        ["", "IID %", "OOD %", "mass %", "ms/step"],
        ["plain fine-tuning", "50.0", "25.0", "–", "10.0"],
        ["CAT", "87.5", "81.2", "–", "12.3"],
    ]


def test_table_of_several_seeds():
    assert html_table(page_of([0, 4, 9], mass=0.125))[1] == [
        "plain fine-tuning",
        "75.0 ± 25.0",
        "54.2 ± 31.5",
        "12.5 ± 0.0",
        "30.0",
    ]


@pytest.mark.parametrize(
    ("name", "value", "std", "shown"),
    [
        ("ood", 0.98765, None, "98.8"),
        ("ood", 0.98765, 0.0123, "98.8 ± 1.2"),
        ("ood", 1.0, None, "100.0"),
        (SECONDS, 0.0123456, 0.001, "12.3"),
        ("causal_mass", None, None, "–"),
    ],
)
def test_scores_for_readers(name, value, std, shown):
    assert format_score(name, value, std) == shown


def test_terminal_table_has_the_cells_of_the_page():
    lines = printed(comparison_of([0, 4, 9])).splitlines()
    rows = [re.split(r"\s*[┃│]\s*", line.strip())[1:-1] for line in lines if line[0] in "┃│"]
    assert rows == html_table(page_of([0, 4, 9]))


def test_names_of_test_files_stand_as_they_are():
    extra = dict.fromkeys(STRANGE, 0.5)
    rows = html_table(page_of([0], extra))
    titles = [f"{name} %" for name in STRANGE]
    assert rows[0] == ["", "IID %", "OOD %", *titles, "mass %", "ms/step"]
    assert rows[1][3:-2] == ["50.0"] * len(STRANGE)
    text = printed(comparison_of([0], extra))
    assert all(f" {name} % " in text for name in STRANGE)


def test_a_line_break_in_a_name_does_not_end_the_table():
    rows = html_table(page_of([0], {"a\nb": 0.5}))
    assert [len(row) for row in rows] == [6, 6, 6]
    assert rows[0][3] == "a b %"


@pytest.mark.parametrize("seeds", [[0], [0, 4]])
def test_a_mass_of_nothing_annotated_is_null(tmp_path, seeds):
    """One's own test records often have no annotation."""
    comparison = comparison_of(seeds)
    page, found = saved(comparison, tmp_path)
    assert found["cat"]["causal_mass"] is None
    assert html_table(page)[1][3] == "–"
    assert "–" in printed(comparison)


def test_report_json_says_how_it_was_made(tmp_path):
    _, found = saved(comparison_of([0], mass=0.5), tmp_path)
    assert list(found) == ["baseline", "cat", "intervals", "seconds", "config", "machine"]
    assert found["baseline"] == SCORES["baseline", 0] | {"causal_mass": 0.5}
    assert found["seconds"] == 12.4
    assert found["config"] == SETTINGS
    assert found["machine"]["devices"]["cpu_cores"] == os.cpu_count()
    assert found["machine"]["versions"]["jax"][0].isdigit()


def test_page_tells_name_notes_seeds_and_seconds():
    settings = {"name": "a_b_*c*"}
    page = page_of([0, 4, 9], settings=settings, notes=["cat: spans found 3/4 of *all*"])
    html = MarkdownIt("commonmark").enable("table").render(page)
    assert "<h1>a_b_*c*</h1>" in html
    assert "<li>cat: spans found 3/4 of *all*</li>" in html
    assert re.search(r"<li>12 s of training; \d+ x \w+, \d+ CPU cores \(.+\), python 3", html)
    assert "mean ± standard deviation of 3 seeds" in html
    assert "one seed" in page_of([0])
    for name in ("attention", "training"):
        assert f'src="figures/{name}.png"' in html


def test_only_measured_scores_are_explained():
    bare = page_of([0])
    assert "OOD" in bare
    assert "*Changed*" not in bare
    assert "*Mass*" not in bare
    assert "*Mass*" in page_of([0], mass=0.5)
    assert "*Changed*" in page_of([0], changed={"spurious": 0.25})
    assert html_table(page_of([0], changed={"spurious": 0.25}))[0][4] == "changed %"


def test_every_column_is_explained():
    page = page_of([0], extra={"mine": 0.5}, mass=0.5, changed={"spurious": 0.25})
    titles = html_table(page)[0][1:]
    assert titles == ["IID %", "OOD %", "mine %", "mass %", "changed %", "ms/step"]
    for title in titles:
        words = title.removesuffix(" %")
        assert re.search(rf"(?i)(\*{words}\*:|{words}: exact match)", page), title


RULES = [
    {"oracle": {"iid": 1.0, "ood": 0.96875, "changed_answers": 0.0}, "majority": {"iid": 0.5}},
    {"oracle": {"iid": 1.0, "ood": 1.0, "changed_answers": 0.0}, "majority": {"iid": 0.75}},
]


def test_intervals_and_tests_stand_below():
    page = page_of([0, 4], changed={"spurious": 0.25})
    _, scores, edits = html_tables(page)
    assert scores[0] == ["", "iid %", "ood %", "iid p", "ood p"]
    assert [row[0] for row in scores[1:]] == ["baseline", "cat"]
    assert scores[1][3:] == ["–", "–"]
    assert float(scores[2][3]) < 1e-3
    assert edits[0][:3] == ["", "edit", "changed %"]
    assert edits[1][:2] == ["baseline", "spurious"]
    assert edits[1][2].startswith("25.0 [")


def test_reference_rules_stand_below_the_methods(tmp_path):
    comparison = comparison_of([0, 4], changed={"spurious": 0.25}, rules=RULES)
    page, found = saved(comparison, tmp_path)
    assert html_table(page)[3:] == [
        ["rule: oracle", "100.0", "98.4", "–", "0.0", "–"],
        ["rule: majority", "62.5", "–", "–", "–", "–"],
    ]
    assert "rule: majority" in printed(comparison)
    assert "*rule*: answers without a model" in page
    assert found["reference_rules"] == {
        "oracle": {"iid": 1.0, "ood": 0.984375, "changed_answers": 0.0},
        "majority": {"iid": 0.625},
    }


def test_measures_beside_exact_match(tmp_path):
    comparison = comparison_of([0])
    for run in comparison.runs:
        run.evaluation["ood"].measured.update(
            {
                "absolute_error": np.array([12.0, 12.5, *[np.nan] * 78]),
                "within_5": np.array([0.0, 1.0] * 40),
            }
        )
    page, found = saved(comparison, tmp_path)
    titles, first, *_ = html_table(page)
    assert titles == [
        *("", "IID %", "OOD %", "mass %"),
        *("ood error", "ood_within_5 %", "ms/step"),
    ]
    assert first[4:6] == ["12.2", "50.0"]
    assert "*error*: mean absolute error" in page
    assert "*within_5*: share of answers that are off by 5 at most" in page
    assert found["cat"]["ood_absolute_error"] == 12.25


def test_a_figure_that_cannot_be_drawn_is_a_warning(tmp_path, monkeypatch):
    def fail(comparison):
        raise ZeroDivisionError("no *room*")

    monkeypatch.setattr(report, "training_figure", fail)
    comparison = comparison_of([0], mass=0.5)  # and no attention was kept
    page, found = saved(comparison, tmp_path)
    html = MarkdownIt("commonmark").enable("table").render(page)
    assert "<li>warning: the figure training could not be drawn: no *room*</li>" in html
    assert (
        "<li>warning: the figure attention could not be drawn: no attention was kept</li>" in html
    )
    assert "figures/" not in html
    assert not (tmp_path / "figures").exists()
    assert found["cat"] == SCORES["cat", 0] | {"causal_mass": 0.5}
    assert html_table(page)[2][0] == "CAT"


def test_the_other_figure_is_drawn_all_the_same(tmp_path):
    page, _ = saved(comparison_of([0, 4]), tmp_path)
    assert "![Accuracy and causal mass over training](figures/training.png)" in page
    assert os.listdir(tmp_path / "figures") == ["training.png"]
    assert "figures/attention.png" not in page


def test_a_report_replaces_an_earlier_one_and_leaves_nothing_else(tmp_path):
    folder = tmp_path / "new" / "run"
    saved(comparison_of([0]), folder)
    page, found = saved(comparison_of([0, 4]), folder)
    assert "±" in page  # UTF-8 wherever it is read
    assert "std" in found["cat"]
    assert sorted(os.listdir(folder)) == ["answers", "figures", "report.json", "report.md"]
    kept = [f"{method}-seed-{seed}.jsonl" for method in ("baseline", "cat") for seed in (0, 4)]
    assert sorted(os.listdir(folder / "answers")) == kept
