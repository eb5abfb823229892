"""Hugging Face -> orbax -> Hugging Face gives every bit back, and torch reads the result."""

import json
import shutil
from functools import partial

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from safetensors.numpy import load_file

from cat_jax.models import LoraConfig, init_lora, load_pretrained, save_adapter

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 37,
    "hidden_size": 30,
    "intermediate_size": 29,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 8,
}


def source_model(family, dtype, tied):
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        family, tie_word_embeddings=tied, eos_token_id=[1, 7], max_position_embeddings=99, **SIZES
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape)
    return model.to(dtype)


@pytest.fixture
def run(run_command):
    return partial(run_command, "convert_weights")


@pytest.fixture
def refusal(run):
    def refusal(*words):
        status, _, errors = run(*words)
        assert status == 2
        (line,) = errors.splitlines()
        return line

    return refusal


def all_tensors(folder):
    return {n: x for path in folder.glob("*.safetensors") for n, x in load_file(path).items()}


@pytest.mark.parametrize(
    ("family", "dtype", "tied", "shards"),
    [
        ("llama", torch.float32, False, 1),
        ("qwen2", torch.bfloat16, True, 1),
        ("qwen3", torch.bfloat16, False, 4),
    ],
)
def test_there_and_back(family, dtype, tied, shards, tmp_path, run):
    model = source_model(family, dtype, tied)
    source, middle, target = (tmp_path / name for name in ("source", "middle", "target"))
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(source, max_shard_size=size if shards == 1 else size // shards)
    assert (len(list(source.glob("*.safetensors"))) > 1) == (shards > 1)
    assert run(source, middle) == (0, f"wrote {middle}\n", "")
    assert run(middle, target) == (0, f"wrote {target}\n", "")

    before, after = all_tensors(source), all_tensors(target)
    assert before.keys() == after.keys()
    for name, values in before.items():
        assert values.dtype == after[name].dtype
        assert values.tobytes() == after[name].tobytes(), name
    for name in ("config.json", "generation_config.json"):
        assert (source / name).read_bytes() == (target / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"source", "middle", "target"}

    model, again = (transformers.AutoModelForCausalLM.from_pretrained(f) for f in (source, target))
    assert again.dtype == model.dtype == dtype
    tokens_BT = torch.tensor([[3, 1, 4, 1, 5, 9]])
    with torch.no_grad():
        torch.testing.assert_close(again(tokens_BT).logits, model(tokens_BT).logits, rtol=0, atol=0)


def test_the_middle_is_what_the_model_is_made_of(tmp_path, run):
    source_model("llama", torch.float32, False).save_pretrained(tmp_path / "source")
    assert run(tmp_path / "source", tmp_path / "middle")[0] == 0
    _, params = load_pretrained(tmp_path / "source")
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.restore(tmp_path / "middle" / "params", params)
    kernel = params["layers"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(stored["layers"]["mlp"]["up"]["kernel"], kernel)


def test_greedy_text_survives(shared, tmp_path, run):
    source = shared / "models" / "stories260K"
    assert run(source, tmp_path / "middle")[0] == 0
    assert run(tmp_path / "middle", tmp_path / "target")[0] == 0
    golden = json.loads((shared / "golden" / "stories260K_greedy.json").read_text())
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "target")
    story = golden["greedy_ids"]
    prompt = torch.tensor([story[:5]])
    ids = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_length=len(story)
    )
    assert ids[0].tolist() == story
    assert tokenizer.decode(ids[0])


@pytest.fixture
def adapter(source, tmp_path):
    """A folder with an adapter for ``source`` that changes what it computes."""
    lora = LoraConfig(rank=5, alpha=8.0, targets=("q_proj", "down_proj"))
    config, _ = load_pretrained(source)
    adapters = init_lora(jax.random.key(0), config, lora)
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    save_adapter(tmp_path / "adapter", config, adapters, lora)
    return tmp_path / "adapter"


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:Could not find a config file in:UserWarning")
@pytest.mark.parametrize("through_orbax", [False, True])
def test_an_adapter_is_merged(through_orbax, source, adapter, tmp_path, run):
    peft = pytest.importorskip("peft")
    base = transformers.AutoModelForCausalLM.from_pretrained(source)
    tokens_BT = torch.tensor([[3, 1, 4, 1, 5, 9]])
    with torch.no_grad():
        plain = base(tokens_BT).logits
        expected = peft.PeftModel.from_pretrained(base, adapter)(tokens_BT).logits
    assert (expected - plain).abs().max() > 0.1
    given = source
    if through_orbax:
        given = tmp_path / "middle"
        assert run(source, given)[0] == 0
    assert run(given, tmp_path / "merged", "--adapter", adapter)[0] == 0
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(merged(tokens_BT).logits, expected, rtol=0, atol=1e-5)


def test_an_adapter_of_another_rank(source, adapter, tmp_path, refusal):
    form = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(form | {"r": 4}))
    line = refusal(source, tmp_path / "merged", "--adapter", adapter)
    assert "says r = 4, but the tensors have rank 5" in line
    assert not (tmp_path / "merged").exists()


def test_help(run):
    status, printed, _ = run("--help")
    assert status == 0
    assert "[-h] [OPTIONS] SOURCE TARGET" in printed


@pytest.fixture
def source(tmp_path):
    source_model("llama", torch.float32, False).save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def test_an_existing_target_is_left_alone(source, tmp_path, refusal):
    (tmp_path / "target").mkdir()
    line = refusal(source, tmp_path / "target")
    assert "target already exists" in line
    (tmp_path / "file").write_text("mine")
    assert "already exists" in refusal(source, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    assert not list((tmp_path / "target").iterdir())


def test_nothing_is_left_of_what_fails(source, tmp_path, refusal):
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    line = refusal(source, tmp_path / "target")
    assert "model.safetensors is not a whole safetensors file" in line
    shutil.rmtree(source)
    assert not list(tmp_path.iterdir())


def test_a_damaged_middle(source, tmp_path, run, refusal):
    middle, target = tmp_path / "middle", tmp_path / "target"
    assert run(source, middle)[0] == 0
    config = json.loads((middle / "config.json").read_text())
    (middle / "config.json").write_text(json.dumps(config | {"intermediate_size": 31}))
    line = refusal(middle, target)
    assert "layers/mlp/up/kernel has shape (3, 30, 29), not (3, 30, 31)" in line
    assert "layers/mlp/down/kernel has shape" in line
    (middle / "config.json").write_text(json.dumps(config))
    (middle / "params" / "_METADATA").unlink()
    assert "params is not a whole orbax checkpoint" in refusal(middle, target)
    (middle / "config.json").unlink()
    assert "config.json" in refusal(middle, target)
    assert not target.exists()


def test_a_source_of_nothing(tmp_path, refusal):
    assert "is not a folder" in refusal(tmp_path / "x", tmp_path / "y")


def test_a_pickle_is_refused_with_the_way_out(source, tmp_path, refusal):
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    line = refusal(source, tmp_path / "target")
    assert "pickles" in line
    assert "save_pretrained(NEW_FOLDER)" in line
