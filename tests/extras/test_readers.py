"""Exported folders in transformers 4, which reads an older dialect than what wrote them.

transformers 4 takes defaults where it misses what it looks for, so only equal logits tell. It is
installed beside, without torch, which is the one of the tests.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cat_jax.data.tokenizer import train_tokenizer
from cat_jax.models import (
    CausalLM,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    YarnScaling,
    load_language_model,
    save_pretrained,
)

TEXT = "The cat sat on 31 mats, and the dog on none"
OLDER = ("transformers==4.56.2",)
FAMILIES = {
    "llama": {},
    "llama3": {"rope_scaling": Llama3Scaling(5.0, 0.5, 8.0, 256)},
    "linear": {"rope_scaling": LinearScaling(2.5), "max_positions": 5000},
    "qwen2": {"qkv_bias": True},
    "qwen2-tied": {"qkv_bias": True, "tie_embeddings": True},
    "qwen2-yarn": {
        "qkv_bias": True,
        "rope_scaling": YarnScaling(5.0, 256, None, 24.0, 0.5),
        "max_positions": 1280,
    },
    "qwen3": {"qk_norm": True},
}


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A folder with transformers 4 and what it needs."""
    folder = tmp_path_factory.mktemp("transformers4")
    install = ["-m", "pip", "install", "--quiet", "--target", folder, *OLDER]
    subprocess.run([sys.executable, *map(str, install)], check=True)
    return folder


def read(older: Path, *folders: Path) -> list[dict]:
    script = Path(__file__).with_name("read_with_transformers.py")
    environment = os.environ | {"PYTHONPATH": str(older)}
    done = subprocess.run(
        [sys.executable, script, TEXT, *map(str, folders)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["version"].startswith("4.56")
    return found["folders"]


def random_model(family: str, vocab_size: int) -> tuple[ModelConfig, dict]:
    config = ModelConfig(vocab_size, 30, 29, 3, 6, 3, 8, rope_theta=300.0, norm_eps=0.02)
    config = dataclasses.replace(config, **FAMILIES[family])
    shapes = jax.eval_shape(CausalLM(config).init, jax.random.key(0), jnp.zeros((1, 1), int))
    leaves, tree = jax.tree.flatten(shapes["params"])
    rng = np.random.default_rng(1)
    values = [jnp.asarray(0.3 * rng.normal(size=leaf.shape), "float32") for leaf in leaves]
    return config, tree.unflatten(values)


def test_every_family_and_a_tokenizer_from_scratch(older, tmp_path):
    tokenizer = train_tokenizer([TEXT, "The dog sat on the mat"])
    models = {family: random_model(family, len(tokenizer)) for family in FAMILIES}
    for family, (config, params) in models.items():
        save_pretrained(tmp_path / family, config, params, tokenizer)
    ids = tokenizer(TEXT).input_ids
    found = read(older, *(tmp_path / family for family in models))
    for theirs, (config, params) in zip(found, models.values(), strict=True):
        logits, _ = CausalLM(config).apply({"params": params}, jnp.asarray([ids]))
        assert theirs["ids"] == ids
        assert theirs["ends"] == tokenizer.eos_token_id
        np.testing.assert_allclose(theirs["logits"], logits[0], rtol=0, atol=1e-5)


def test_a_source_with_its_tokenizer_and_another_end(older, shared, tmp_path):
    source = shared / "models/stories260K"
    model = load_language_model(source)
    folder = tmp_path / "out"
    arguments = (model.model.config, model.params, model.tokenizer)
    save_pretrained(folder, *arguments, source=source, end_ids=[7])
    (theirs,) = read(older, folder)
    ids = model.tokenizer(TEXT).input_ids
    logits, _ = model.model.apply({"params": model.params}, jnp.asarray([ids]))
    assert theirs["ids"] == ids
    assert theirs["ends"] == [model.tokenizer.eos_token_id, 7]
    np.testing.assert_allclose(theirs["logits"], logits[0], rtol=0, atol=1e-4)  # up to 18
