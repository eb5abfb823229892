"""What a notebook shows of a run."""

import dataclasses
import html
import re

import pytest

import cat_jax as cat
from cat_jax.testing import toy_model, toy_records


@pytest.fixture(scope="module")
def run():
    return cat.fit(
        toy_model(),
        toy_records(count=16),
        guidance=cat.Guidance(),
        validation=toy_records("ood", count=8),
        train=cat.Training(steps=6, batch_size=4, log_every=2, eval_every=3),
    )


def cells(page):
    return [
        [html.unescape(re.sub("<[^>]*>", "", x)) for x in re.findall("<t[dh]>(.*?)</t[dh]>", row)]
        for row in re.findall("<tr>(.*?)</tr>", page)
    ]


def test_a_run_shows_its_first_and_last_measurements(run):
    rows = cells(run._repr_html_())
    measured = [row for row in rows if row[0] in ("training", "validation")]
    lines = {kind: [x for x in run.history if x["kind"] == kind] for kind in ("train", "eval")}
    ends = [lines[kind][n] for kind in ("train", "eval") for n in (0, -1)]
    assert [row[1] for row in measured] == [str(x["step"]) for x in ends] == ["2", "6", "0", "6"]
    assert [float(row[2]) for row in measured] == pytest.approx(
        [x["next_token_loss"] for x in ends], rel=1e-3
    )
    facts = dict(row for row in rows if len(row) == 2)
    assert facts["steps"] == "6"
    assert facts["model"] == "in memory: 2 layers of 2 heads, width 16"
    assert facts["annotations"] == str(run.stats)


def test_the_curve_is_the_loss(run):
    page = run._repr_html_()
    (points,) = re.findall('points="(.*?)"', page)
    heights = [float(point.split(",")[1]) for point in points.split()]
    losses = [x["next_token_loss"] for x in run.history if x["kind"] == "train"]
    assert len(heights) == len(losses) == 3
    assert heights[losses.index(max(losses))] == min(heights) == 3
    assert heights[losses.index(min(losses))] == max(heights) == 87
    once = dataclasses.replace(run, history=run.history[-1:])
    assert "<svg" not in once._repr_html_()


def test_names_stay_text(run):
    named = dataclasses.replace(run, base_name="<script>x</script>")
    assert "<script>" not in named._repr_html_()
