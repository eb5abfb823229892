"""Reading Hugging Face folders: where every number goes, and what is refused with which words."""

import json
import re

import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from cat_jax.errors import InputError
from cat_jax.models import (
    CausalLM,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    YarnScaling,
    load_pretrained,
)
from cat_jax.models.huggingface.weights import COMPANIONS

V, D, F, N, H, G, C = 37, 30, 29, 2, 6, 3, 8
ORIGINAL = "original_max_position_embeddings"

LLAMA = {
    "model_type": "llama",
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": N,
    "num_attention_heads": H,
    "num_key_value_heads": G,
    "head_dim": C,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-3,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
    "tie_word_embeddings": False,
    "max_position_embeddings": 2048,
}
QWEN2 = LLAMA | {"model_type": "qwen2"}
QWEN3 = LLAMA | {"model_type": "qwen3"}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}


def llama_tensors(seed=0, dtype=np.float32):
    """Named and shaped as torch does, independently of the table under test."""
    shapes = {"model.embed_tokens.weight": (V, D), "model.norm.weight": (D,)}
    shapes["lm_head.weight"] = (V, D)
    for n in range(N):
        layer = f"model.layers.{n}."
        shapes |= {
            layer + "self_attn.q_proj.weight": (H * C, D),
            layer + "self_attn.k_proj.weight": (G * C, D),
            layer + "self_attn.v_proj.weight": (G * C, D),
            layer + "self_attn.o_proj.weight": (D, H * C),
            layer + "mlp.gate_proj.weight": (F, D),
            layer + "mlp.up_proj.weight": (F, D),
            layer + "mlp.down_proj.weight": (D, F),
            layer + "input_layernorm.weight": (D,),
            layer + "post_attention_layernorm.weight": (D,),
        }
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def qwen2_tensors():
    rng, tensors = np.random.default_rng(1), llama_tensors()
    for n in range(N):
        for name, heads in (("q", H), ("k", G), ("v", G)):
            bias = rng.normal(size=heads * C).astype(np.float32)
            tensors[f"model.layers.{n}.self_attn.{name}_proj.bias"] = bias
    return tensors


def qwen3_tensors():
    rng, tensors = np.random.default_rng(2), llama_tensors()
    for n in range(N):
        for name in "qk":
            scale = rng.normal(size=C).astype(np.float32)
            tensors[f"model.layers.{n}.self_attn.{name}_norm.weight"] = scale
    return tensors


def without(tensors, *names):
    return {name: value for name, value in tensors.items() if name not in names}


@pytest.fixture
def save(tmp_path):
    """Writes a folder as given; returns its path."""

    def save(config=LLAMA, tensors=None):
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(llama_tensors() if tensors is None else tensors, tmp_path / "model.safetensors")
        return tmp_path

    return save


def refusal(folder):
    with pytest.raises(InputError) as caught:
        load_pretrained(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_config(save):
    config, _ = load_pretrained(save())
    assert config == ModelConfig(V, D, F, N, H, G, C, rope_theta=5000.0, norm_eps=1e-3)
    config, _ = load_pretrained(save(QWEN2, qwen2_tensors()), attention="xla_chunked", remat="full")
    assert config == ModelConfig(
        V, D, F, N, H, G, C, 5000.0, 1e-3, qkv_bias=True, attention="xla_chunked", remat="full"
    )
    config, _ = load_pretrained(save(QWEN3, qwen3_tensors()))
    assert config == ModelConfig(V, D, F, N, H, G, C, 5000.0, 1e-3, qk_norm=True)


@pytest.mark.parametrize("older", [{}, {"type": "llama3"}])
def test_config_with_scaled_positions(save, older):
    public = {name: value for name, value in LLAMA.items() if name != "rope_parameters"}
    public |= {"rope_theta": 5000.0, "rope_scaling": LLAMA3 | older}
    config, _ = load_pretrained(save(public))
    scaling = Llama3Scaling(8.0, 1.0, 4.0, 512)
    assert config == ModelConfig(V, D, F, N, H, G, C, 5000.0, 1e-3, rope_scaling=scaling)


def test_config_in_the_words_of_older_versions(save):
    older = {name: value for name, value in LLAMA.items() if name != "rope_parameters"}
    older |= {
        "rope_theta": 700,
        "rope_scaling": None,
        "torch_dtype": "bfloat16",
        "temperature": 0.9,
    }
    config, _ = load_pretrained(save(older))
    assert config == ModelConfig(V, D, F, N, H, G, C, rope_theta=700.0, norm_eps=1e-3)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("hf", "tensors"),
    [(LLAMA, llama_tensors()), (QWEN2, qwen2_tensors()), (QWEN3, qwen3_tensors())],
)
def test_parameters_are_those_of_the_model(save, hf, tensors, tied):
    if tied:
        tensors = without(tensors, "lm_head.weight")
    config, params = load_pretrained(save(hf | {"tie_word_embeddings": tied}, tensors))
    variables = jax.eval_shape(CausalLM(config).init, jax.random.key(0), jnp.zeros((1, 2), int))
    expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables["params"])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params) == expected


