"""Data flows one way: each package imports only from itself and from those before it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = [
    "pallas_kernels",
    "cat_jax.__version__",
    "cat_jax.errors",
    "cat_jax.types",
    "cat_jax.sharding",
    "cat_jax.data",
    "cat_jax.models",
    "cat_jax.losses",
    "cat_jax.config",
    "cat_jax.train",
    "cat_jax.evaluation",
    "cat_jax.analysis",
    "configs",
    "experiments",
]
FILES = sorted(
    path
    for top in ("pallas_kernels", "cat_jax", "configs", "experiments")
    for path in (ROOT / top).rglob("*.py")
    if path != ROOT / "cat_jax/__init__.py"
)


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


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_only_from_earlier_layers(path):
    own = ORDER.index(package_of(module_name(path)))
    allowed = set(ORDER[: own + 1])
    if module_name(path).startswith("pallas_kernels"):
        allowed = {"pallas_kernels"}
    imported = {package_of(module) for module in imported_modules(path)} - {None}
    assert imported <= allowed
