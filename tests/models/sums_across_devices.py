"""Run by ``test_precision.py`` in a process with eight devices.

Every device has 513 equal shares of a gradient: their sum, and the 4,104 of all devices, are
integers that float32 holds and bfloat16 does not.
"""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np

from cat_jax.config import MeshShape
from cat_jax.models import CausalLM, LoraConfig, ModelConfig, attach_lora, init_lora
from cat_jax.models.embedding import Embedding, look_up
from cat_jax.models.partitioning import param_shardings
from cat_jax.models.projection import LowRank, Projection
from cat_jax.sharding import BATCH_AXES, HEAD_AXES, SEQUENCE_AXES, batch_sharding, make_mesh
from pallas_kernels import Partition

V, D, R, SHARES = 16, 8, 3, 513


def partition(*shape):
    mesh = make_mesh(MeshShape(*shape), batch_size=8)
    return Partition(mesh, BATCH_AXES, HEAD_AXES, SEQUENCE_AXES)


def gradient(function, split, inputs, params):
    """Gradient of the sum of the outputs; inputs are split by rows, parameters by the table."""
    inputs = jax.device_put(inputs, batch_sharding(split.mesh))
    return jax.jit(jax.grad(lambda p, x: function(p, x).astype(jnp.float32).sum()))(params, inputs)


embed, project = Embedding(V, D, "bfloat16"), Projection((D,), use_bias=True, dtype="bfloat16")
tokens = np.full((8, SHARES), 5)
x = np.ones((8, SHARES, 4), np.float32)
for shape in ((8, 1, 1, 1), (1, 8, 1, 1), (2, 2, 2, 1), (2, 2, 1, 2)):
    split = partition(*shape)
    params = {"embed": {"embedding": jnp.ones((V, D))}}
    params = jax.device_put(params, param_shardings(params, split.mesh))
    # An odd length does not divide among the devices of ``context``.
    even = np.full((8, SHARES + 1), 5)
    even[:, -1] = 6
    found = gradient(
        lambda p, t, split=split: look_up(embed.bind({"params": p["embed"]}), t, split),
        split,
        even,
        params,
    )["embed"]["embedding"]
    expected = np.zeros((V, D))
    expected[5], expected[6] = 8 * SHARES, 8
    np.testing.assert_array_equal(found, expected)

    attended = gradient(
        lambda p, x: embed.apply({"params": p}, x, method="attend"),
        split,
        np.ones((8, SHARES, D), np.float32),
        {"embedding": jnp.ones((V, D))},
    )
    np.testing.assert_array_equal(attended["embedding"], np.full((V, D), 8.0 * SHARES))

    adapter = LowRank(jnp.ones((4, R)), jnp.ones((R, D)), None, 0.0, 1.0)
    params = {"kernel": jnp.ones((4, D)), "bias": jnp.ones(D), "lora": adapter}
    found = gradient(lambda p, x: project.apply({"params": p}, x), split, x, params)
    np.testing.assert_array_equal(found["kernel"], np.full((4, D), 8.0 * SHARES))
    np.testing.assert_array_equal(found["bias"], np.full(D, 8.0 * SHARES))
    np.testing.assert_array_equal(found["lora"].a, np.full((4, R), 8.0 * SHARES * D))
    np.testing.assert_array_equal(found["lora"].b, np.full((R, D), 8.0 * SHARES * 4))


def gathered(config, lora):
    """Numbers gathered by a pass forward and back over parameters split eight ways."""
    split = partition(1, 8, 1, 1)
    model, tokens_BT = CausalLM(config, split), np.zeros((8, 16), np.int32)
    params = CausalLM(config).init(jax.random.key(0), tokens_BT)["params"]
    adapters = init_lora(jax.random.key(1), config, lora)
    trees = [jax.device_put(t, param_shardings(t, split.mesh)) for t in (params, adapters)]

    def loss(params, adapters, tokens_BT):
        attached = attach_lora(params, adapters, lora)
        return model.apply({"params": attached}, tokens_BT)[0].mean()

    tokens_BT = jax.device_put(tokens_BT, batch_sharding(split.mesh))
    program = jax.jit(jax.grad(loss, (0, 1))).lower(*trees, tokens_BT).compile()
    sizes = Counter()
    for shape in re.findall(r" = \w+\[([\d,]*)\]\S* all-gather\(", program.as_text()):
        sizes[shape] += np.prod([int(n) for n in shape.split(",")])
    return sizes.total()


# A kernel is cast once in each direction: cast again where it is used again, it would be gathered
# again. Float32 has no casts.
lora = LoraConfig(R, 8.0, 0.0)
low, full = (
    gathered(ModelConfig(V, 8, 24, 2, 8, 8, 4, dtype=dtype, remat="full"), lora)
    for dtype in ("bfloat16", "float32")
)
assert 0 < low <= full, (low, full)
print("exact")
