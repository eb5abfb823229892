"""Weights & Biases, played by a stand-in: the package is optional."""

import sys
import types

import pytest

from cat_jax.errors import InputError
from cat_jax.train.metrics import MetricsLog, read_metrics
from cat_jax.train.tracker import check_tracker, open_tracker


class StandIn(types.ModuleType):
    """``wandb`` as far as it is used."""

    Error = type("Error", (Exception,), {})

    def __init__(self):
        super().__init__("wandb")
        self.calls, self.logged, self.refuses = [], [], False
        self.id = "abc123"

    def init(self, **options):
        if self.refuses:
            raise self.Error("api_key not configured")
        self.calls.append(options)
        return self

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.logged.append("finished")


@pytest.fixture
def wandb(monkeypatch):
    module = StandIn()
    module.__spec__ = types.SimpleNamespace(name="wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_metrics_reach_the_project_and_a_resumed_run_is_the_same(wandb, tmp_path):
    for resumed in (False, True):
        tracker = open_tracker("my project", tmp_path, {"seed": 3})
        log = MetricsLog(tmp_path, resume_step=0, tracker=tracker)
        log.write("eval", 5, {"loss": 0.5, "causal_mass": float("nan")})
        log.write("eval", 6, {})
        log.close()
        options = wandb.calls[-1]
        assert (options["project"], options["config"]) == ("my project", {"seed": 3})
        assert (options["id"], options["resume"]) == ("abc123" if resumed else None, "allow")
    assert wandb.logged == 2 * [(5, {"eval/loss": 0.5}), "finished"]
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == [
        {"kind": "eval", "step": 5, "loss": 0.5}
    ]


def test_without_a_project_nothing_is_imported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    assert open_tracker(None, tmp_path, {}) is None


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("cat_jax.train.tracker.find_spec", lambda name: None)
    for call in (lambda: check_tracker("p"), lambda: open_tracker("p", tmp_path, {})):
        with pytest.raises(InputError, match=r"needs the package wandb: pip install .*\[wandb\]"):
            call()


def test_a_refusal_is_a_sentence(wandb, tmp_path):
    wandb.refuses = True
    with pytest.raises(InputError, match="api_key not configured; set WANDB_API_KEY or WANDB_MODE"):
        open_tracker("p", tmp_path, {})
