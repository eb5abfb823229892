"""Adapter folders of PEFT, in and out: a configuration (JSON) and tensors (safetensors)."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cat_jax.config import Dtype, LoraTarget
from cat_jax.errors import InputError
from cat_jax.files import new_folder, write_text
from cat_jax.models.config import ModelConfig
from cat_jax.models.huggingface.companions import (
    GENERATION_CONFIG,
    config_files,
    write_config_files,
    write_tokenizer,
)
from cat_jax.models.huggingface.safetensors import (
    FLOAT_TYPES,
    StoredTensor,
    read_header,
    refuse_not_finite,
    save_tensors,
)
from cat_jax.models.huggingface.tensors import TensorRule
from cat_jax.models.huggingface.weights import local_folder
from cat_jax.models.lora import (
    KERNELS,
    LoraConfig,
    adapter_rules,
    adapter_sizes,
    check_adapters,
)
from cat_jax.sharding import to_host

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
READ_FIELDS = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora"}
# fmt: off
NEUTRAL_FIELDS = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "megatron_core", "peft_version",
    "qalora_group_size", "revision", "task_type",
}
# fmt: on
"""Bookkeeping, and numbers that only a feature which is refused would read."""
PLAIN_VALUES = {"bias": ("none",), "init_lora_weights": (True, "gaussian", "orthogonal", "eva")}
"""Harmless values that are not false; other initialisations change the base weights as well."""


def save_adapter(
    folder: str | Path,
    config: ModelConfig,
    adapters: Mapping[str, Any],
    lora: LoraConfig,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    base: str = "",
    end_ids: Iterable[int] = (),
    dtype: Dtype = "float32",
) -> None:
    """Write a folder that PEFT and ``load_adapter`` read.

    Where several processes hold the adapters, all call this and the first writes.

    Args:
        folder: Folder to write; must not exist.
        config: Configuration of the model that the adapters are for.
        adapters: As from ``init_lora``.
        lora: Form of the adapters.
        tokenizer: Saved beside them, with a ``generation_config.json`` that lists the end tokens.
        base: Folder or hub name of the base model.
        end_ids: Token ids that end an answer, besides those of base and tokenizer.
        dtype: Dtype of the tensors.

    Raises:
        InputError: The folder exists, or the adapters are not of this form and model, or are not
            finite.
    """
    sizes = adapter_sizes(config, lora)
    check_adapters(adapters, lora, sizes, config.num_layers)
    flat: dict[str, Any] = flatten_dict(adapters, sep="/")
    tensors = {
        PREFIX + name: _tensor(rule, flat[rule.path][n], sizes, dtype)
        for rule in adapter_rules(lora)
        for n, name in enumerate(rule.hf_names(config.num_layers))
    }
    refuse_not_finite(tensors)
    if jax.process_index():
        return
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
        "bias": "none",
        "inference_mode": True,
    }
    with new_folder(Path(folder)) as writing:
        write_text(writing / CONFIG_FILE, json.dumps(fields, indent=2) + "\n")
        save_tensors(writing / WEIGHTS_FILE, tensors)
        if tokenizer is not None:
            source = local_folder(base) if base else None
            write_tokenizer(writing, tokenizer, source)
            files = config_files(config, tokenizer, source, end_ids, dtype)
            write_config_files(writing, {GENERATION_CONFIG: files[GENERATION_CONFIG]})


def _tensor(rule: TensorRule, value: Any, sizes: Mapping[str, int], dtype: Dtype) -> np.ndarray:
    return np.ascontiguousarray(rule.to_hf(to_host(value), sizes), jnp.dtype(dtype))


def load_adapter(folder: str | Path, config: ModelConfig) -> tuple[LoraConfig, dict[str, Any]]:
    """Read a LoRA folder of PEFT for a model of this configuration; rsLoRA is read as its scale.

    Returns:
        The form of the adapters, and the adapters in float32.

    Raises:
        InputError: Files are missing or damaged, the folder asks for what ``attach_lora`` does not
            compute (DoRA, trained embeddings or biases), or its tensors are not those of its own
            form on this model, or are not finite.
    """
    folder = Path(folder)
    fields = _read_fields(folder / CONFIG_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        raise InputError(
            f"{folder} has no {WEIGHTS_FILE} (pickles such as adapter_model.bin are never read, "
            "they can run code): save the adapter again with PEFT, safe_serialization=True"
        )
    tensors = dict(read_header(folder / WEIGHTS_FILE))
    lora = _read_form(folder / CONFIG_FILE, fields, tensors)
    _check_tensors(folder, tensors, config, lora)
    sizes = adapter_sizes(config, lora)

    def load(rule: TensorRule):
        stored = {name: tensors[PREFIX + name].map() for name in rule.hf_names(config.num_layers)}
        refuse_not_finite(stored)
        layers = [rule.from_hf(values, sizes) for values in stored.values()]
        return jnp.asarray(np.stack(layers).astype(np.float32))

    adapters = {rule.path: load(rule) for rule in adapter_rules(lora)}
    return lora, unflatten_dict(adapters, sep="/")


def base_name(folder: Path) -> str | None:
    """Return the base model that an adapter folder names, if it does."""
    return _read_fields(folder / CONFIG_FILE).get("base_model_name_or_path") or None


def _read_fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
        if fields["peft_type"] != "LORA":
            raise InputError(f"{path} is of type {fields['peft_type']}: only LORA is computed here")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise _no_configuration(path, error) from error
    return fields


def _no_configuration(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} is no configuration of a LoRA adapter ({type(error).__name__}: {error}): give a "
        "folder that PEFT saved"
    )


def _read_form(path: Path, fields: Mapping[str, Any], tensors: Iterable[str]) -> LoraConfig:
    try:
        alpha, dropout = float(fields["lora_alpha"]), float(fields["lora_dropout"])
        rank, targets = int(fields["r"]), fields["target_modules"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_configuration(path, error) from error
    refused = [
        f"{name} = {value!r}"
        for name, value in sorted(fields.items())
        if name not in READ_FIELDS | NEUTRAL_FIELDS
        and value
        and value not in PLAIN_VALUES.get(name, ())
    ]
    if isinstance(targets, str):  # "all-linear" or an expression: the tensors say what it meant
        targets = sorted({name.split(".")[-3] for name in tensors if ".lora_A." in name})
    if not isinstance(targets, list) or not set(targets) <= KERNELS.keys():
        refused.append(f"target_modules = {targets!r}")
    if refused:
        raise InputError(f"{path} asks for what is not computed here: {', '.join(refused)}")
    if fields.get("use_rslora"):  # scales by alpha / sqrt(r) instead of alpha / r
        alpha *= math.sqrt(rank)
    return LoraConfig(rank, alpha, dropout, cast("tuple[LoraTarget, ...]", tuple(sorted(targets))))


def _check_tensors(
    folder: Path, tensors: Mapping[str, StoredTensor], config: ModelConfig, lora: LoraConfig
) -> None:
    rules, sizes = adapter_rules(lora), adapter_sizes(config, lora)
    expected = {
        PREFIX + name: rule.hf_shape(sizes)
        for rule in rules
        for name in rule.hf_names(config.num_layers)
    }
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name}
    if ranks - {lora.rank}:
        found = ", ".join(map(str, sorted(ranks)))
        raise InputError(
            f"{folder}: {CONFIG_FILE} says r = {lora.rank}, but the tensors have rank {found}: "
            "take both files from the same save"
        )
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    for name, tensor in sorted(tensors.items()):
        if name not in expected:
            problems.append(f"{name} is unexpected")
        elif tensor.shape != expected[name]:
            problems.append(f"{name} has shape {tensor.shape}, not {expected[name]}")
        elif tensor.dtype not in FLOAT_TYPES:
            problems.append(f"{name} has dtype {tensor.dtype}, not one of {', '.join(FLOAT_TYPES)}")
    if problems:
        raise InputError(f"the tensors of {folder} do not fit this model: {'; '.join(problems)}")