def test_where_the_norms_of_heads_go(save):
    tensors = qwen3_tensors()
    _, params = load_pretrained(save(QWEN3, tensors))
    attention = params["layers"]["attention"]
    for name, hf in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
        expected = tensors[f"model.layers.1.self_attn.{hf}.weight"]
        np.testing.assert_array_equal(attention[name]["scale"][1], expected)


def test_where_every_number_goes(save):
    tensors = qwen2_tensors()
    _, params = load_pretrained(save(QWEN2, tensors))
    n, d, f, c, v = 1, 7, 11, 5, 23
    layer = {name[15:]: x for name, x in tensors.items() if name.startswith(f"model.layers.{n}.")}
    attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
    for name, hf, head in (("query", "q", 4), ("key", "k", 2), ("value", "v", 1)):
        row = head * C + c
        weight, bias = layer[f"self_attn.{hf}_proj.weight"], layer[f"self_attn.{hf}_proj.bias"]
        assert attention[name]["kernel"][n, d, head, c] == weight[row, d]
        assert attention[name]["bias"][n, head, c] == bias[row]
    output = layer["self_attn.o_proj.weight"]
    assert attention["output"]["kernel"][n, 4, c, d] == output[d, 4 * C + c]
    assert mlp["gate"]["kernel"][n, d, f] == layer["mlp.gate_proj.weight"][f, d]
    assert mlp["up"]["kernel"][n, d, f] == layer["mlp.up_proj.weight"][f, d]
    assert mlp["down"]["kernel"][n, f, d] == layer["mlp.down_proj.weight"][d, f]
    norms = params["layers"]
    assert norms["attention_norm"]["scale"][n, d] == layer["input_layernorm.weight"][d]
    assert norms["mlp_norm"]["scale"][n, d] == layer["post_attention_layernorm.weight"][d]
    assert params["final_norm"]["scale"][d] == tensors["model.norm.weight"][d]
    assert params["embed"]["embedding"][v, d] == tensors["model.embed_tokens.weight"][v, d]
    assert params["unembed"]["kernel"][d, v] == tensors["lm_head.weight"][v, d]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float64])
def test_other_floats_become_float32(save, dtype):
    tensors = llama_tensors(dtype=dtype)
    _, params = load_pretrained(save(tensors=tensors))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    expected = tensors["lm_head.weight"].T.astype(np.float32)
    np.testing.assert_array_equal(params["unembed"]["kernel"], expected)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_floats_as_stored(save, dtype):
    tensors = llama_tensors(dtype=dtype)
    _, params = load_pretrained(save(tensors=tensors), param_dtype="stored")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    np.testing.assert_array_equal(params["unembed"]["kernel"], tensors["lm_head.weight"].T)


def test_stored_floats_that_cannot_stay(save):
    tensors = llama_tensors()
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].astype(ml_dtypes.bfloat16)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float64)
    with pytest.raises(InputError) as caught:
        load_pretrained(save(tensors=tensors), param_dtype="stored")
    assert "model.layers.*.mlp.up_proj.weight has several dtypes (BF16, F32)" in str(caught.value)
    assert "model.norm.weight has dtype F64, not one of F32, F16, BF16" in str(caught.value)


