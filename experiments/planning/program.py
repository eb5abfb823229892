"""The whole train step through the real TPU compiler, on a machine that has no TPU."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cat_jax.config import Guidance, Optimizer
from cat_jax.data.batches import Batch
from cat_jax.models import CausalLM, init_lora, param_shardings
from cat_jax.models.huggingface.weights import abstract_params
from cat_jax.sharding import batch_sharding, make_mesh
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.state import FrozenBase, TrainState, state_shardings
from cat_jax.train.step import make_train_step
from experiments.planning.hlo import bytes_by_kind, collectives
from experiments.planning.job import Job, Layout

WORDS = 1
"""Words of annotation bits per position: 32 effects in a row."""


@dataclass(frozen=True)
class Program:
    """What the compiler says of a step on one chip; all sizes are bytes.

    Attributes:
        arguments: state, frozen parameters and batch; the state's memory is reused for the result.
        temporaries: as the compiler adds them up, which may count memory that is used twice.
        peak: the most that is in HBM at once, arguments included.
        received: from other chips in a step, by kind of collective.
        seconds: that compiling took.
    """

    arguments: int
    temporaries: int
    peak: int
    received: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Refused:
    """The compiler says that the step does not fit the chip's memory; ``reason`` are its words."""

    reason: str


def compile_step(job: Job, layout: Layout, devices: Sequence[Any], mass: bool) -> Program | Refused:
    """Compiles the step of ``experiments.train_stg`` with (CAT) or without the second objective.

    Rows are packed: they have segments and positions.

    Raises:
        InputError: the mesh does not fit the model or the rows.
    """
    mesh = make_mesh(layout.mesh, job.rows, layout.accumulate, devices)
    optimizer = make_optimizer(Optimizer(), steps=1_000)
    model = CausalLM(job.model)
    trained, base = _parameters(job, mesh)
    step = make_train_step(
        model,
        optimizer,
        mesh,
        Guidance() if mass else None,
        (lambda step: 1.0) if mass else None,
        base,
        accumulate=layout.accumulate,
        loss_chunk=job.loss_chunk,
    )
    state = jax.eval_shape(
        lambda p: TrainState(jnp.zeros((), jnp.int32), p, optimizer.init(p)), trained
    )
    state = place(state, state_shardings(state, optimizer, mesh))
    started = time.perf_counter()
    try:
        compiled = step.lower(state, _batch(job, mesh)).compile()
    except jax.errors.JaxRuntimeError as error:
        if not re.search("RESOURCE_EXHAUSTED.* HBM", str(error)):
            raise
        return Refused(str(error).splitlines()[0])
    sizes: Any = compiled.memory_analysis()
    text: Any = compiled.as_text()
    return Program(
        arguments=sizes.argument_size_in_bytes,
        temporaries=sizes.temp_size_in_bytes,
        peak=sizes.peak_memory_in_bytes,
        received=bytes_by_kind(collectives(text)),
        seconds=time.perf_counter() - started,
    )


def place(shapes: Any, shardings: Any) -> Any:
    """Shapes that say where they lie."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, shardings
    )


def _parameters(job: Job, mesh: Mesh) -> tuple[Any, FrozenBase | None]:
    """Shapes of what is trained, and what it is trained on, as real runs hold them."""
    params = abstract_params(job.model)
    if job.lora is None:
        return params, None
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, job.model.dtype), params)
    base = FrozenBase(place(frozen, param_shardings(frozen, mesh)), job.lora)
    adapters = jax.eval_shape(lambda: init_lora(jax.random.key(0), job.model, base.lora))
    return adapters, base


def _batch(job: Job, mesh: Mesh) -> Batch:
    rows = batch_sharding(mesh)

    def array(dtype: str, *more: int) -> Any:
        return jax.ShapeDtypeStruct((job.rows, job.length, *more), dtype, sharding=rows)

    numbers = [array("int32") for _ in range(4)]
    return Batch(
        array("int32"), array("bool"), array("uint32", WORDS), array("uint32", WORDS), *numbers
    )
