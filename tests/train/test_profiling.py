"""Traces and waiting times of the loop; the toy's steps take no time of their own."""

import dataclasses
import time

import pytest
import toy
from toy import CONFIG, Toy

from cat_jax.train.metrics import read_metrics


class Slow:
    """Batches that take a while to make."""

    def __init__(self, batches, seconds):
        self.batches, self.seconds = batches, seconds

    def __next__(self):
        time.sleep(self.seconds)
        return next(self.batches)

    def get_state(self):
        return self.batches.get_state()


def waits(folder):
    return [
        line["input_wait"]
        for line in read_metrics(folder / "metrics.jsonl")
        if line["kind"] == "train"
    ]


@pytest.mark.parametrize(("slow", "least", "most"), [(True, 0.5, 1.0), (False, 0.0, 0.5)])
def test_waiting_for_data_is_seen(tmp_path, monkeypatch, slow, least, most):
    make = toy.training_batches
    if slow:
        monkeypatch.setattr(toy, "training_batches", lambda *a, **k: Slow(make(*a, **k), 0.2))
    config = dataclasses.replace(CONFIG, steps=6, log_every=3, eval_every=6, save_every=6)

    def on_step(step):
        time.sleep(0.0 if slow else 0.1)

    Toy(tmp_path, config)(on_step=on_step)
    assert least <= waits(tmp_path)[-1] <= most


def test_a_trace_changes_no_number(tmp_path):
    config = dataclasses.replace(CONFIG, steps=8, save_every=8)
    plain = Toy(tmp_path / "plain", config)
    traced = Toy(tmp_path / "traced", dataclasses.replace(config, profile=str(tmp_path / "trace")))
    plain(), traced()
    assert plain.lines() == traced.lines()
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_a_short_run_leaves_a_trace_of_what_there_was(tmp_path):
    config = dataclasses.replace(CONFIG, steps=4, eval_every=4, profile=str(tmp_path / "trace"))
    Toy(tmp_path / "run", config)()
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
