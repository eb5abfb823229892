"""The arithmetic of a step, against what XLA counts in a compiled one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cat_jax.data.batches import Batch
from cat_jax.models import CausalLM, LoraConfig, ModelConfig, init_lora
from cat_jax.sharding import MeshShape, make_mesh
from cat_jax.train import throughput
from cat_jax.train.state import FrozenBase, new_state
from cat_jax.train.step import make_train_step
from cat_jax.train.throughput import StepFlops, StepTimer, rates, step_flops

B, T = 3, 64
LORA = LoraConfig(rank=40, dropout=0.0, targets=("q_proj", "up_proj"))


def batch():
    tokens = np.random.default_rng(0).integers(0, 40, (B, T)).astype(np.int32)
    bits = np.zeros((B, T, 1), np.uint32)
    counts = np.broadcast_to(np.arange(1, T + 1, dtype=np.int32), (B, T))
    return Batch(tokens, np.ones((B, T), bool), bits, bits, np.zeros((B, T), np.int32), counts)


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "lora"), [(True, None), (False, LORA)])
def test_work_is_what_xla_counts(tied, lora):
    """XLA also counts everything that is no matrix product, but leaves out gradients of inputs
    before the first adapter."""
    config = ModelConfig(
        40, 96, 160, 4, 4, 2, 24, tie_embeddings=tied, scan=False, attention="xla", remat="none"
    )
    model, mesh = CausalLM(config), make_mesh(MeshShape(), batch_size=B)
    params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    base = None if lora is None else FrozenBase(params, lora)
    trained = params if lora is None else init_lora(jax.random.key(0), config, lora)
    step = make_train_step(model, optax.sgd(1.0), mesh, base=base)
    state = new_state(trained, optax.sgd(1.0), mesh)
    counted = step.lower(state, batch()).compile().cost_analysis()["flops"]
    work = step_flops(config, lora)
    ours = (work.per_token + work.per_target) * B * T + work.per_pair * B * T * T
    assert 0.9 * counted < ours < (1 if lora is None else 1.05) * counted
    metrics = step(state, batch())[1]
    assert (metrics["tokens"], metrics["targets"]) == (B * T, B * (T - 1))
    assert metrics["pairs"] == (B * T * (T + 1) / 2)


def test_rates(monkeypatch):
    work = StepFlops(per_token=5.0, per_target=3.0, per_pair=2.0)
    assert rates(work, tokens=30, targets=20, pairs=100, seconds=4) == {"tokens_per_second": 7.5}
    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(throughput.PEAK_FLOPS, kind[:2], 1000.0)
    assert rates(work, tokens=30, targets=20, pairs=100, seconds=4)["mfu"] == pytest.approx(
        410 / 4000
    )


def test_a_step_refuses_other_shapes():
    """It would be another program."""
    model, mesh = CausalLM(ModelConfig(40, 8, 12, 1, 4, 2, 6)), make_mesh(MeshShape(), B)
    params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    step = make_train_step(model, optax.sgd(1.0), mesh)
    state, _ = step(new_state(params, optax.sgd(1.0), mesh), batch())
    with pytest.raises(TypeError, match="compiled"):
        step(state, jax.tree.map(lambda x: x[:, :9], batch()))


def test_the_meter_starts_anew_at_each_line(monkeypatch):
    now = iter([100, 109, 110, 150, 152, 200, 204])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    meter = StepTimer(StepFlops(5.0, 3.0, 2.0))  # at 100
    meter.wait_for_input(3.0)
    meter.end_step(tokens=90, targets=9, pairs=7)  # 9 s
    meter.end_step(tokens=10, targets=9, pairs=7)  # 1 s
    meter.start()  # at 150, after an evaluation
    meter.wait_for_input(1.0)
    meter.end_step(tokens=20, targets=9, pairs=7)  # 2 s
    assert meter.take() == {"seconds_per_step": 2, "input_wait": 4 / 12, "tokens_per_second": 20}
    meter.start()
    meter.end_step(tokens=8, targets=8, pairs=7)  # 4 s
    assert meter.take() == {"seconds_per_step": 4, "input_wait": 0, "tokens_per_second": 2}
