"""Help appears at once, whatever the command imports when it works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmark_startup import MOST_HELP_SECONDS as LIMIT
from experiments.benchmark_startup import cpu_seconds

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name", ["plan", "benchmark_step", "benchmark_loss", "sweep", "report_results"]
)
def test_help_is_quick(name):
    before = cpu_seconds()
    command = [sys.executable, "-m", f"experiments.{name}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert f"python -m experiments.{name}" in done.stdout
    assert cpu_seconds() - before < LIMIT


@pytest.mark.parametrize("name", ["train_stg", "compare", "finetune"])
@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["stg_tiny", "--train.stepz", "3"], 2)]
)
def test_help_and_a_wrong_setting_need_no_jax(name, arguments, status):
    code = (
        "import runpy, sys\n"
        f"sys.argv[1:] = {arguments}\n"
        "try:\n"
        f"    runpy.run_module('experiments.{name}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop:\n"
        "    slow = {'jax', 'flax', 'transformers', 'torch'}\n"
        "    print('loaded', sorted(slow & sys.modules.keys()), stop.code)\n"
    )
    before = cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.splitlines()[-1] == f"loaded [] {status}"
    said = done.stderr if status else done.stdout
    assert f"python -m experiments.{name}" in said
    assert "--train.steps INT" in said
    assert cpu_seconds() - before < LIMIT


@pytest.mark.parametrize("name", ["plan", "benchmark_step", "benchmark_loss", "report_results"])
def test_what_is_slow_to_import_waits_until_the_command_line_is_read(name):
    code = (
        "import sys, types\n"
        "sys.modules['experiments.command_line'] = types.SimpleNamespace(\n"
        "    exit_status=None, parse_arguments=None)\n"
        f"import experiments.{name}\n"
        "print(sorted({'jax', 'flax', 'transformers', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout == "[]\n"


def test_help_without_a_config_shows_the_settings_of_all():
    command = [sys.executable, "-m", "experiments.finetune"]
    options = {"capture_output": True, "text": True, "cwd": ROOT, "check": True}
    shown = subprocess.run([*command, "--help"], **options).stdout
    for setting in ("--guidance.weight", "--model.lora.rank", "--model.remat", "--data.train "):
        assert setting in shown
    assert "needs a config with guidance (cat, cat_lora)" in shown
    assert "--regularizer.rate" in shown
    assert re.search(r"--optimizer.learning-rate FLOAT[^(]*\(default: 1e-05\)", shown)
    own = subprocess.run([*command, "sft", "--help"], **options).stdout
    assert "--guidance.weight" not in own
    assert "--model.lora" not in own
