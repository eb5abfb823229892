"""One cell of a sweep: a run by a method, in a row of a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cat_jax.config.run import RunConfig
from cat_jax.errors import InputError
from cat_jax.files import check_name


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        row: Row of the table; cells of one row are seeds of the same thing.
        run: Model, task, guidance, optimizer, loop and seed; its name and folder are not used.
        method: Name of the method (``cat_jax.compare.METHODS``).
        interventions: Names of the task's interventions: how many answers each changes is measured.
        text_loss: Measure the loss on texts that come with Python too: what was forgotten.
    """

    row: str
    run: RunConfig
    method: str
    interventions: tuple[str, ...] = ("spurious",)
    text_loss: bool = False

    @property
    def seed(self) -> int:
        """Return the seed of the run."""
        return self.run.seed

    @property
    def name(self) -> str:
        """Return the name of its files: ``ROW.seed-SEED``."""
        return f"{self.row}.seed-{self.seed}"


def method_cells(run: RunConfig, methods: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """Return a cell of a run for each seed and method, a row for each method.

    Those of one seed stand side by side, and share what is prepared.

    Args:
        run: The run; its own seed is not used.
        methods: Names of methods.
        seeds: Seeds.
    """
    return [Cell(method, replace(run, seed=seed), method) for seed in seeds for method in methods]


def check_cells(cells: Sequence[Cell]) -> None:
    """Raise InputError where cells are none, share a name, or have one that is no file's."""
    if not cells:
        raise InputError("the sweep has no cell; give one at least")
    for cell in cells:
        check_name(cell.name, "the row of a cell")
        cell.run.check_comparable()
        if cell.run.distributed:
            raise InputError(
                f"cell {cell.name}: a sweep runs each cell in one process; leave distributed out"
            )
    (name, count), *_ = Counter(cell.name for cell in cells).most_common(1)
    if count > 1:
        raise InputError(
            f"{count} cells are named {name!r}; give what differs rows of their own, or other seeds"
        )
