"""The page of results says what the files of results say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cat_jax.compare.sweep import Row
from cat_jax.compare.sweep.table import Score
from cat_jax.errors import InputError
from cat_jax.evaluation.statistics import share_interval
from experiments import report_results
from experiments.results_data import read_file, seed_interval, wilson
from experiments.results_worlds import worlds_summary

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_that_of_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    report_results.main(["--page", str(tmp_path / "results.md")])
    page = (ROOT / "docs/results.md").read_text()
    assert (tmp_path / "results.md").read_text() == page
    for figure in re.findall(r"\(figures/(.*?)\)", page):
        assert (ROOT / "docs/figures" / figure).is_file()
        assert (tmp_path / "figures" / figure).stat().st_size > 1000


def test_numbers_by_method_and_seed_are_means_with_intervals():
    file = ROOT / "benchmarks/results/smollm2.json"
    measured = json.loads(file.read_text())["methods"]["cat"]["ood"]
    rows = {row.name: row for row in read_file(file).rows}
    score = rows["cat"].scores["ood"]
    assert (score.mean, score.std) == pytest.approx((np.mean(measured), np.std(measured, ddof=1)))
    test = stats.ttest_1samp(measured, 0).confidence_interval(0.95)
    assert score.interval == pytest.approx((test.low, test.high))
    assert rows["untuned"].scores["ood"].interval == wilson(0.0, 400)
    assert rows["cat"].scores["seconds_per_step"].interval is None


def test_intervals_over_seeds_stay_between_0_and_1():
    assert seed_interval([0.99, 1.0, 1.0])[1] == 1.0
    assert seed_interval([0.0, 0.01])[0] == 0.0


def sweep_table(ran, worlds=6):
    """A table.json of worlds, of which the last was run or not."""
    rows = []
    for number in range(worlds):
        done = number < worlds - 1 or ran
        score = {"mean": 0.5, "std": None, "interval": [0.4, 0.6], "values": [0.5], "records": 80}
        data = {"task": "scm", "strength": [0.9, 1.0], "causes": 2 + number, "noise": 0.0}
        data |= {"order": "fixed", "wording": ("list", "json")[number % 2]}
        rows.append(
            {
                "name": f"world-{number}",
                "method": "cat",
                "title": "CAT",
                "seeds": [0] if done else [],
                "missing": [] if done else [0],
                "failed": {},
                "scores": {"iid": score, "ood": score} if done else {},
                "settings": {"data": data},
            }
        )
    machine = {"description": "one machine, jax 1", "git": {"commit": "0123456789"}}
    return {
        "title": "Worlds.",
        "command": "python -m experiments.sweep any",
        "dates": ["2026-01-02"],
        "seconds": 7200.0,
        "remarks": ["Its fan was loud"],
        "machines": [machine],
        "rows": rows,
    }


@pytest.mark.parametrize("ran", [False, True])
def test_a_sweep_with_its_figure(tmp_path, ran):
    (tmp_path / "any.json").write_text(json.dumps(sweep_table(ran)))
    page = tmp_path / "page.md"
    report_results.main(["--results", str(tmp_path), "--page", str(page)])
    text = page.read_text()
    assert "| world-0 | 1 | 50.0 \\[40.0, 60.0\\] | 50.0 \\[40.0, 60.0\\] |" in text
    assert ("| world-5 | 0 of 1 | not run | not run |" in text) is not ran
    assert "by kind of world" in text
    made = ("`python -m experiments.sweep any`", "2026-01-02, commit 01234567", "120 minutes")
    made += ("Its fan was loud",)
    assert all(f"- {line}" in text for line in made)
    drawn = (tmp_path / "figures/results-any.svg").read_text()
    assert "<svg" in drawn
    again = tmp_path / "again"
    report_results.main(["--results", str(tmp_path), "--page", str(again / "page.md")])
    assert (again / "figures/results-any.svg").read_text() == drawn


def test_few_worlds_are_drawn_as_rows(tmp_path):
    (tmp_path / "any.json").write_text(json.dumps(sweep_table(ran=True, worlds=4)))
    page = tmp_path / "page.md"
    report_results.main(["--results", str(tmp_path), "--page", str(page)])
    assert "Accuracy with 95 % intervals" in page.read_text()


@pytest.mark.parametrize(("rows", "folded"), [(30, False), (31, True)])
def test_a_long_table_is_closed_at_first(tmp_path, rows, folded):
    (tmp_path / "any.json").write_text(json.dumps(sweep_table(ran=True, worlds=rows)))
    page = tmp_path / "page.md"
    report_results.main(["--results", str(tmp_path), "--page", str(page)])
    opened, _, closed = page.read_text().partition("<details>\n<summary>")
    assert bool(closed) is folded
    table = closed.removeprefix("The table of 31 rows</summary>\n\n|").partition("</details>")[0]
    assert (table if folded else opened).count("| world-") == rows


def test_what_is_no_file_of_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        report_results.main(["--results", str(tmp_path), "--page", str(tmp_path / "page.md")])
    (tmp_path / "bad.json").write_text('{"rows": [{"name": "a"}]}')
    with pytest.raises(InputError, match=r"bad.json holds no results \(KeyError"):
        report_results.main(["--results", str(tmp_path), "--page", str(tmp_path / "page.md")])


def world_row(number, method, right, iid, **data):
    low, high = share_interval(np.arange(500) < right)
    score = Score(right / 500, None, (low, high), (right / 500,), 500)
    like_training = Score(iid / 500, None, None, (iid / 500,), 500)
    world = {"task": "scm", "strength": [0.9, 0.7], "causes": 2, "noise": 0.1} | data
    world |= {"order": "fixed", "wording": "list"}
    name = f"world-{number:02}-{method}"
    scores = {"iid": like_training, "ood": score}
    return Row(name, method, method.upper(), (0,), (), {}, scores, {"data": world})


def test_worlds_where_a_method_helps_and_hurts():
    rng = np.random.default_rng(0)
    base = rng.integers(300, 350, 11)
    gain = rng.permutation(np.arange(11) * 25 - 75)
    strength = rng.random(11)
    plain, ours = rng.integers(400, 500, (2, 11))
    rows = []
    for n, (x, y, s) in enumerate(zip(base, gain, strength, strict=True)):
        data = {"strength": [s, s], "causes": int(y) // 25 + 3, "noise": 0.0}
        rows.append(world_row(n, "baseline", x, plain[n], **data))
        rows.append(world_row(n, "cat", x + y, ours[n], **data))
    rows.append(world_row(11, "cat", 500, 500))  # without a baseline it is compared with nothing
    caption, table = worlds_summary(rows).split("\n\n")
    assert caption.startswith("Against BASELINE, ")
    first, cells = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith(("| BASELINE", "| CAT"))
    )
    means = (plain - base, ours - base - gain, ours - plain)
    for shown, points in zip((first[5], *cells[5:7]), means, strict=True):
        middle, low, high = map(float, re.findall(r"-?[\d.]+", shown))
        assert middle == pytest.approx(points.mean() / 5, abs=0.051)
        t = stats.t.interval(0.95, 10, points.mean() / 5, stats.sem(points) / 5)
        assert (low, high) == pytest.approx(t, abs=0.25 * (t[1] - t[0]))
    lows, highs = zip(*[share_interval(np.arange(500) < x) for x in base], strict=True)
    mine = [share_interval(np.arange(500) < x) for x in base + gain]
    above = sum(low > high for (low, _), high in zip(mine, highs, strict=True))
    below = sum(high < low for (_, high), low in zip(mine, lows, strict=True))
    assert above > 0
    assert below > 0
    gains = gain / 5
    spread = f"{np.median(gains):.1f} ({gains.min():.1f} to {gains.max():.1f})"
    assert cells[:5] == ["CAT", "11", str(above), str(below), spread]
    expected = stats.spearmanr(strength, gains).statistic
    assert cells[7].startswith(f"{expected:.2f} ")
    low, high = map(float, re.findall(r"-?[\d.]+", cells[7])[1:])
    assert low <= expected <= high
    assert cells[8:] == ["1.00 \\[1.00, 1.00\\]", "–"]
    assert worlds_summary(rows[-1:]) == worlds_summary([]) == ""
