"""Files of sweeps: found by name or path, without JAX."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import configs.sweeps
from cat_jax.config import Cell
from cat_jax.errors import InputError, name_hint

FOLDER = Path(next(iter(configs.sweeps.__path__)))


@dataclass(frozen=True)
class SweepFile:
    """A sweep as its file describes it.

    Attributes:
        name: Name of the file.
        title: First line of its description.
        cells: Its cells.
    """

    name: str
    title: str
    cells: list[Cell]


def sweep_names() -> list[str]:
    """Return the names of the files in ``configs/sweeps``."""
    return sorted(module.name for module in pkgutil.iter_modules(configs.sweeps.__path__))


def load_sweep(name: str) -> SweepFile:
    """Load a sweep by its name in ``configs/sweeps``, or by the path of its file.

    Raises:
        InputError: There is no such sweep, or its file has no ``CELLS``.
    """
    module = _load_module(name)
    cells = getattr(module, "CELLS", None)
    cells = cells() if callable(cells) else cells
    if not isinstance(cells, list) or not all(isinstance(cell, Cell) for cell in cells):
        raise InputError(
            f"{name} has no CELLS: define a list of cat_jax.config.Cell, or a function that "
            "returns one"
        )
    return SweepFile(Path(name).stem, _first_line(module), cells)


def sweep_title(name: str) -> str:
    """Return the first line of a sweep's description; its cells are not made.

    Raises:
        InputError: There is no such sweep.
    """
    return _first_line(_load_module(name))


def _first_line(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().partition("\n")[0]


def _load_module(name: str) -> ModuleType:
    if Path(name).suffix == ".py":
        return _load_file(Path(name))
    if name in sweep_names():
        return importlib.import_module(f"configs.sweeps.{name}")
    raise InputError(f"no sweep named {name!r}; {name_hint(name, sweep_names())}")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file {path}; {name_hint(path.stem, sweep_names())}")
    if path.resolve().parent == FOLDER.resolve():
        return importlib.import_module(f"configs.sweeps.{path.stem}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file that can be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def choose_cells(cells: Sequence[Cell], pattern: str | None) -> list[Cell]:
    """Return the cells whose name, or row, matches a pattern; None is all of them.

    Raises:
        InputError: None does.
    """
    if pattern is None:
        return list(cells)
    chosen = [c for c in cells if fnmatchcase(c.name, pattern) or fnmatchcase(c.row, pattern)]
    if not chosen:
        names = [cell.name for cell in cells]
        raise InputError(f"--only {pattern}: no cell has such a name; {name_hint(pattern, names)}")
    return chosen
