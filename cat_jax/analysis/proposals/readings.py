"""What a model's gradients and its attention say of words; rival readings of their effect."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.data.alignment import Example, align_records
from cat_jax.data.batches import Batch
from cat_jax.data.records import Annotation, Record, Span
from cat_jax.errors import InputError
from cat_jax.evaluation.causal_mass import annotated_forward
from cat_jax.evaluation.likelihood import batches, summed_log_probabilities
from cat_jax.losses import guided_rows
from cat_jax.models import Aux, CausalLM, LanguageModel
from cat_jax.models.embedding import Embedding
from cat_jax.types import Array


def aligned(model: LanguageModel, records: Sequence[Record]) -> list[Example]:
    """Align records at any length that the model reads.

    Raises:
        InputError: A record is longer.
    """
    longest = model.model.config.max_positions
    examples, stats_ = align_records(records, model.tokenizer, max_length=longest)
    if stats_.too_long:
        raise InputError(
            f"{stats_.too_long} records are longer than the {longest} positions of the model; "
            "shorten them"
        )
    return examples


def _marked(model: LanguageModel, pairs: Sequence[tuple[Record, Span]]) -> list[Example]:
    """Return an example for each span in which it is the only cause of the answer."""
    return aligned(
        model,
        [
            replace(r, important=(Annotation(Span(r.target, len(r.input)), (span,)),))
            for r, span in pairs
        ],
    )


def gradients(
    model: LanguageModel, pairs: Sequence[tuple[Record, Span]], batch_size: int
) -> Iterator[float]:
    """Yield gradient times input of each span, summed over its tokens, as absolute values."""
    examples = _marked(model, pairs)
    most = max(int(example.target_mask.sum()) for example in examples)
    done = 0
    for batch in batches(examples, batch_size):
        gradient_BT = np.asarray(_scale_gradient(model.model, model.params, batch, most))
        marked_BT = np.asarray(batch.k_bits_BTW).any(-1)
        sums = np.abs(np.where(marked_BT, gradient_BT, 0.0).sum(1))
        yield from sums[: len(examples) - done].tolist()
        done += len(sums)


@partial(jax.jit, static_argnums=(0, 3))
def _scale_gradient(model: CausalLM, params: Any, batch: Batch, most: int) -> Array:
    """Return gradient times input of each token, [B, T]: the slope by its embedding's scale."""

    def total(scale_BT: Array) -> Array:
        def scaled(next_: Any, arguments: Any, options: Any, context: Any) -> Any:
            x = next_(*arguments, **options)
            is_input = isinstance(context.module, Embedding) and context.method_name == "__call__"
            return x * scale_BT[..., None].astype(x.dtype) if is_input else x

        with nn.intercept_methods(scaled):
            output = model.apply({"params": params}, batch.tokens_BT, method="hidden_states")
        hidden_BTD, _ = cast("tuple[Array, Aux]", output)
        return summed_log_probabilities(model, params, hidden_BTD, batch, most).sum()

    return jax.grad(total)(jnp.ones(batch.tokens_BT.shape))


def attention(
    model: LanguageModel, pairs: Sequence[tuple[Record, Span]], batch_size: int
) -> Iterator[float]:
    """Yield the share of the answer's attention on each span, over layers, heads and queries."""
    examples, done = _marked(model, pairs), 0
    for batch in batches(examples, batch_size):
        masses = np.asarray(_mean_mass(model.model, model.params, batch))
        yield from masses[: len(examples) - done].tolist()
        done += len(masses)


@partial(jax.jit, static_argnums=0)
def _mean_mass(model: CausalLM, params: Any, batch: Batch) -> Array:
    _, mass_NBHT = annotated_forward(model, params, batch)
    guided_BT = guided_rows(batch.causal_count_BT, batch.visible_count_BT)
    sums_B = jnp.where(guided_BT[None, :, None], mass_NBHT, 0.0).mean((0, 2)).sum(1)
    return sums_B / jnp.maximum(guided_BT.sum(1), 1)
