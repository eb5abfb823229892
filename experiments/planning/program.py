"""Compile the whole train step with the real TPU compiler, on a machine that has no TPU."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cat_jax.config import Guidance
from cat_jax.data.batches import Batch
from cat_jax.losses import LogitBudget
from cat_jax.models import CausalLM, init_lora, param_shardings, quantize_params
from cat_jax.models.huggingface.weights import abstract_params
from cat_jax.sharding import batch_sharding, make_mesh
from cat_jax.train.optimizer import make_optimizer
from cat_jax.train.state import FrozenBase, TrainState, state_shardings
from cat_jax.train.step import make_train_step
from experiments.planning.hlo import bytes_by_kind, collectives
from experiments.planning.job import Job, Layout

WORDS = 1
"""W, words of annotation bits per position: up to 32 effects per sequence."""


@dataclass(frozen=True)
class Program:
    """The compiler's analysis of a step on one chip; sizes are bytes.

    Attributes:
        arguments: Train state, frozen parameters and batch; the new state reuses the old one's
            memory.
        temporaries: Temporary buffers as the compiler adds them up; memory that several of them
            use in turn may count more than once.
        peak: Peak HBM, arguments included.
        received: Bytes received from other chips per step, by kind of collective.
        seconds: Compilation time.
    """

    arguments: int
    temporaries: int
    peak: int
    received: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Refused:
    """A step that does not fit the chip's memory.

    Attributes:
        reason: The compiler's message.
    """

    reason: str


def compile_step(job: Job, layout: Layout, devices: Sequence[Any], mass: bool) -> Program | Refused:
    """Compile the step of ``experiments.train_stg`` for packed sequences.

    Args:
        job: Model, sequences and loss of the step.
        layout: Mesh and micro-batches.
        devices: Devices of ``devices_of``.
        mass: Train with guidance (CAT), which reads the causal mass.

    Raises:
        InputError: The mesh does not divide the model or the sequences.
    """
    mesh = make_mesh(layout.mesh, job.sequences, layout.accumulate, devices)
    optimizer = make_optimizer(job.optimizer, steps=1_000)
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
        budget=LogitBudget(job.piece),
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
    """Return the shapes with these shardings."""
    return jax.tree.map(
        lambda x, along: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=along), shapes, shardings
    )


def _parameters(job: Job, mesh: Mesh) -> tuple[Any, FrozenBase | None]:
    """Return the shapes of the trained parameters, and the frozen base under adapters."""
    params = abstract_params(job.model)
    if job.lora is None:
        return params, None
    dtype = job.model.dtype if job.frozen_dtype == "int8" else job.frozen_dtype
    frozen = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), params)
    if job.frozen_dtype == "int8":
        frozen = jax.eval_shape(quantize_params, frozen)
    base = FrozenBase(place(frozen, param_shardings(frozen, mesh)), job.lora)
    adapters = jax.eval_shape(lambda: init_lora(jax.random.key(0), job.model, base.lora))
    return adapters, base


def _batch(job: Job, mesh: Mesh) -> Batch:
    """Return the shapes of a batch of packed sequences."""
    sharding = batch_sharding(mesh)

    def array(dtype: str, *more: int) -> Any:
        shape = (job.sequences, job.length, *more)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    return Batch(
        tokens_BT=array("int32"),
        target_mask_BT=array("bool"),
        q_bits_BTW=array("uint32", WORDS),
        k_bits_BTW=array("uint32", WORDS),
        causal_count_BT=array("int32"),
        visible_count_BT=array("int32"),
        segment_ids_BT=array("int32"),
        positions_BT=array("int32"),
    )
