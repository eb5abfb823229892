"""The log: what it holds, what it leaves out, and how it survives a crash within a line."""

import dataclasses
import re
from pathlib import Path

import numpy as np
from small_runs import RECORDS, TRAIN, run

from cat_jax.train.metrics import MetricsLog, read_metrics

DOCS = Path(__file__).parents[2] / "docs" / "finetuning.md"
OF_ANNOTATED = {"guidance_loss", "causal_mass", "attention_ratio", "satisfied"}


def test_resuming_drops_what_came_after_and_a_torn_line(tmp_path):
    log = MetricsLog(tmp_path, resume_step=0)
    for step in (1, 2, 3):
        log.write("train", step, {"loss": step / 2})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')
    MetricsLog(tmp_path, resume_step=2).close()
    assert list(read_metrics(tmp_path / "metrics.jsonl")) == [
        {"kind": "train", "step": 1, "loss": 0.5},
        {"kind": "train", "step": 2, "loss": 1.0},
    ]


def sparse_run(**options):
    """Return a guided run in which few records are annotated, with a line for every step."""
    bare = [dataclasses.replace(record, important=()) for record in RECORDS[1:8]]
    train = dataclasses.replace(TRAIN, batch_size=2, steps=8, log_every=1)
    return run(records=[RECORDS[0], *bare], train=train, **options)


def test_steps_without_annotated_queries_log_no_mass(tmp_path):
    sparse_run(workdir=tmp_path)
    lines = [x for x in read_metrics(tmp_path / "metrics.jsonl") if x["kind"] == "train"]
    shares = [line["annotated_share"] for line in lines]
    assert len(shares) == 8
    assert 0 < sum(share > 0 for share in shares) < 8
    for line in lines:
        assert (line.keys() & OF_ANNOTATED) == (OF_ANNOTATED if line["annotated_share"] else set())
        assert all(np.isfinite(value) for value in line.values() if value != "train")
        if not line["annotated_share"]:
            assert line["loss"] == line["next_token_loss"]


def test_every_metric_of_a_step_is_documented():
    """``mfu`` is for devices whose peak is known."""
    table = DOCS.read_text().partition("### Metrics")[2].partition("\n\n`--")[0]
    documented = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    logged = set().union(*(x.keys() for x in sparse_run().history if x["kind"] == "train"))
    assert documented - {"mfu"} == logged - {"kind", "step"} - {"mfu"}
