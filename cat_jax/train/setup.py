"""What a run starts from: tokenizer, aligned examples, mesh, model, parameters, adapters."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from cat_jax.config import (
    AttentionDropout,
    FrozenDtype,
    Guidance,
    InputGradient,
    LoraConfig,
    ModelSource,
    Pretrained,
    PretrainedLora,
    Regularizer,
    Scratch,
    Training,
)
from cat_jax.data.records import Record
from cat_jax.data.shards import ShardedExamples
from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.errors import InputError
from cat_jax.files import check_writable
from cat_jax.models import (
    CausalLM,
    ModelConfig,
    config_from_hf,
    init_lora,
    init_params,
    load_pretrained,
)
from cat_jax.models.huggingface.companions import listed_end_ids
from cat_jax.models.huggingface.config import read_config
from cat_jax.models.huggingface.weights import local_folder
from cat_jax.models.language_model import LanguageModel
from cat_jax.models.quantization import has_int8
from cat_jax.models.tokenizer import load_tokenizer
from cat_jax.ranges import Seed, check_number
from cat_jax.sharding import HEAD_AXES, make_mesh
from cat_jax.train.attached import merge_attached
from cat_jax.train.divergence import check_finite
from cat_jax.train.settings import check_settings
from cat_jax.train.state import FrozenBase
from pallas_kernels import Partition, Selection, select_implementation, unsupported_reason

Start = ModelSource | LanguageModel
"""What ``fit`` takes for a model, once a name is resolved."""


@dataclass(frozen=True)
class TrainSetup:
    """What a run starts from.

    Attributes:
        tokenizer: The model's tokenizer.
        model: The model, partitioned for evaluation.
        attention: Selected attention implementation, and why.
        mesh: Devices.
        params: Initial trained parameters: of the model, or adapters if there is a ``base``. A
            run deletes them: parameters exist once.
        base: Frozen parameters under adapters.
        source: Where the model is from; None for a model in memory.
        end_ids: Token ids that end an answer, besides the tokenizer's end token.
    """

    tokenizer: PreTrainedTokenizerBase
    model: CausalLM
    attention: Selection
    mesh: Mesh
    params: Any
    base: FrozenBase | None
    source: ModelSource | None
    end_ids: tuple[int, ...] = ()

    def complete_params(self, trained: Any) -> Any:
        """Return the parameters of the model, from what is trained of them."""
        return trained if self.base is None else self.base.attach(trained)


def resolve_start(model: Start | str | PathLike[str], lora: LoraConfig | None = None) -> Start:
    """Return what to train from: a name is a pretrained model, with ``lora`` under adapters.

    Raises:
        InputError: Adapters for a model from scratch.
    """
    if isinstance(model, str | PathLike):
        model = Pretrained(str(model))
    if lora is None or isinstance(model, LanguageModel):
        return model
    if isinstance(model, Scratch):
        raise InputError("adapters need a pretrained model; leave out lora")
    if isinstance(model, PretrainedLora):
        return dataclasses.replace(model, lora=lora)
    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(Pretrained)}
    return PretrainedLora(**fields, lora=lora)


def make_tokenizer(start: Start, records: Sequence[Any]) -> PreTrainedTokenizerBase:
    """Load the tokenizer, or train one on the texts of the records for a model from scratch.

    Raises:
        InputError: The tokenizer or the model's configuration cannot be read, or there is no text
            to train a tokenizer on.
    """
    if isinstance(start, LanguageModel):
        return start.tokenizer
    if isinstance(start, Scratch):
        if isinstance(records, ShardedExamples):
            raise InputError(
                "prepared shards have no texts to make a tokenizer of, as a model from scratch "
                "needs; train it on records, or start from a pretrained model"
            )
        texts = [record.text for record in records if isinstance(record, Record)]
        if not texts:
            raise InputError("a model from scratch makes its tokenizer from records; give some")
        return train_tokenizer(texts, start.tokenizer)
    config = config_from_hf(read_config(local_folder(start.name)))
    return load_tokenizer(start.name, config.vocab_size)


def setup_training(
    start: Start,
    tokenizer: PreTrainedTokenizerBase,
    train: Training,
    *,
    guidance: Guidance | None = None,
    regularizer: Regularizer | None = None,
    lora: LoraConfig | None = None,
    seed: int = 0,
) -> TrainSetup:
    """Make the mesh, load or initialise the model, and add adapters; write nothing.

    Args:
        start: Which model.
        tokenizer: From ``make_tokenizer``.
        train: Its mesh, batch and lengths.
        guidance: Its layers are checked.
        regularizer: What the attention must be able to do depends on it.
        lora: Adapters for a model in memory; other models say so themselves.
        seed: Seed of random parameters.

    Raises:
        InputError: Whatever is wrong with model, tokenizer or settings, such as kernels in int8
            without adapters.
    """
    check_number("seed", seed, Seed)
    if train.profile is not None:
        check_writable(train.profile, "train.profile")
    mesh = make_mesh(train.mesh, train.batch_size, train.accumulate)
    attention = resolve_attention(start, train, regularizer)
    model, params = _load(start, len(tokenizer), train.max_length, attention, seed, mesh)
    check_settings(train, guidance, model, mesh)
    check_finite(params)
    lora = start.lora if isinstance(start, PretrainedLora) else lora
    base = None
    if lora is not None:
        base = FrozenBase(params, lora, seed)
        params = init_lora(jax.random.key(seed), model.config, lora)
    elif has_int8(params):
        raise InputError(
            "the model in memory holds kernels in int8, which cannot be trained: give lora to "
            "train adapters on them, or a model whose params are cat.dequantize_params(params)"
        )
    elif isinstance(start, LanguageModel):  # the caller keeps theirs
        params = jax.tree.map(lambda x: jnp.array(x, jnp.float32), params)
    # Test records need not divide among the devices, so each computes all of them.
    model = model.clone(partition=Partition(mesh, head_axes=HEAD_AXES))
    source = None if isinstance(start, LanguageModel) else start
    return TrainSetup(tokenizer, model, attention, mesh, params, base, source, _end_ids(start))


def _end_ids(start: Start) -> tuple[int, ...]:
    if isinstance(start, LanguageModel):
        return start.end_ids
    return listed_end_ids(local_folder(start.name)) if isinstance(start, Pretrained) else ()


def resolve_attention(
    start: Start, train: Training, regularizer: Regularizer | None = None
) -> Selection:
    """Return the attention implementation that is named, or for ``auto`` the one selected here.

    Args:
        start: Names it.
        train: Length of the longest sequences, and whether they hold several records.
        regularizer: Attention dropout hides keys, and input gradients are differentiated again.

    Raises:
        InputError: The one that is named cannot run here, or that of a model in memory cannot do
            what the regularizer needs.
    """
    length, packed = train.max_length, train.pack
    needs: dict[str, Any] = {
        "biased": isinstance(regularizer, AttentionDropout),
        "second_order": isinstance(regularizer, InputGradient),
    }
    if isinstance(start, LanguageModel):
        own, dtype = start.model.config.attention, start.model.config.dtype
        refusal = unsupported_reason(own, dtype, **needs) if regularizer is not None else None
        if refusal is not None:
            raise InputError(f"the model's own attention is {own}, but {refusal}")
        return Selection(own, "the model's own")
    dtype = start.dtype if isinstance(start, Pretrained) else "float32"
    needs |= {"head_dim": _head_dim(start), "segments": packed}
    if start.attention == "auto":
        return select_implementation(length, dtype, **needs)
    refusal = unsupported_reason(start.attention, dtype, length=length, **needs)
    if refusal is not None:
        raise InputError(
            f"model.attention is {start.attention}, but {refusal}; auto takes one that runs here"
        )
    return Selection(start.attention, "the configuration names it")


def _head_dim(start: Scratch | Pretrained) -> int:
    if isinstance(start, Scratch):
        return start.width // start.num_heads
    return config_from_hf(read_config(local_folder(start.name))).head_dim


def check_start(
    start: Start,
    tokenizer: PreTrainedTokenizerBase,
    train: Training,
    objectives: Iterable[tuple[Guidance | None, Regularizer | None]],
) -> ModelConfig:
    """Check settings against the model's configuration, and return it; no parameters are loaded.

    Raises:
        InputError: As ``check_settings``, for any pair of guidance and regularizer, and whatever
            is wrong with mesh and attention.
    """
    mesh = make_mesh(train.mesh, train.batch_size, train.accumulate)
    attention = resolve_attention(start, train)
    if isinstance(start, LanguageModel):
        model = start.model
    elif isinstance(start, Scratch):
        model = CausalLM(_scratch_config(start, len(tokenizer), train.max_length, attention))
    else:
        model = CausalLM(config_from_hf(read_config(local_folder(start.name))))
    for guidance, regularizer in objectives:
        check_settings(train, guidance, model, mesh)
        resolve_attention(start, train, regularizer)
    return model.config


def _load(
    start: Start,
    vocab_size: int,
    length: int,
    attention: Selection,
    seed: int,
    mesh: Mesh,
) -> tuple[CausalLM, Any]:
    """Return model and parameters; pretrained ones are sharded as they are read."""
    if isinstance(start, LanguageModel):
        return start.model, merge_attached(start.params)
    if isinstance(start, Scratch):
        model = CausalLM(_scratch_config(start, vocab_size, length, attention))
        return model, init_params(model, seed)
    config, params = load_pretrained(
        start.name,
        attention=attention.implementation,
        remat=start.remat,
        dtype=start.dtype,
        param_dtype=_param_dtype(start),
        sharding=mesh,
    )
    return CausalLM(config), params


def _param_dtype(start: Pretrained) -> FrozenDtype:
    # What is never updated needs no digits that the arithmetic drops.
    return start.frozen_dtype or start.dtype if isinstance(start, PretrainedLora) else "float32"


def _scratch_config(
    source: Scratch, vocab_size: int, length: int, attention: Selection
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size,
        width=source.width,
        mlp_width=source.mlp_width,
        num_layers=source.num_layers,
        num_heads=source.num_heads,
        num_kv_heads=source.num_kv_heads,
        head_dim=_head_dim(source),
        max_positions=max(ModelConfig.max_positions, length),
        attention=attention.implementation,
    )
