"""One training run."""

from dataclasses import dataclass, field

from cat_jax.config.guidance import Guidance
from cat_jax.config.model import ModelSource
from cat_jax.config.regularizer import Regularizer
from cat_jax.config.training import Optimizer, Training
from cat_jax.errors import SettingError
from cat_jax.ranges import Seed, check_ranges
from cat_jax.tasks.base import Task


@dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
        name: Output folder name: OUT/NAME.
        seed: Seed of initialisation, data order and generated records.
        resume: Continue the run in the output folder from its last checkpoint.
        out: Parent of the output folder; a path or gs://BUCKET/FOLDER.
        distributed: This is one of several processes that train together (docs/distributed.md).
        model: Model to train.
        data: Task, or your own files, to train and evaluate on.
        guidance: Second objective; None trains on next tokens alone.
        optimizer: Optimizer.
        train: Training loop.
        regularizer: Another use of the annotation; None has none. In comparisons and sweeps it is
            the method that has one.
    """

    name: str
    model: ModelSource
    data: Task
    guidance: Guidance | None = None
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Training = field(default_factory=Training)
    seed: Seed = 0
    resume: bool = False
    out: str = "runs"
    distributed: bool = False
    regularizer: Regularizer | None = None

    def __post_init__(self):
        check_ranges(self, "")

    def check_comparable(self) -> None:
        """Raise SettingError where the run has what belongs to a method of a comparison."""
        if self.regularizer is not None:
            raise SettingError(
                "regularizer",
                "is that of a method in a comparison; leave it out of the run, and name the method "
                "attention_dropout, input_gradient or one of your own",
            )
