"""Options of a planned job; importing them imports no JAX."""

from dataclasses import dataclass

from cat_jax.config import Dtype, FrozenDtype, Optimizer, OptimizerName, Pretrained, Remat, Training
from cat_jax.errors import SettingError
from cat_jax.ranges import Count, check_ranges


@dataclass(frozen=True)
class JobOptions:
    """How a model is trained, and how the search for a layout is bounded.

    Attributes:
        lora: Train adapters on a frozen model instead of all parameters.
        frozen_dtype: Dtype of the frozen model, as ``model.frozen_dtype``; None is bfloat16.
        length: Positions of a sequence.
        batch_size: Sequences per step, over all chips; None takes one per chip.
        mesh: Chips along data, fsdp, tensor and context; None considers all meshes that fit.
        accumulate: Micro-batches per step; None considers all that divide the batch.
        remat: Rematerialisation, as ``model.remat``.
        logits_mib: Memory for the logits of a chip at a time, in MiB of float32.
        optimizer: Optimizer, as ``optimizer.name``.
        mu_dtype: Dtype of its first moment, as ``optimizer.mu_dtype``.
        tries: Layouts to compile for a job before giving up.
    """

    lora: bool = False
    frozen_dtype: FrozenDtype | None = None
    length: Count = 4096
    batch_size: Count | None = None
    mesh: tuple[Count, Count, Count, Count] | None = None
    accumulate: Count | None = None
    remat: Remat = Pretrained.remat
    logits_mib: Count = Training.logits_mib
    optimizer: OptimizerName = Optimizer.name
    mu_dtype: Dtype = Optimizer.mu_dtype
    tries: Count = 4

    def __post_init__(self):
        check_ranges(self, "")
        if self.frozen_dtype is not None and not self.lora:
            raise SettingError("frozen_dtype", "is of a model under adapters; give lora as well")
