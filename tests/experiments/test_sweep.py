"""The command of sweeps: its files, plan, progress, table and exit status."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cat_jax.config.cell import check_cells
from cat_jax.errors import InputError
from experiments import sweep
from experiments.command_line import exit_status
from experiments.planning.cells import planned_costs
from experiments.sweep_files import choose_cells, load_sweep, sweep_names

ROOT = Path(__file__).resolve().parents[2]
FILE = '''"""Two methods, one of which cannot be."""

from dataclasses import replace

from cat_jax.config import Cell, Guidance, RunConfig, Scratch, Training
from cat_jax.testing import ToyTask

RUN = RunConfig(
    name="own",
    model=Scratch(width=12, mlp_width=20, num_layers=1, num_heads=2, num_kv_heads=1),
    data=ToyTask(train_records=64, test_records=9),
    guidance=Guidance(),
    train=Training(steps=2, batch_size=8, log_every=1, eval_every=2, max_length=40),
)
CELLS = [Cell(method, RUN, method) for method in ("shuffled_causes", "cat")]
'''


def command(monkeypatch, *arguments):
    """Runs the command in this process; returns its exit status, or what it says at its end."""
    monkeypatch.setattr(sys, "argv", ["sweep", *map(str, arguments)])
    try:
        return exit_status(sweep.main)
    except SystemExit as stop:
        return stop.code


def test_sweeps_are_there_without_jax():
    code = (
        "import sys\n"
        "from experiments.sweep_files import load_sweep, sweep_names\n"
        "for name in sweep_names(): load_sweep(name)\n"
        "print(sorted({'jax', 'flax', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", [name for name in sweep_names() if name != "worlds"])
def test_every_sweep_has_cells_that_can_be(name):
    found = load_sweep(name)
    check_cells(found.cells)
    assert found.title.endswith(".")
    assert load_sweep(str(ROOT / "configs" / "sweeps" / f"{name}.py")).cells == found.cells


def test_worlds_differ_and_all_have_two_answers():
    cells = load_sweep("worlds").cells
    check_cells(cells)
    worlds = {cell.run.data.model_seed: cell.run.data for cell in cells}
    assert len(worlds) == 20
    assert {world.label for world in worlds.values()} == {"binary"}
    assert len({world.wording for world in worlds.values()}) == 4


def test_the_ablation_changes_one_thing_at_a_time():
    rows = {cell.row: cell.run for cell in load_sweep("ablation").cells if cell.seed == 0}
    runs = list(rows.values())[1:]
    for before, after in itertools.pairwise(runs):
        changed = [
            name
            for part in ("guidance", "data")
            for name, value in vars(getattr(after, part)).items()
            if getattr(getattr(before, part), name) != value
        ]
        assert len(changed) == 1


def test_cells_are_chosen_by_name_row_or_pattern():
    cells = load_sweep("pretrained").cells
    assert [x.name for x in choose_cells(cells, "cat")] == [f"cat.seed-{n}" for n in range(3)]
    assert [x.name for x in choose_cells(cells, "cat.seed-1")] == ["cat.seed-1"]
    assert len(choose_cells(cells, "*.seed-2")) == 7
    assert [x.name for x in choose_cells(cells, "untuned")] == ["untuned.seed-0"]
    with pytest.raises(InputError, match=r"no cell has such a name; did you mean cat\.seed-0"):
        choose_cells(cells, "cat.seed0")


def test_costs_of_public_models_are_those_of_the_planner():
    cells = {cell.row: cell for cell in load_sweep("paper").cells}
    full, lora = (
        planned_costs(cells[f"stg_m-Qwen2.5-1.5B-{form}-baseline"]) for form in ("full", "lora")
    )
    assert full is not None
    assert lora is not None
    assert full[0] == lora[0] == "1.54 B"
    # Parameter, two moments and two gradients of float32 each: at least 20 bytes a parameter.
    assert 20 * 1.54 < float(full[1]) < 30 * 1.54
    assert float(lora[1]) < 0.3 * float(full[1])
    # 6 operations for each parameter and position: 250 steps of 64 x 256.
    assert float(full[2]) == pytest.approx(6 * 1.54e9 * 250 * 64 * 256 / 1e15, rel=0.1)
    assert planned_costs(load_sweep("toy").cells[0]) is None


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["toys"], 2, "no sweep named 'toys'; did you mean toy?"),
        (["none.py"], 2, "there is no file none.py"),
        (["toy", "--only", "x"], 2, "--only x: no cell has such a name"),
        (["toy", "--processes", "0"], 2, "processes"),
        (["toy", "--out", " "], 2, "--out is ' '; give the folder"),
    ],
)
def test_what_cannot_be_is_a_sentence(arguments, status, said, monkeypatch, capsys):
    assert command(monkeypatch, *arguments) == status
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_from_file_to_table(tmp_path, monkeypatch, capsys):
    file, out = tmp_path / "own.py", tmp_path / "sweeps"
    file.write_text(FILE)
    given = [file, "--out", out]
    assert command(monkeypatch, *given, "--dry-run") == 0
    assert "2 cells: 2 missing" in capsys.readouterr().out
    assert not out.exists()
    said = command(monkeypatch, *given)
    assert said == (
        "error: 1 of 2 cells failed: shuffled_causes.seed-0; --retry-failed runs them again"
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 cells, 0 of them done, 2 to run" in printed
    assert "shuffled_causes.seed-0 failed: shuffled_causes: 64 of 64 records" in printed
    assert "cat.seed-0: iid " in printed
    result = json.loads((out / "own" / "results" / "cat.seed-0.json").read_text())
    only = f"python -m experiments.sweep {file} --out {out} --only cat.seed-0"
    assert result["command"] == only
    page = (out / "own" / "table.md").read_text()
    assert page.startswith("# own\n\nTwo methods, one of which cannot be.\n")
    assert "| shuffled\\_causes | 0 of 1 | failed |" in page
    assert command(monkeypatch, *given, "--only", "cat*") == 0
    assert "1 cells, 1 of them done, 0 to run" in capsys.readouterr().out
    assert command(monkeypatch, *given, "--table") == 0
