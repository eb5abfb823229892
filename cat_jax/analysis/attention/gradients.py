"""The gradient of an answer's log-probability by the attention probabilities.

A probability P[i, j] of a head enters the model through its output O[i] = sum_j P[i, j] V[j] alone,
so its gradient is dL/dO[i] . V[j]. No attention implementation has to be differentiated by its map.
"""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.analysis.attention.named import AXES, AttentionMaps
from cat_jax.analysis.attention.read import checked_ids
from cat_jax.analysis.attention.text import Places, check_records, read_text
from cat_jax.data.alignment import align_records
from cat_jax.data.batches import Batch, stack_examples
from cat_jax.data.records import Record
from cat_jax.evaluation.likelihood import summed_log_probabilities
from cat_jax.models import KEYS_VALUES, Aux, CausalLM, LanguageModel
from cat_jax.models.edits import OFFSETS
from cat_jax.sharding import replicate
from cat_jax.types import Array


def read_gradients(
    model: LanguageModel, record: Record, *, queries: Places | None = None, spurious: Places = ()
) -> AttentionMaps:
    """Return the gradient of the answer's log-probability by every attention probability.

    Above the diagonal, where there is no attention, it is zero.

    Args:
        model: The model.
        record: Prompt and answer.
        queries: Queries to read alone, as in ``read_attention``; None reads all.
        spurious: As in ``read_attention``.

    Returns:
        Values in nats, axes as in ``read_attention``. The log-probability is that of the answer's
        tokens, its end included.

    Raises:
        InputError: The record has no answer or is longer than the model reads, or as
            ``read_attention``.
    """
    check_records([record], "read")
    read = read_text(record, model.tokenizer, spurious)
    checked_ids(model.model, read)
    longest = model.model.config.max_positions
    examples, _ = align_records([record], model.tokenizer, max_length=longest)
    rows = list(range(len(read.tokens))) if queries is None else read.queries(queries)
    batch = stack_examples(examples)
    most = int(examples[0].target_mask.sum())
    slopes = _slopes(model.model, model.params, batch, jnp.array(rows), most)
    return AttentionMaps(np.asarray(slopes, np.float32), AXES, read, np.array(rows))


@partial(jax.jit, static_argnums=(0, 4))
def _slopes(model: CausalLM, params: Any, batch: Batch, rows_R: Array, most: int) -> Array:
    """Return the gradient of the first sequence, [N, H, R, T]."""
    config = model.config
    sequences, length = batch.tokens_BT.shape
    shape = (config.num_layers, sequences, length, config.num_heads, config.head_dim)

    def total(offset_NBTHC: Array) -> tuple[Array, Array]:
        output = model.apply(
            {"params": params, OFFSETS: {"layers": {"attention": {"heads": offset_NBTHC}}}},
            batch.tokens_BT,
            method="hidden_states",
            mutable=[KEYS_VALUES],
        )
        (hidden_BTD, _), taps = cast("tuple[tuple[Array, Aux], Any]", output)
        log_B = summed_log_probabilities(model, params, hidden_BTD, batch, most)
        return log_B.sum(), taps[KEYS_VALUES]["layers"]["attention"]["value"]

    slope_NBTHC, value_NBTGC = jax.grad(total, has_aux=True)(jnp.zeros(shape, config.dtype))
    per_group = config.num_heads // config.num_kv_heads
    value_NTHC = jnp.repeat(value_NBTGC[:, 0], per_group, axis=2)
    slopes_NHRT = jnp.einsum(
        "NRHC,NTHC->NHRT",
        slope_NBTHC[:, 0, rows_R],
        value_NTHC,
        preferred_element_type=jnp.float32,
    )
    seen_RT = jnp.arange(length)[None] <= rows_R[:, None]
    return replicate(jnp.where(seen_RT[None, None], slopes_NHRT, 0.0), model.partition)