def save_shards(folder, tensors, shards=3):
    weight_map = {name: f"model-{i % shards}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        part = {name: x for name, x in tensors.items() if weight_map[name] == file}
        save_file(part, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_shards_equal_a_single_file(save):
    folder = save()
    to_host = load_pretrained(folder)
    (folder / "model.safetensors").unlink()
    save_shards(folder, llama_tensors())
    config, params = load_pretrained(folder)
    assert config == to_host[0]
    jax.tree.map(np.testing.assert_array_equal, params, to_host[1])


def test_incomplete_shards(save):
    folder = save()
    (folder / "model.safetensors").unlink()
    save_shards(folder, llama_tensors())
    (folder / "model-1.safetensors").unlink()
    assert "model-1.safetensors" in refusal(folder)
    for broken in ("{", "[]", "{}", '{"weight_map": 3}'):
        (folder / "model.safetensors.index.json").write_text(broken)
        assert "index" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gemma"}, "'gemma'"),
        ({"model_type": "mistral"}, "sliding_window = 4096"),
        ({"model_type": "no_such_family"}, "no_such_family"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, "custom code"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type = 'dynamic'"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}},
            "rope_type = 'longrope'",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2, "beta_fast": 1}}, "beta_slow must be"),
        ({"rope_scaling": LLAMA3 | {"attention_factor": 1.2}}, "attention_factor"),
        ({"rope_scaling": LLAMA3 | {"factor": "8"}}, "rope_parameters.factor must be a number"),
        ({"rope_scaling": LLAMA3 | {"type": "linear"}}, "'llama3' beside type = 'linear'"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "low_freq_factor must be less"),
        ({"model_type": "qwen3_moe"}, "'qwen3_moe'"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias = True"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * N}, "layer_types"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config"),
        ({"residual_multiplier": 0.22}, "residual_multiplier = 0.22"),
        ({"mlp_bias": True, "residual_multiplier": 2}, "mlp_bias = True, residual_multiplier = 2"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1},
            "use_sliding_window = True",
        ),
        ({"model_type": "qwen2", "layer_types": ["sliding_attention"] * N}, "layer_types"),
        ({"num_key_value_heads": 4}, "num_kv_heads"),
        ({"num_key_value_heads": 0}, "num_kv_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "big"}}, "rope_theta"),
        ({"hidden_size": "30"}, "hidden_size"),
        ({"vocab_size": None}, "vocab_size"),
    ],
)
def test_refused_attributes(save, changes, named):
    assert named in refusal(save(LLAMA | changes, qwen2_tensors()))


def test_bookkeeping_of_other_tools_is_ignored_and_named(save, caplog):
    notes = {
        "_attn_implementation_autoset": True,
        "attention_dropout": 0.1,
        "auto_map": {"AutoConfig": "own.Config"},
        "tokenizer_class": "LlamaTokenizer",
        "unsloth_fixed": True,
        "unsloth_version": "2025.1",
        "use_cache": True,
        "temperature": 0.0,
    }
    with caplog.at_level("INFO"):
        config, _ = load_pretrained(save(LLAMA | notes))
    assert config == load_pretrained(save())[0]
    ignored = next(r.getMessage() for r in caplog.records if "ignored" in r.getMessage())
    assert ignored.endswith(
        ": _attn_implementation_autoset, attention_dropout, auto_map, tokenizer_class, "
        "unsloth_fixed, unsloth_version"
    )


@pytest.mark.parametrize(
    "name",
    ["final_logit_softcapping", "attn_logit_softcapping", "embedding_multiplier", "lm_head_bias",
     "logits_scaling", "use_qk_norm", "attention_chunk_size", "num_local_experts", "clip_qkv",
     "alibi", "attention_sinks", "mrope_section", "sandwich_norm", "position_embedding_type"],
)  # fmt: skip
def test_what_changes_the_maths_is_refused_by_name(save, name):
    assert f"{name} = 7" in refusal(save(LLAMA | {name: 7}))


def test_factors_of_one_change_nothing(save):
    load_pretrained(save(LLAMA | {"residual_multiplier": 1.0, "logits_scaling": 1}))


def test_two_dialects_that_disagree_are_refused(save):
    assert "rope_theta = 700.0 and rope_parameters.rope_theta = 5000.0" in refusal(
        save(LLAMA | {"rope_theta": 700.0})
    )
    load_pretrained(save(LLAMA | {"rope_theta": 5000}))


def test_mistral_without_a_window(save):
    config, _ = load_pretrained(save(LLAMA | {"model_type": "mistral", "sliding_window": None}))
    assert config == load_pretrained(save())[0]


