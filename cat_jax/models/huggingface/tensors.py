"""The one table between the tensors of Hugging Face files and the parameters of ``CausalLM``."""

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from cat_jax.models.config import ModelConfig


class TensorRule(NamedTuple):
    """How one Hugging Face tensor lies in our parameters; ``*`` stands for the layer.

    Axes are letters of the glossary in ``cat_jax.types``. A word of several letters is one axis
    that joins them, so ``"HC D"`` <-> ``"D H C"`` gives reshape and transpose in either
    direction. The layers of a ``*`` are stacked on axis 0 of ours.
    """

    hf_name: str
    hf_axes: str
    path: str
    axes: str

    @property
    def is_layered(self) -> bool:
        """Tell whether every layer has its own."""
        return "*" in self.hf_name

    def hf_names(self, num_layers: int) -> list[str]:
        """Return the names of the tensors, one per layer if the name has a layer."""
        if not self.is_layered:
            return [self.hf_name]
        return [self.hf_name.replace("*", str(n)) for n in range(num_layers)]

    def hf_shape(self, sizes: Mapping[str, int]) -> list[int]:
        """Return the shape of one Hugging Face tensor."""
        return [math.prod(sizes[letter] for letter in word) for word in self.hf_axes.split()]

    def shape(self, sizes: Mapping[str, int], num_layers: int) -> tuple[int, ...]:
        """Return the shape of our parameter."""
        stack = (num_layers,) if self.is_layered else ()
        return (*stack, *(sizes[axis] for axis in self.axes.split()))

    def from_hf(self, tensor: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
        """Convert one Hugging Face tensor to our axes."""
        split, ours = self.hf_axes.replace(" ", ""), self.axes.split()
        return tensor.reshape([sizes[a] for a in split]).transpose([split.index(a) for a in ours])

    def to_hf(self, value: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
        """Convert one layer of ours to the axes of Hugging Face."""
        split, ours = self.hf_axes.replace(" ", ""), self.axes.split()
        return value.transpose([ours.index(a) for a in split]).reshape(self.hf_shape(sizes))


LAYER = "model.layers.*."
EMBED, UNEMBED = "model.embed_tokens.weight", "lm_head.weight"
TENSOR_RULES = tuple(
    TensorRule(*row)
    for row in (
        (EMBED, "V D", "embed/embedding", "V D"),
        (LAYER + "input_layernorm.weight", "D", "layers/attention_norm/scale", "D"),
        (LAYER + "self_attn.q_proj.weight", "HC D", "layers/attention/query/kernel", "D H C"),
        (LAYER + "self_attn.k_proj.weight", "GC D", "layers/attention/key/kernel", "D G C"),
        (LAYER + "self_attn.v_proj.weight", "GC D", "layers/attention/value/kernel", "D G C"),
        (LAYER + "self_attn.q_proj.bias", "HC", "layers/attention/query/bias", "H C"),
        (LAYER + "self_attn.k_proj.bias", "GC", "layers/attention/key/bias", "G C"),
        (LAYER + "self_attn.v_proj.bias", "GC", "layers/attention/value/bias", "G C"),
        (LAYER + "self_attn.q_norm.weight", "C", "layers/attention/query_norm/scale", "C"),
        (LAYER + "self_attn.k_norm.weight", "C", "layers/attention/key_norm/scale", "C"),
        (LAYER + "self_attn.o_proj.weight", "D HC", "layers/attention/output/kernel", "H C D"),
        (LAYER + "post_attention_layernorm.weight", "D", "layers/mlp_norm/scale", "D"),
        (LAYER + "mlp.gate_proj.weight", "F D", "layers/mlp/gate/kernel", "D F"),
        (LAYER + "mlp.up_proj.weight", "F D", "layers/mlp/up/kernel", "D F"),
        (LAYER + "mlp.down_proj.weight", "D F", "layers/mlp/down/kernel", "F D"),
        ("model.norm.weight", "D", "final_norm/scale", "D"),
        (UNEMBED, "V D", "unembed/kernel", "D V"),
    )
)
KERNELS = {
    rule.hf_name.split(".")[-2]: rule
    for rule in TENSOR_RULES
    if rule.hf_name.endswith("_proj.weight")
}
"""The projections of the layers, by PEFT's names."""
COMPUTED_TENSORS = LAYER + "self_attn.rotary_emb.inv_freq"
"""A buffer in old files, fixed by rope_theta."""


def tensor_rules(config: ModelConfig) -> list[TensorRule]:
    """Return the rules of the table that a model of this configuration has."""
    absent = []
    if not config.qkv_bias:
        absent.append("*/bias")
    if not config.qk_norm:
        absent += ["*/query_norm/scale", "*/key_norm/scale"]
    if config.tie_embeddings:
        absent.append("unembed/kernel")
    return [r for r in TENSOR_RULES if not any(fnmatchcase(r.path, path) for path in absent)]


def axis_sizes(config: ModelConfig) -> dict[str, int]:
    """Return the size of every axis that the table names."""
    return {
        "V": config.vocab_size,
        "D": config.width,
        "F": config.mlp_width,
        "H": config.num_heads,
        "G": config.num_kv_heads,
        "C": config.head_dim,
    }


def count_params(rules: Iterable[TensorRule], sizes: Mapping[str, int], num_layers: int) -> int:
    """Count the numbers in the parameters of these rules, of all layers."""
    return sum(math.prod(rule.shape(sizes, num_layers)) for rule in rules)


def shape_problems(flat: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return how arrays by path differ from the shapes they should have; empty if they fit."""
    problems = [f"{path} is missing" for path in shapes if path not in flat]
    for path, value in flat.items():
        if path not in shapes:
            problems.append(f"{path} is unexpected")
        elif value.shape != shapes[path]:
            problems.append(f"{path} has shape {value.shape}, not {shapes[path]}")
    return problems
