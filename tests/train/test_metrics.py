"""The log survives a crash in the middle of a line, and counts time over resumed runs."""

from cat_jax.train.metrics import MetricsLog, read_metrics


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
