"""Controls in a comparison: each by its name, from the same start."""

import json

import numpy as np
import pytest

from cat_jax import tasks
from cat_jax.compare import compare, save_report
from cat_jax.compare.methods import METHODS
from cat_jax.config import Guidance, Optimizer, Scratch, Training
from cat_jax.errors import InputError
from cat_jax.tasks import controls
from cat_jax.testing import ToyTask, toy_model

SCRATCH = Scratch(width=12, mlp_width=20, num_layers=2, num_heads=2, num_kv_heads=1)
TRAIN = Training(steps=2, batch_size=8, log_every=1, eval_every=2, max_length=256)
GAME = tasks.stg(train_records=40, test_records=5)


def run(methods, task=GAME, model=SCRATCH, **options):
    options = {"guidance": Guidance(), "train": TRAIN, "optimizer": Optimizer()} | options
    return compare(model, task, methods=methods, **options)


def test_every_control_is_a_method():
    with_a_share = {
        "few_annotations": "cat_annotated_10",
        "missing_causes": "cat_missing_20",
        "wrong_causes": "cat_wrong_20",
    }
    assert {with_a_share.get(name, name) for name in controls.__all__} <= METHODS.keys()
    assert len({method.title for method in METHODS.values()}) == len(METHODS)


@pytest.mark.slow
def test_all_methods_in_one_comparison(tmp_path):
    """Only where records differ do the first losses; guidance is on where spans are."""
    found = run(METHODS)
    lines = {
        x.method.name: next(y for y in x.history if y["kind"] == "train")
        for x in found.runs
        if x.method.trains
    }
    published = {"cat_published", "cat_published_div"}
    spoiled = {
        name for name in lines if name.startswith(("cat_annotated", "cat_missing", "cat_wr"))
    }
    others = {"random_spans", "shuffled_causes", "spurious_spans", "wrong_prior"}
    guided = {"cat", *published, *spoiled, *others}
    assert {name for name, line in lines.items() if "gamma" in line} == guided
    alike = {*guided, "baseline", "input_gradient"}
    losses = [lines[name]["next_token_loss"] for name in alike]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
    for name in {*lines} - {*alike, "balanced", "group_reweighting"}:
        assert abs(lines[name]["next_token_loss"] - losses[0]) > 1e-4, name
    masses = {name: lines[name]["causal_mass"] for name in guided - published - spoiled}
    assert len({round(x, 6) for x in masses.values()}) == len(masses)
    assert {name for name, line in lines.items() if "input_gradient" in line} == {"input_gradient"}
    page = save_report(found, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert all(0 <= report[name]["ood"] <= 1 for name in METHODS)
    assert "causes named" in page.read_text()


def test_a_prompt_is_that_of_tests_too():
    found = run(["baseline", "named_causes"])
    plain, named = (len(x.evaluation["iid"].answers) for x in found.runs)
    assert plain == named == 5
    assert found.example is not None
    assert list(found.example.right) == ["plain fine-tuning"]


def test_what_a_control_needs_stops_a_comparison_before_it_begins(tmp_path):
    with pytest.raises(InputError, match=r"shuffled_causes: .* use random_spans"):
        run(["baseline", "shuffled_causes"], ToyTask(), toy_model(), workdir=tmp_path / "run")
    with pytest.raises(InputError, match="method random_spans needs guidance"):
        run(["random_spans"], guidance=None, workdir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
