"""The files beside the weights, as all readers understand them: configurations and tokenizer.

transformers 5 keeps rotary settings in ``rope_parameters``. transformers 4, and servers built on
it, look for ``rope_theta`` and ``rope_scaling`` and take a default where they are missing, so both
are written. What came with a model leaves as it came; end tokens that training taught are added.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cat_jax.errors import InputError
from cat_jax.models.config import ModelConfig
from cat_jax.models.huggingface.attributes import READ_ATTRIBUTES
from cat_jax.models.huggingface.config import (
    SPECIAL_TOKENS,
    config_from_hf,
    config_to_hf,
    is_same_model,
    read_config,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# Custom code is never run, and sizes in bits are no longer true of exported weights.
DROPPED = ("auto_map", "_name_or_path", "quantization_config")


def config_files(
    config: ModelConfig,
    tokenizer: "PreTrainedTokenizerBase | None",
    source: Path | None,
    end_ids: Iterable[int],
    dtype: str,
) -> dict[str, dict[str, Any]]:
    """Return the contents of ``config.json`` and ``generation_config.json`` by file name.

    Args:
        config: Configuration of the model.
        tokenizer: Whose special tokens they are, without a source.
        source: Hugging Face folder the model came from; its settings are kept.
        end_ids: Token ids that end an answer, besides those of the source or tokenizer.
        dtype: Dtype of the weights.
    """
    attributes = _attributes(config, tokenizer, source)
    generation = read_json(source / GENERATION_CONFIG) if source is not None else None
    if generation is None:
        generation = {"_from_model_config": True} | {
            name: attributes[name] for name in SPECIAL_TOKENS if attributes.get(name) is not None
        }
    listed = [*as_ids(generation.get("eos_token_id")), *as_ids(attributes.get("eos_token_id"))]
    ends = list(dict.fromkeys([*listed, *end_ids]))
    for values in (attributes, generation):
        if set(ends) - set(as_ids(values.get("eos_token_id"))):
            values["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    return {
        CONFIG: attributes | _rope_of_both(attributes) | {"dtype": dtype, "torch_dtype": dtype},
        GENERATION_CONFIG: generation,
    }


def _attributes(
    config: ModelConfig, tokenizer: "PreTrainedTokenizerBase | None", source: Path | None
) -> dict[str, Any]:
    if source is None:
        attributes = _written_out(config_to_hf(config))
        special = {name: getattr(tokenizer, name, None) for name in SPECIAL_TOKENS}
    else:
        theirs = read_config(source)
        if is_same_model(config_from_hf(theirs), config):
            stored = read_json(source / CONFIG) or {}
            attributes = {k: v for k, v in stored.items() if k not in DROPPED}
            # transformers reads both dialects, whichever this file is written in.
            return attributes | {"rope_parameters": theirs.to_dict()["rope_parameters"]}
        attributes = _written_out(config_to_hf(config, theirs))
        special = {name: getattr(theirs, name, None) for name in SPECIAL_TOKENS}
    # Written out where there is none: readers would take a family's own, ids of another vocabulary.
    return attributes | special


def _written_out(hf_config: "PretrainedConfig") -> dict[str, Any]:
    """Return what differs from transformers' defaults, and all that decides the maths."""
    everything = hf_config.to_dict()
    return hf_config.to_diff_dict() | {
        k: everything[k] for k in READ_ATTRIBUTES & everything.keys()
    }


def _rope_of_both(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotary settings of transformers 4, from those of transformers 5."""
    rope = dict(attributes["rope_parameters"])
    theta = rope.pop("rope_theta")
    is_default = rope["rope_type"] == "default"
    return {"rope_theta": theta, "rope_scaling": None if is_default else rope}


def as_ids(value: int | Iterable[int] | None) -> list[int]:
    """Return the ids of a field that holds one, a list, or none."""
    values = [value] if isinstance(value, int) else value or ()
    return [x for x in values if isinstance(x, int)]


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object of an optional file.

    Raises:
        InputError: The file is no JSON object.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): mend or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold one JSON object, not {type(content).__name__}")
    return content


def listed_end_ids(folder: Path) -> tuple[int, ...]:
    """Return the end tokens that a folder lists, in ``generation_config.json`` or else its config.

    Raises:
        InputError: One of the files is damaged.
    """
    for name in (GENERATION_CONFIG, CONFIG):
        listed = as_ids((read_json(folder / name) or {}).get("eos_token_id"))
        if listed:
            return tuple(listed)
    return ()


def write_config_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what ``config_files`` returns."""
    for name, content in files.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, "utf-8")


def write_tokenizer(
    folder: Path, tokenizer: "PreTrainedTokenizerBase", source: Path | None = None
) -> None:
    """Write the files of a tokenizer: those of its source byte for byte, where it is unchanged."""
    if source is not None and _is_of(tokenizer, source):
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        return
    _save_tokenizer(folder, tokenizer)
    _write_older_dialect(folder / "tokenizer_config.json")


def _save_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # native code raises no narrower kind, with the number in its text
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(folder)) from error


def _is_of(tokenizer: Any, source: Path) -> bool:
    """Tell whether a folder holds this tokenizer and chat template."""
    from transformers import AutoTokenizer

    try:
        theirs: Any = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return (
        theirs.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
        and theirs.chat_template == tokenizer.chat_template
        and theirs.special_tokens_map == tokenizer.special_tokens_map
    )


def _write_older_dialect(path: Path) -> None:
    """Rewrite a ``tokenizer_config.json`` of transformers 5 in words that 4 knows as well."""
    fields = json.loads(path.read_text("utf-8"))
    if fields.get("tokenizer_class") == "TokenizersBackend":
        fields["tokenizer_class"] = "PreTrainedTokenizerFast"
    extra = fields.pop("extra_special_tokens", None)
    if isinstance(extra, list):
        fields["additional_special_tokens"] = extra
    elif extra:
        fields["extra_special_tokens"] = extra
    for name in ("backend", "is_local", "local_files_only"):
        fields.pop(name, None)
    path.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", "utf-8")
