"""Sweeps: cells that run once, share what they can, fail alone, and survive kills."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from math import sqrt
from pathlib import Path

import jax
import pytest

from cat_jax import tasks
from cat_jax.compare import compare
from cat_jax.compare.sweep import (
    SweepFolder,
    run_cell,
    run_sweep,
    summarize_cells,
    table_cells,
)
from cat_jax.compare.sweep.workers import split_cores
from cat_jax.config import AttentionDropout, Cell, Guidance, Optimizer, RunConfig, Scratch, Training
from cat_jax.errors import Diverged, InputError
from cat_jax.evaluation import python_texts, text_loss
from cat_jax.models import load_language_model
from cat_jax.testing import ToyTask, raise_at

RUN = RunConfig(
    name="toy",
    model=Scratch(width=12, mlp_width=20, num_layers=1, num_heads=2, num_kv_heads=1),
    data=ToyTask(train_records=64, test_records=9),
    guidance=Guidance(weight=2.0),
    optimizer=Optimizer(learning_rate=1e-2),
    train=Training(steps=3, batch_size=8, log_every=1, eval_every=3, max_length=40),
)
LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"


def cells(methods=("baseline", "cat"), seeds=(0,), run=RUN):
    return [Cell(m, replace(run, seed=seed), m) for seed in seeds for m in methods]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wilson(right, count, z=1.959963984540054):
    middle = (right + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * sqrt(right * (count - right) / count + z * z / 4)
    return [middle - half, middle + half]


def test_a_cell_finds_what_a_comparison_finds(tmp_path):
    found = compare(
        RUN.model,
        RUN.data,
        methods=["cat"],
        guidance=RUN.guidance,
        train=RUN.train,
        optimizer=RUN.optimizer,
        seeds=[5],
    ).runs[0]
    (cell,) = cells(["cat"], seeds=[5])
    result = run_cell(cell, tmp_path)
    store = SweepFolder(tmp_path)
    assert store.read_result(cell) == result
    scores = {name: x for name, x in result["scores"].items() if name != "seconds_per_step"}
    expected = found.evaluation.scores
    assert scores == pytest.approx(expected, rel=1e-6)
    answers = store.read_answers(cell.name)
    assert list(answers) == ["iid", "ood", "iid [spurious]"]
    edited = [line["answer"] for line in answers["iid [spurious]"]]
    assert edited == found.evaluation.edited["spurious"].answers
    for name in ("iid", "ood"):
        lines = answers[name]
        assert [line["answer"] for line in lines] == found.evaluation[name].answers
        assert [line["target"] for line in lines] == found.evaluation[name].targets
        assert [line["index"] for line in lines] == list(range(9))
        tests = result["test_sets"][name]
        assert tests["right"] == sum(line["right"] for line in lines)
        assert tests["interval"] == pytest.approx(wilson(tests["right"], 9))
    changed = result["changed"]["spurious"]
    assert changed["changed"] == round(9 * expected["changed_answers"])
    assert changed["interval"] == pytest.approx(wilson(changed["changed"], 9))
    assert result["training"]["steps"] == 3
    assert result["settings"]["data"]["task"] == "toy"
    assert not store.workdir(cell.name).exists()


def test_other_interventions_are_measured_where_a_cell_names_them(tmp_path):
    task = tasks.chains(train_records=200, test_records=6, shifts=("longer",))
    model = replace(RUN.model, tokenizer="words")
    run = replace(RUN, model=model, data=task, train=replace(RUN.train, max_length=120))
    cell = Cell("cat", run, "cat", interventions=("reorder", "causal"))
    result = run_cell(cell, tmp_path)
    (row,) = summarize_cells([cell], tmp_path)
    answers = SweepFolder(tmp_path).read_answers(cell.name)
    for name in ("reorder", "causal"):
        edited = answers[f"iid [{name}]"]
        pairs = zip(answers["iid"], edited, strict=True)
        share = sum(a["answer"] != b["answer"] for a, b in pairs) / 6
        assert result["scores"][f"changed_answers_{name}"] == pytest.approx(share)
        score = row.scores[f"changed_answers_{name}"]
        assert (score.mean, score.records) == (pytest.approx(share), 6)
        assert score.interval == pytest.approx(wilson(round(6 * share), 6))
    # Turning a premise that the answer depends on turns some answers, another order none.
    assert [x["target"] for x in answers["iid [reorder]"]] == [x["target"] for x in answers["iid"]]
    assert [x["target"] for x in answers["iid [causal]"]] != [x["target"] for x in answers["iid"]]
    assert "changed_answers" not in result["scores"]
    assert {"reorder changed %", "causal changed %"} <= set(table_cells([row])[0])


def test_what_was_forgotten_is_measured_where_a_cell_asks(tmp_path):
    (cell,) = cells(["baseline"])
    cell = replace(cell, text_loss=True)
    result = run_cell(cell, tmp_path, keep_run=True)
    saved = load_language_model(str(SweepFolder(tmp_path).workdir(cell.name)))
    expected = text_loss(saved, python_texts()).loss
    assert result["scores"]["text_loss"] == pytest.approx(expected, rel=1e-5)
    (row,) = summarize_cells([cell], tmp_path)
    columns, ((*_, shown),) = table_cells([row])
    assert (columns[-1], shown) == ("loss on plain texts, nats", f"{expected:.3f}")


def test_finished_cells_are_skipped_and_runs_kept_if_asked(tmp_path):
    told = []
    sweep = run_sweep(cells(), tmp_path, keep_runs=True, finished=told.append, command="run it")
    assert [x.state for x in sweep.cells] == [x.state for x in told] == ["done", "done"]
    store = SweepFolder(tmp_path)
    assert (store.workdir("cat.seed-0") / "model" / "model.safetensors").is_file()
    assert store.read_result(cells()[1])["command"] == "run it --only cat.seed-0"
    before = contents(tmp_path)
    assert run_sweep(cells(), tmp_path, keep_runs=True, finished=told.append) == sweep
    assert contents(tmp_path) == before
    assert len(told) == 2
    run_sweep(cells(), tmp_path)  # as if killed after the result, before its run was removed
    assert not store.workdir("cat.seed-0").exists()


def test_a_result_of_other_settings_is_no_result(tmp_path):
    run_sweep(cells(["baseline"]), tmp_path)
    other = replace(RUN, train=replace(RUN.train, steps=4))
    with pytest.raises(InputError, match=r"other settings \(train.steps: 3 there, 4 now\); remove"):
        run_sweep(cells(["baseline"], run=other), tmp_path)


def test_a_cell_that_fails_stops_no_other(tmp_path):
    grid = cells(["shuffled_causes", "baseline", "cta"])
    sweep = run_sweep(grid, tmp_path)
    assert [x.state for x in sweep.cells] == ["failed", "done", "failed"]
    first, last = sweep.failed
    assert "shuffled_causes: 64 of 64 records name their causes at the same places" in (
        first.problem or ""
    )
    assert "did you mean cat?" in (last.problem or "")
    error = json.loads(SweepFolder(tmp_path).error_file("cta.seed-0").read_text())
    assert error["kind"] == "InputError"
    before = contents(tmp_path)
    assert run_sweep(grid, tmp_path) == sweep
    assert contents(tmp_path) == before
    run_sweep(grid, tmp_path, retry_failed=True)
    assert SweepFolder(tmp_path).error_file("cta.seed-0").read_bytes() != b""


def test_a_diverged_cell_is_a_failed_one(tmp_path):
    diverged = raise_at(2, Diverged("training diverged at step 2"))

    def progress(title, steps):
        return nullcontext(diverged if title == "CAT, seed 0" else None)

    sweep = run_sweep(cells(), tmp_path, progress=progress)
    assert [x.state for x in sweep.cells] == ["done", "failed"]
    assert sweep.failed[0].problem == "training diverged at step 2"


def test_cells_of_one_shape_compile_once(tmp_path):
    lowered = []

    def listen(event, duration_secs, **kwargs):
        if event == LOWERED:
            lowered.append(kwargs.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    run = replace(RUN, model=replace(RUN.model, mlp_width=28))  # of no other test
    try:
        run_sweep(cells(["baseline"], run=run), tmp_path)
        alone = len(lowered)
        assert "jit(_step)" in lowered
        lowered.clear()
        run_sweep(cells(["baseline"], seeds=[0, 1], run=run), tmp_path)
        assert set(lowered) <= {"jit(scan)"}  # of the initialisation, which is not compiled whole
        lowered.clear()
        run_sweep(cells(["cat", "random_spans"], run=run), tmp_path)
        assert lowered.count("jit(_step)") == 1  # the guided step, for both
        assert len(lowered) < alone
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_methods_side_by_side_share_their_preparation(tmp_path):
    read = []

    class Counted(ToyTask):
        def make_records(self, split, seed):
            read.append((split, seed))
            return super().make_records(split, seed)

    run = replace(RUN, data=Counted(train_records=64, test_records=9))
    run_sweep(cells(["baseline", "cat"], seeds=[0, 1], run=run), tmp_path)
    assert sorted(x for x in read if x[0] != "train") == [
        ("iid", 0),
        ("iid", 1),
        ("ood", 0),
        ("ood", 1),
    ]


def test_a_method_that_does_not_train_is_a_cell_too(tmp_path):
    (cell,) = cells(["untuned"])
    result = run_cell(cell, tmp_path)
    assert result["training"] is None
    assert result["scores"]["seconds_per_step"] is None
    assert [x.state for x in run_sweep([cell], tmp_path).cells] == ["done"]


def test_what_another_process_holds_is_left_to_it(tmp_path):
    store = SweepFolder(tmp_path)
    with store.claim("cat.seed-0") as is_ours:
        assert is_ours
        with store.claim("cat.seed-0") as again:
            assert not again
        sweep = run_sweep(cells(), tmp_path)
        assert [x.cell.name for x in sweep.missing] == ["cat.seed-0"]
    assert run_sweep(cells(), tmp_path).missing == []


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ([], "the sweep has no cell"),
        (cells(["cat", "cat"]), "2 cells are named 'cat.seed-0'"),
        ([Cell("a/b", RUN, "cat")], "the row of a cell is 'a/b.seed-0', a path"),
        ([Cell("a", replace(RUN, distributed=True), "cat")], "leave distributed out"),
        ([Cell("a", replace(RUN, regularizer=AttentionDropout()), "cat")], "name the method att"),
    ],
)
def test_cells_that_cannot_be_are_refused(tmp_path, grid, message):
    with pytest.raises(InputError, match=message):
        run_sweep(grid, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_cores_are_shared_evenly():
    assert split_cores([0, 2, 4, 6, 7], 2) == [[0, 4, 7], [2, 6]]
    with pytest.raises(InputError, match="processes is 3, but there are 2 cores to share"):
        split_cores([0, 1], 3)


LONG = replace(
    RUN, train=replace(RUN.train, steps=200, save_every=10, eval_every=100, log_every=50)
)
PROGRAM = """
import sys
sys.path.insert(0, {tests!r})
from test_sweep import LONG, cells
from cat_jax.compare.sweep import run_sweep

