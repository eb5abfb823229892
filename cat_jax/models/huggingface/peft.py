"""Adapter folders of PEFT, in and out: a configuration (JSON) and tensors (safetensors)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from cat_jax.errors import InputError
from cat_jax.files import new_folder
from cat_jax.models.config import ModelConfig
from cat_jax.models.huggingface.safetensors import FLOAT_TYPES, StoredTensor, read_header
from cat_jax.models.huggingface.tensors import TensorRule
from cat_jax.models.lora import (
    KERNELS,
    LoraConfig,
    adapter_rules,
    adapter_sizes,
    check_adapters,
)
from cat_jax.sharding import to_host

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
READ_FIELDS = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules"}
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
    *,
    base: str = "",
) -> None:
    """Writes a folder that PEFT and ``load_adapter`` read.

    Where several processes hold the adapters, all call this and the first writes.

    Args:
        folder: must not exist.
        config: of the model that the adapters are for.
        adapters: as from ``init_lora``.
        lora: their form.
        base: name of the base model, for the record.

    Raises:
        InputError: the folder exists, or the adapters are not of this form and model.
    """
    sizes = adapter_sizes(config, lora)
    check_adapters(adapters, lora, sizes, config.num_layers)
    flat: dict[str, Any] = flatten_dict(adapters, sep="/")
    tensors = {
        PREFIX + name: np.ascontiguousarray(rule.to_hf(to_host(flat[rule.path][n]), sizes))
        for rule in adapter_rules(lora)
        for n, name in enumerate(rule.hf_names(config.num_layers))
    }
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
        (writing / CONFIG_FILE).write_text(json.dumps(fields, indent=2) + "\n")
        save_file(tensors, writing / WEIGHTS_FILE, {"format": "pt"})


def load_adapter(folder: str | Path, config: ModelConfig) -> tuple[LoraConfig, dict[str, Any]]:
    """Reads a LoRA folder of PEFT for a model of this configuration.

    Returns:
        The form of the adapters, and the adapters in float32.

    Raises:
        InputError: files are missing or damaged, the folder asks for what ``attach_lora`` does not
            compute, or its tensors are not those of its own form on this model.
    """
    folder = Path(folder)
    lora = _read_form(folder / CONFIG_FILE)
    if not (folder / WEIGHTS_FILE).is_file():
        raise InputError(
            f"{folder} has no {WEIGHTS_FILE} (pickles such as adapter_model.bin are never read, "
            "they can run code): save the adapter again with PEFT, safe_serialization=True"
        )
    tensors = dict(read_header(folder / WEIGHTS_FILE))
    _check_tensors(folder, tensors, config, lora)
    sizes = adapter_sizes(config, lora)

    def load(rule: TensorRule):
        names = rule.hf_names(config.num_layers)
        layers = [rule.from_hf(tensors[PREFIX + name].map(), sizes) for name in names]
        return jnp.asarray(np.stack(layers).astype(np.float32))

    adapters = {rule.path: load(rule) for rule in adapter_rules(lora)}
    return lora, unflatten_dict(adapters, sep="/")


def _read_form(path: Path) -> LoraConfig:
    try:
        fields = json.loads(path.read_text("utf-8"))
        if fields["peft_type"] != "LORA":
            raise InputError(f"{path} is of type {fields['peft_type']}: only LORA is computed here")
        targets = fields["target_modules"]
        alpha, dropout = float(fields["lora_alpha"]), float(fields["lora_dropout"])
        rank = int(fields["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no configuration of a LoRA adapter "
            f"({type(error).__name__}: {error}): give a folder that PEFT saved"
        ) from error
    refused = [
        f"{name} = {value!r}"
        for name, value in sorted(fields.items())
        if name not in READ_FIELDS | NEUTRAL_FIELDS
        and value
        and value not in PLAIN_VALUES.get(name, ())
    ]
    if not isinstance(targets, list) or not set(targets) <= KERNELS.keys():
        refused.append(f"target_modules = {targets!r}")
    if refused:
        raise InputError(f"{path} asks for what is not computed here: {', '.join(refused)}")
    return LoraConfig(rank, alpha, dropout, tuple(sorted(targets)))


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