@pytest.mark.parametrize(
    ("rope", "scaling", "longest"),
    [
        ({"rope_type": "linear", "factor": 3.0}, LinearScaling(3.0), 6144),
        ({"type": "yarn", "factor": 4.0}, YarnScaling(4.0, 2048), 8192),
        ({"rope_type": "yarn", "factor": None, ORIGINAL: 512}, YarnScaling(4.0, 512), 2048),
        (
            {"rope_type": "yarn", "factor": 2.0, ORIGINAL: 512, "truncate": False},
            YarnScaling(2.0, 512, truncate=False),
            2048,
        ),
    ],
)
def test_longest_position_under_scaling(save, rope, scaling, longest):
    older = {k: v for k, v in LLAMA.items() if k != "rope_parameters"}
    config, _ = load_pretrained(save(older | {"rope_theta": 5000.0, "rope_scaling": rope}))
    assert (config.rope_scaling, config.max_positions) == (scaling, longest)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rope_theta", 0), ("rms_norm_eps", float("nan")), ("num_attention_heads", 0),
        ("max_position_embeddings", 0), ("num_hidden_layers", -1), ("rope_theta", True),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be(save, field, value):
    older = {k: v for k, v in LLAMA.items() if k != "rope_parameters"}
    assert "config.json" in refusal(save(older | {field: value}))


def test_features_that_are_switched_off_are_accepted(save):
    off = {"use_mrope": False, "quantization_config": None, "pretraining_tp": 2}
    load_pretrained(save(LLAMA | off))
    unused = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 1}
    load_pretrained(save(QWEN2 | unused, qwen2_tensors()))


def test_every_bad_tensor_is_in_one_message(save):
    tensors = without(llama_tensors(), "model.norm.weight", "model.layers.1.mlp.up_proj.weight")
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((D, F), np.float32)
    tensors["model.layers.0.mlp.gate_proj.weight"] = np.zeros((F, D), np.int8)
    tensors["model.layers.2.mlp.up_proj.weight"] = np.zeros((F, D), np.float32)
    message = refusal(save(tensors=tensors))
    assert re.sub(r".*do not fit: ", "", message).split("; ") == [
        "model.layers.1.mlp.up_proj.weight is missing",
        "model.norm.weight is missing",
        "model.layers.0.mlp.gate_proj.weight has dtype I8, not one of F64, F32, F16, BF16",
        f"model.layers.0.mlp.up_proj.weight has shape [{D}, {F}], not [{F}, {D}]",
        "model.layers.2.mlp.up_proj.weight is unexpected",
    ]


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("model.layers.1.mlp.up_proj.weight", np.float32),
        ("model.norm.weight", ml_dtypes.bfloat16),
        ("model.embed_tokens.weight", np.float16),
    ],
)
def test_weights_that_are_not_finite_are_refused_by_name(save, name, dtype, number):
    tensors = llama_tensors(dtype=dtype)
    tensors[name].reshape(-1)[-2] = number
    assert f"the tensor {name} holds NaN or infinity" in refusal(save(tensors=tensors))


def test_biases_must_fit_the_family(save):
    assert "self_attn.q_proj.bias is unexpected" in refusal(save(LLAMA, qwen2_tensors()))
    assert "self_attn.q_proj.bias is missing" in refusal(save(QWEN2, llama_tensors()))
    assert "self_attn.q_norm.weight is missing" in refusal(save(QWEN3, llama_tensors()))
    assert "self_attn.k_norm.weight is unexpected" in refusal(save(LLAMA, qwen3_tensors()))


def test_tensors_that_say_nothing_new(save):
    tensors, tied = llama_tensors(), LLAMA | {"tie_word_embeddings": True}
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = np.ones(C // 2, np.float32)
    _, params = load_pretrained(save(tied, tensors))
    assert "unembed" not in params
    assert refusal(save(tied, llama_tensors())).endswith("fit: lm_head.weight is unexpected")


def test_folders_without_a_model(save, tmp_path):
    assert "config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "Unrecognized model" in refusal(tmp_path)
    folder = save()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refusal(folder)
    assert "pickle" in message
    assert "convert" in message


def test_files_that_are_not_whole(save):
    file = save() / "model.safetensors"
    content = file.read_bytes()
    for part in (content[:-1], content[:100], b"", b"version https://git-lfs.github.com/spec/v1"):
        file.write_bytes(part)
        assert "model.safetensors is not a whole safetensors file" in refusal(file.parent)


@pytest.mark.parametrize("name", ["no/such/folder", "../x", "model.safetensors"])
def test_names_of_nothing(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert refusal(name).startswith(f"{name!r} is not a folder")


def test_hub_names_bring_no_code_and_no_pickles(save, monkeypatch):
    folder, calls = save(), []

    def download(name, allow_patterns):
        calls.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    config, _ = load_pretrained("someone/some-model")
    assert config.vocab_size == V
    assert calls == [("someone/some-model", [*COMPANIONS, "model*.safetensors"])]