if __name__ == "__main__":
    run_sweep(cells(run=LONG), sys.argv[1], processes=int(sys.argv[2]))
"""


def start(tmp_path, folder, processes):
    """Starts a sweep of two long cells as a process of its own."""
    script = tmp_path / "script.py"
    script.write_text(PROGRAM.format(tests=str(Path(__file__).parent)))
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, script, folder, str(processes)], env=environment)


def wait_for(condition, process=None, seconds=500):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        assert process is None or process.poll() is None, "the process has ended"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::cat_jax.train.checkpoint.DamagedCheckpoint")
def test_a_killed_sweep_continues_to_the_same_answers(tmp_path):
    grid = cells(run=LONG)
    store, undisturbed = SweepFolder(tmp_path / "killed"), tmp_path / "undisturbed"
    process = start(tmp_path, store.path, 1)
    wait_for(lambda: (store.progress(grid[0]).saved or 0) >= 10, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert store.progress(grid[0]).state == "missing"
    assert not list(Path(store.path).glob("results/*"))
    run_sweep(grid, store.path, keep_runs=True)
    metrics = (store.workdir(grid[0].name) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(x)["step"] for x in metrics if '"train"' in x] == list(range(50, 201, 50))
    run_sweep(grid, undisturbed)
    for cell in grid:
        assert store.read_answers(cell.name) == SweepFolder(undisturbed).read_answers(cell.name)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two processes need two cores")
def test_two_processes_share_cells_and_cores_and_one_may_die(tmp_path):
    grid = cells(run=LONG)
    store = SweepFolder(tmp_path / "shared")
    process = start(tmp_path, store.path, 2)
    lock = Path(store.path) / "claims" / f"{grid[0].name}.lock"

    def holder():
        try:
            return json.loads(lock.read_text())["pid"]
        except (OSError, ValueError):
            return None

    wait_for(lambda: holder() is not None, process)
    pid = holder()
    assert pid != process.pid
    os.kill(pid, signal.SIGKILL)
    assert process.wait() == 0
    assert [store.progress(cell).state for cell in grid] == ["done", "done"]  # by the other one
    assert store.read_result(grid[1])["cores"] == len(os.sched_getaffinity(0)) // 2
