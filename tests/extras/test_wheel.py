"""The built wheel, installed alone in a fresh environment (``make test-extras``)."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

IMPORT_ALL = """
import importlib, pkgutil
import numpy
import cat_jax, pallas_kernels
names = [
    module.name
    for package in (cat_jax, pallas_kernels)
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
]
for name in names:
    if name.endswith(("__main__", ".beam", ".tfds_builders")):  # of extras
        continue
    importlib.import_module(name)
for name in cat_jax.__all__:
    getattr(cat_jax, name)
assert cat_jax.read_prior("math").records
assert "Heads by layer" in cat_jax.attention_page({"m": numpy.ones((1, 1, 1, 1))}, ["a"])
for name in ("experiments", "configs", "tests", "torch"):
    assert importlib.util.find_spec(name) is None, name
print(len(names), cat_jax.__file__)
"""

TWO_STEPS = """
import doctest
import cat_jax as cat
assert doctest.testmod(cat) == (0, 6), doctest.testmod(cat)
records = cat.read_records([{"input": "a=3 b=3 a is ", "target": "3"}] * 8)
run = cat.fit(cat.testing.toy_model(), records, train=cat.Training(steps=2, batch_size=8))
print(run.history[-1]["step"])
"""


def run(*words, **options):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=environment, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    run("git", "clone", "--quiet", ROOT, source)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment that holds the wheel and what it asks for alone."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder)
    version = f"py{sys.version_info[0]}{sys.version_info[1]}"
    constraints = ROOT / "constraints" / f"{version}.txt"
    pins = ["-c", constraints] if constraints.exists() else []
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", *pins, wheel)
    return folder / "bin/python"


def test_the_wheel_holds_every_module_and_no_other_top_level(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"cat_jax", "pallas_kernels"}
    tracked = run("git", "ls-files", "cat_jax", "pallas_kernels", cwd=ROOT).split()
    read = (".py", ".yaml", ".html", ".css", ".js")
    assert {name for name in names if name.endswith(read)} == {
        name for name in tracked if name.endswith(read)
    }


def test_every_module_imports(python, tmp_path):
    count, place = run(python, "-c", IMPORT_ALL, cwd=tmp_path).split()
    assert int(count) > 90
    assert "site-packages" in place


def test_two_steps_of_training(python, tmp_path):
    assert run(python, "-c", TWO_STEPS, cwd=tmp_path).strip().endswith("2")
    assert not list(tmp_path.iterdir())
