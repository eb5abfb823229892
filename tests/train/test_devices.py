"""Four devices take the step of one, and speak about the output matrix once a step."""

import os
import subprocess
import sys
from pathlib import Path

CHECK = """
import re
from functools import partial
import jax, numpy as np, optax
from jax.sharding import Mesh
import test_objective as given
from cat_jax.config import Guidance
from cat_jax.data.packing import pack_examples
from cat_jax.models import CausalLM
from cat_jax.train.state import new_state
from cat_jax.train.step import make_train_step

records = [given.record(2 + n % 5, n) for n in range(24)]
batch = given.padded(pack_examples(records, length=8, seed=0), 16, 8)
guidance = Guidance(form="hinge", alpha=9.0, scope="head", reduce="sample")

def run(devices, accumulate):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    optimizer = optax.sgd(1.0)
    step = make_train_step(
        CausalLM(given.CONFIG), optimizer, mesh, guidance, lambda step: 0.5,
        accumulate=accumulate, loss_chunk=3,
    )
    state = new_state(given.PARAMS, optimizer, mesh)
    return step(state, batch)

expected = run(1, 1)
for accumulate in (1, 2, 4):
    ours = run(4, accumulate)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, (ours[0].params, ours[1]), (expected[0].params, expected[1]))

reductions = []
real = jax.jit

def spy(function, **options):
    compiled = real(function, **options)
    def call(*arguments):
        reductions.extend(
            line for line in compiled.lower(*arguments).compile().as_text().splitlines()
            if re.search(r" all-(reduce|gather)(-start)?\\(", line)
        )
        return compiled(*arguments)
    return call

jax.jit = spy
run(4, 1)
assert reductions
assert not [line for line in reductions if "next_token_loss" in line and "/while/" in line]
print("checked", len(reductions))
"""


def test_four_devices_take_the_step_of_one():
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(root), str(Path(__file__).parent)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "checked" in done.stdout
