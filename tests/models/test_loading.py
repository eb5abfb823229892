"""Loading under watch, in processes of its own: peak memory, and shards on several devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from cat_jax.models.huggingface.parameters import copy_in_blocks

ROOT = Path(__file__).resolve().parents[2]
V, D, F, N, H, G, C = 4000, 768, 2048, 8, 12, 4, 64
CONFIG = {
    "model_type": "qwen2",
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": F,
    "num_hidden_layers": N,
    "num_attention_heads": H,
    "num_key_value_heads": G,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """56 million parameters in bfloat16 and four shards."""
    folder = tmp_path_factory.mktemp("model")
    shapes = {"model.embed_tokens.weight": (V, D), "lm_head.weight": (V, D)}
    shapes["model.norm.weight"] = (D,)
    for n in range(N):
        layer, attention = f"model.layers.{n}.", f"model.layers.{n}.self_attn."
        for name, heads in (("q", H), ("k", G), ("v", G)):
            shapes[f"{attention}{name}_proj.weight"] = (heads * C, D)
            shapes[f"{attention}{name}_proj.bias"] = (heads * C,)
        shapes[attention + "o_proj.weight"] = (D, H * C)
        shapes |= {f"{layer}mlp.{name}_proj.weight": (F, D) for name in ("gate", "up")}
        shapes[layer + "mlp.down_proj.weight"] = (D, F)
        shapes |= {f"{layer}{name}_layernorm.weight": (D,) for name in ("input", "post_attention")}
    rng, names = np.random.default_rng(0), list(shapes)
    for i in range(4):
        part = {
            name: rng.normal(size=shapes[name]).astype(ml_dtypes.bfloat16) for name in names[i::4]
        }
        save_file(part, folder / f"model-{i}.safetensors")
    weight_map = {name: f"model-{i % 4}.safetensors" for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def run(script, folder, **environment):
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


MEASURE = """
import json, sys
import jax
from pathlib import Path
from cat_jax.models import load_pretrained
from cat_jax.models.huggingface.config import read_config

def status(name):
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name)]
    return 1024 * int(line.split()[1])

read_config(Path(sys.argv[1]))
jax.device_put(0.0).block_until_ready()
before = status("VmRSS")
_, params = load_pretrained(sys.argv[1], param_dtype=PARAM_DTYPE)
leaves = jax.tree.leaves(params)
sizes = [leaf.nbytes for leaf in leaves]
print(json.dumps({"peak": status("VmHWM") - before, "all": sum(sizes), "largest": max(sizes)}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_peak_memory_is_the_model_and_one_parameter(folder, dtype):
    measured = run(MEASURE.replace("PARAM_DTYPE", repr(dtype)), folder)
    kernels, embeddings = N * (2 * D * H * C + 2 * D * G * C + 3 * D * F), 2 * V * D
    bytes_each = {"float32": 4, "int8": 1}[dtype]
    assert measured["all"] == pytest.approx(bytes_each * kernels + 4 * embeddings, rel=0.01)
    # The tolerance is for what Python and jax allocate on the way; int8 is made of float32, one
    # layer at a time.
    on_the_way = 25e6 + (4 * 4 * D * F if dtype == "int8" else 0)
    assert measured["peak"] < measured["all"] + measured["largest"] + on_the_way, measured


SHARDED = """
import json, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from cat_jax.models import load_pretrained

mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("x", "y"))
_, whole = load_pretrained(sys.argv[1])

def spec(path, leaf):
    name = jax.tree_util.keystr(path)
    if "query" in name and "kernel" in name:
        return P("y", None, "x")        # layers and heads
    if leaf.ndim == 3 and "mlp" in name:
        return P(None, "x", "y")
    return P("y") if "embed" in name else P()

shardings = jax.tree.map_with_path(lambda p, x: NamedSharding(mesh, spec(p, x)), whole)
_, split = load_pretrained(sys.argv[1], sharding=shardings)
_, copies = load_pretrained(sys.argv[1], sharding=NamedSharding(mesh, P()))
for a, b, c, s in zip(*map(jax.tree.leaves, (whole, split, copies, shardings)), strict=True):
    assert b.sharding == s and c.sharding.is_fully_replicated
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
part = split["layers"]["attention"]["query"]["kernel"].addressable_shards[0].data.shape
print(json.dumps({"devices": len(jax.devices()), "part": part}))
"""


@pytest.mark.slow
def test_shards_go_to_their_devices(folder):
    told = run(SHARDED, folder, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    assert told == {"devices": 4, "part": [N // 2, D, H // 2, C]}


INT8 = """
import json, sys
import jax, numpy as np
from cat_jax.config import MeshShape
from cat_jax.models import load_pretrained
from cat_jax.sharding import make_mesh

mesh = make_mesh(MeshShape(1, 2, 2), batch_size=2)
_, whole = load_pretrained(sys.argv[1], param_dtype="int8")
_, split = load_pretrained(sys.argv[1], param_dtype="int8", sharding=mesh)
jax.tree.map(np.testing.assert_array_equal, whole, split)
layers = split["layers"]
found = layers["attention"]["output"]["kernel"], layers["mlp"]["up"]["kernel"]
print(json.dumps([x.addressable_shards[0].data.shape for x in jax.tree.leaves(found)]))
"""


@pytest.mark.slow
def test_shards_of_int8_kernels_are_those_of_the_whole(folder):
    told = run(INT8, folder, XLA_FLAGS="--xla_force_host_platform_device_count=4")
    output = [N, H // 2, C, D // 2], [N, D // 2]
    assert told == [*output, [N, D // 2, F // 2], [N, F // 2]]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 50, 7), (700, 3, 401)])
def test_blocks_make_up_the_whole(shape, order):
    source = np.random.default_rng(0).normal(size=shape).astype(np.float32).transpose(order)
    for part in (source, source[:, ::-1]):
        target = np.full(part.shape, np.nan, ml_dtypes.bfloat16)
        copy_in_blocks(part, target)
        np.testing.assert_array_equal(target, part.astype(ml_dtypes.bfloat16))
