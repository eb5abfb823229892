import atexit
import importlib
import logging
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Most of the time goes into compiling: what one test, worker or subprocess has compiled is there
# for the next, and the compiler does less. That of Python 3.12 is left as users have it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    programs = tempfile.mkdtemp(prefix="programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, programs, ignore_errors=True)
if sys.version_info < (3, 12) and "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = (
        "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true "
        "--xla_cpu_use_fusion_emitters=false"
    )

import jax
import pytest

from experiments.command_line import exit_status

jax.config.update("jax_numpy_rank_promotion", "raise")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference data beside the checkout; absent for most people, required in CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI=true but the reference data is missing: {SHARED}")
        pytest.skip(f"no reference data at {SHARED}")
    return SHARED


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """A process may map 65,530 regions of memory, and every compiled program takes several."""
    yield
    jax.clear_caches()


@contextmanager
def _logger_restored():
    """Command lines print what the library logs; what runs next has its own output."""
    logger = logging.getLogger("cat_jax")
    before = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, level, logger.propagate = before
    logger.setLevel(level)


@pytest.fixture(autouse=True, scope="module")
def _restore_logger_of_fixtures():
    with _logger_restored():
        yield


@pytest.fixture(autouse=True)
def _restore_logger():
    with _logger_restored():
        yield


@pytest.fixture(scope="session")
def command_status():
    """Runs a command of experiments in this process; gives its status."""

    def run(name, *words):
        main = importlib.import_module(f"experiments.{name}").main
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [name, *map(str, words)])
            try:
                return exit_status(main)
            except SystemExit as stop:  # an unknown option
                return stop.code

    return run


@pytest.fixture
def run_command(command_status, capsys):
    """Runs a command of experiments in this process; gives its status, output and errors."""

    def run(name, *words):
        capsys.readouterr()
        return command_status(name, *words), *capsys.readouterr()

    return run


def pytest_collection_modifyitems(items):
    """Fast tests first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
