"""Data flows one way: each package imports only from itself and from those before it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = [
    "pallas_kernels",
    "cat_jax.__version__",
    "cat_jax.collector",
    "cat_jax.errors",
    "cat_jax.ranges",
    "cat_jax.files",
    "cat_jax.markdown",
    "cat_jax.offline_page",
    "cat_jax.data",
    "cat_jax.annotation",
    "cat_jax.tasks",
    "cat_jax.config",
    "cat_jax.types",
    "cat_jax.sharding",
    "cat_jax.distributed",
    "cat_jax.models",
    "cat_jax.losses",
    "cat_jax.evaluation",
    "cat_jax.train",
    "cat_jax.analysis",
    "cat_jax.compare",
    "cat_jax.testing",
    "configs",
    "experiments",
]
PUBLIC = ROOT / "cat_jax/__init__.py"
FILES = sorted(
    path
    for top in ("pallas_kernels", "cat_jax", "configs", "experiments")
    for path in (ROOT / top).rglob("*.py")
)
# A kernel is read as a whole; all else is split.
KERNELS = ROOT / "pallas_kernels"
SHORT = [
    path
    for path in FILES
    if not path.is_relative_to(KERNELS) or path.is_relative_to(KERNELS / "benchmark")
]
NAMELESS = [
    path
    for path in FILES
    if path.is_relative_to(ROOT / "cat_jax") and not path.is_relative_to(ROOT / "cat_jax/tasks")
]
TASK_NAMES = re.compile(r"(?<![a-z0-9])(stg|stg_h|spurious token game)(?![a-z0-9])", re.IGNORECASE)


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package_of(module):
    """The entry of ORDER that the module belongs to; None outside the project."""
    found = [name for name in ORDER if module == name or module.startswith(name + ".")]
    if not found and module.split(".")[0] in {name.split(".")[0] for name in ORDER}:
        raise AssertionError(f"{module} is in no layer of ORDER")
    return found[0] if found else None


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (
                f"{node.module}.{alias.name}" if node.module == "cat_jax" else node.module
                for alias in node.names
            )


@pytest.mark.parametrize("path", [path for path in FILES if path != PUBLIC], ids=module_name)
def test_imports_only_from_earlier_layers(path):
    own = ORDER.index(package_of(module_name(path)))
    allowed = set(ORDER[: own + 1])
    if module_name(path).startswith("pallas_kernels"):
        allowed = {"pallas_kernels"}
    imported = {package_of(module) for module in imported_modules(path)} - {None}
    assert imported <= allowed


def test_every_layer_has_files():
    layers = {package_of(module_name(path)) for path in FILES if path != PUBLIC}
    assert layers == set(ORDER) - {"cat_jax.__version__"}


@pytest.mark.parametrize("module", ["cat_jax", "cat_jax.config", "cat_jax.tasks"])
def test_settings_are_there_without_jax(module):
    code = (
        f"import sys, {module}; "
        "loaded = sorted({'jax', 'jaxlib', 'flax', 'pallas_kernels'} & sys.modules.keys()); "
        "sys.exit(f'imported: {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SHORT, ids=module_name)
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 300


def test_the_words_of_a_task_are_found():
    for text in ("an STG run", "import stg_h", "the Spurious Token Game", "tasks.stg(seed=0)"):
        assert TASK_NAMES.search(text)
    for text in ("the biggest games", "posts gone", "spurious tokens"):
        assert not TASK_NAMES.search(text)


@pytest.mark.parametrize("path", NAMELESS, ids=module_name)
def test_the_library_names_no_task(path):
    assert not TASK_NAMES.findall(path.read_text())
