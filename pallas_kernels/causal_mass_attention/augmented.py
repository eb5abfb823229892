"""The mass from stock attention kernels: one more column of V for every class of queries.

Column e of key j is 1 where class e annotates it (``classes.py``), so that P V also holds the mass
of every class, and a query reads the column of its own:

    mass_i = (P V)_ie, where e is the class of query i.

Gradients flow through the stock kernel. There are 32 columns for each word of bits. A kernel that
takes values wider than keys computes them beside the values; for one that does not they are the
values of further attentions of the same queries and keys, as many columns as a head has at a time.
The mass is rounded to the dtype of the output. Where a sequence has more classes than columns,
which one bit per query never has, the mass of the queries of further classes is NaN.
"""

import functools

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Float32

from pallas_kernels.causal_mass_attention.classes import query_classes
from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.sharded import Partition, shard_mapped, specs
from pallas_kernels.causal_mass_attention.stock import (
    WIDTH_STEP,
    Stock,
    cudnn_unsupported_reason,
    stock_kernel,
)
from pallas_kernels.causal_mass_attention.support import InputSpec, Machine, require_supported


def unsupported_reason(spec: InputSpec, machine: Machine | None = None) -> str | None:
    """Return in one sentence why ``augmented`` does not support an input, or None.

    Without a machine, the stock kernel is that of this process.
    """
    machine = Machine.here() if machine is None else machine
    if spec.biased:
        return "augmented takes no bias, as keys that are hidden from a query need: use xla"
    if spec.second_order and machine.platform in ("gpu", "tpu"):
        return (
            "augmented runs a stock kernel here, whose backward cannot be differentiated again as "
            "a penalty on gradients needs: use xla"
        )
    if machine.platform == "gpu":
        return cudnn_unsupported_reason(spec, machine)
    if machine.platform == "tpu" and spec.dtype == "float16":
        return (
            "augmented on a TPU takes bfloat16 or float32, not float16, which TPU kernels cannot "
            "read: use xla_chunked"
        )
    return None


def augmented(
    inputs: Inputs, scale: float, *, partition: Partition | None = None, stock: Stock | None = None
) -> tuple[Float[Array, "B Q H C"], Float32[Array, "B H Q"] | None]:
    """Return attention and mass from ``stock``, by default the stock kernel of this machine.

    Raises:
      ValueError: the default stock kernel does not support the input.
    """
    if stock is None:
        require_supported(unsupported_reason, inputs)
        stock = stock_kernel(InputSpec.of(inputs), Machine.here())
    if partition is None:
        return _augmented(stock, scale, *inputs)
    in_specs, values, statistic = specs(partition)
    return shard_mapped(
        partition,
        functools.partial(_augmented, stock, scale),
        inputs,
        in_specs,
        (values, None if inputs.q_bits is None else statistic),
    )


def _augmented(
    stock: Stock,
    scale: float,
    query_BQHC: Array,
    key_BKGC: Array,
    value_BKGC: Array,
    q_bits_BQW: Array | None,
    k_bits_BKW: Array | None,
    segment_ids_BK: Array | None,
) -> tuple[Array, Array | None]:
    def attend(values: Array) -> Array:
        return stock.attend(query_BQHC, key_BKGC, values, segment_ids_BK, scale)

    if q_bits_BQW is None or k_bits_BKW is None:
        return attend(value_BKGC), None
    size = value_BKGC.shape[-1]
    classes = query_classes(q_bits_BQW, k_bits_BKW)
    marks_BKE = classes.marks_BKE.astype(value_BKGC.dtype)
    columns = marks_BKE.shape[-1]
    marks_BKGE = jnp.broadcast_to(marks_BKE[:, :, None], (*value_BKGC.shape[:3], columns))
    if stock.wide_values:
        out_BQHE = attend(jnp.concatenate([value_BKGC, marks_BKGE], axis=-1))
        out_BQHC, hits_BQHE = out_BQHE[..., :size], out_BQHE[..., size:]
    else:
        out_BQHC = attend(value_BKGC)
        width = size + -size % WIDTH_STEP
        padding = [(0, 0)] * 3 + [(0, -columns % width)]
        parts = jnp.split(jnp.pad(marks_BKGE, padding), -(-columns // width), axis=-1)
        hits_BQHE = jnp.concatenate([attend(part) for part in parts], axis=-1)[..., :columns]
    # Not a product: a GPU would round its operands to tensor-float-32.
    own_BQHE = jnp.where(classes.members_BQE[:, :, None], hits_BQHE.astype(jnp.float32), 0.0)
    mass_BHQ = own_BQHE.sum(-1).swapaxes(1, 2)
    return out_BQHC, jnp.where(classes.is_known_BQ[:, None], mass_BHQ, jnp.nan)
