"""Weight decay and schedules against optax and torch, told by hand what decays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from cat_jax.config import LoraConfig, Optimizer
from cat_jax.errors import SettingError
from cat_jax.models import CausalLM, ModelConfig, init_lora
from cat_jax.train.optimizer import learning_rate, make_optimizer, moment_bytes

DECAYED = {
    "embed/embedding",
    "unembed/kernel",
    *(f"layers/attention/{name}/kernel" for name in ("query", "key", "value", "output")),
    *(f"layers/mlp/{name}/kernel" for name in ("gate", "up", "down")),
}
SPARED = {
    "final_norm/scale",
    "layers/attention_norm/scale",
    "layers/mlp_norm/scale",
    "layers/attention/query_norm/scale",
    "layers/attention/key_norm/scale",
    *(f"layers/attention/{name}/bias" for name in ("query", "key", "value")),
}
CONFIG = Optimizer(learning_rate=0.02, warmup=0.0, weight_decay=0.3, b2=0.97, clip=1e9)
STEPS = 5


def params_of(scan):
    config = ModelConfig(13, 8, 12, 3, 4, 2, 6, qkv_bias=True, qk_norm=True, scan=scan)
    params = CausalLM(config).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    return jax.tree.map(lambda x: x + 0.5, params), config


def adapters_of(config):
    lora = LoraConfig(rank=3, targets=("q_proj", "down_proj"))
    return jax.tree.map(lambda x: x + 0.5, init_lora(jax.random.key(1), config, lora))


def gradients(params):
    """Random gradients of every step, flat."""
    rng = np.random.default_rng(3)
    flat = flatten_dict(params, sep="/")
    return [{k: rng.normal(size=v.shape).astype(np.float32) for k, v in flat.items()}] * STEPS


def steps(optimizer, params):
    state = optimizer.init(params)
    for flat in gradients(params):
        updates, state = optimizer.update(unflatten_dict(flat, sep="/"), state, params)
        params = optax.apply_updates(params, updates)
    return flatten_dict(params, sep="/")


def torch_steps(params, decayed):
    """AdamW of torch with two parameter groups, and its cosine to zero."""
    torch = pytest.importorskip("torch")
    tensors = {
        k: torch.nn.Parameter(torch.tensor(np.array(v)))
        for k, v in flatten_dict(params, sep="/").items()
    }
    groups = [
        {"params": [v for k, v in tensors.items() if k in decayed], "weight_decay": 0.3},
        {"params": [v for k, v in tensors.items() if k not in decayed], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW([g for g in groups if g["params"]], lr=0.02, betas=(0.9, 0.97))
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, lambda n: (1 + np.cos(np.pi * n / 5)) / 2)
    for flat in gradients(params):
        for name, gradient in flat.items():
            tensors[name].grad = torch.tensor(gradient)
        adamw.step()
        schedule.step()
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("scan", [True, False])
def test_weight_decay_spares_norms_and_biases_as_parameter_groups_of_torch_do(scan):
    params, _ = params_of(scan)
    assert flatten_dict(params, sep="/").keys() == DECAYED | SPARED
    ours = steps(make_optimizer(CONFIG, STEPS), params)
    assert_close(ours, torch_steps(params, DECAYED))
    everywhere = steps(make_optimizer(Optimizer(**vars(CONFIG) | {"decay_all": True}), 5), params)
    assert_close(everywhere, torch_steps(params, DECAYED | SPARED))
    assert all(np.abs(everywhere[name] - ours[name]).max() > 1e-3 for name in SPARED)


def test_the_factors_of_lora_decay():
    params = adapters_of(params_of(True)[1])
    assert len(flatten_dict(params)) == 4
    ours = steps(make_optimizer(CONFIG, STEPS), params)
    assert_close(ours, torch_steps(params, ours.keys()))


def test_weight_decay_is_that_of_optax_with_an_explicit_mask():
    params, _ = params_of(True)
    mask = unflatten_dict({name: name in DECAYED for name in DECAYED | SPARED}, sep="/")
    schedule = optax.cosine_decay_schedule(0.02, STEPS)
    theirs = optax.adamw(schedule, b2=0.97, weight_decay=0.3, mask=mask)
    assert_close(steps(make_optimizer(CONFIG, STEPS), params), steps(theirs, params))


@pytest.mark.parametrize(
    ("steps", "warmup", "peaks"),
    [(1, 0.0, 0), (1, 0.9, 0), (2, 0.99, 1), (10, 0.99, 9), (10, 0.3, 3), (3, 0.0, 0)],
)
def test_the_learning_rate_of_short_runs_reaches_its_peak(steps, warmup, peaks):
    """Adam's first step of a constant gradient is the learning rate, and so are the later ones."""
    optimizer = make_optimizer(Optimizer(learning_rate=0.5, warmup=warmup), steps)
    params = {"kernel": jnp.zeros(1)}
    state, rates = optimizer.init(params), []
    for _ in range(steps):
        updates, state = optimizer.update({"kernel": jnp.full(1, 1e-3)}, state, params)
        rates.append(-float(updates["kernel"][0]))
    assert int(np.argmax(rates)) == peaks
    np.testing.assert_allclose(rates[peaks], 0.5, rtol=1e-4)
    assert np.isfinite(rates).all()


@pytest.mark.parametrize("warmup", [0, 3, 40])
def test_a_constant_learning_rate_stays_after_its_warm_up(warmup):
    config = Optimizer(learning_rate=0.5, schedule="constant", warmup_steps=warmup)
    for total in (7, 50):  # of a longer run the first steps are the same
        rates = [float(learning_rate(config, total)(step)) for step in range(total)]
        expected = [0.5 * (min(n / warmup, 1) if warmup else 1) for n in range(total)]
        np.testing.assert_allclose(rates, expected, rtol=2e-6)


def test_a_warm_up_in_steps_is_none_of_the_share():
    by_share = learning_rate(Optimizer(warmup=0.3), 10)
    in_steps = learning_rate(Optimizer(warmup=0.9, warmup_steps=3), 10)
    assert [float(by_share(n)) for n in range(10)] == [float(in_steps(n)) for n in range(10)]


def constant(name, **settings):
    config = Optimizer(
        0.01, "constant", warmup_steps=0, name=name, weight_decay=0.2, clip=1e9, **settings
    )
    return make_optimizer(config, STEPS)


def test_lion_is_that_of_its_paper():
    """Chen et al. 2023, algorithm 2."""
    params = params_of(True)[0]
    expected = {k: np.array(v) for k, v in flatten_dict(params, sep="/").items()}
    moment = {name: np.zeros_like(value) for name, value in expected.items()}
    for flat in gradients(params):
        for name, gradient in flat.items():
            update = np.sign(0.9 * moment[name] + 0.1 * gradient)
            decay = 0.2 * expected[name] if name in DECAYED else 0.0
            expected[name] = expected[name] - 0.01 * (update + decay)
            moment[name] = 0.97 * moment[name] + 0.03 * gradient
    assert_close(steps(constant("lion", b2=0.97), params), expected)


def test_adafactor_is_that_of_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    params = {"up": {"kernel": rng.normal(size=(70, 90)).astype(np.float32)}}
    tensor = torch.nn.Parameter(torch.tensor(params["up"]["kernel"]))
    theirs = torch.optim.Adafactor([tensor], lr=0.01, eps=(1e-30, 1e-3))
    ours = make_optimizer(
        Optimizer(0.01, "constant", warmup_steps=0, name="adafactor", clip=1e9), STEPS
    )
    state = ours.init(params)
    assert {x.shape for x in jax.tree.leaves(state[1].v_row)} == {(70,)}
    for _ in range(4):
        gradient = rng.normal(size=(70, 90)).astype(np.float32)
        updates, state = ours.update({"up": {"kernel": gradient}}, state, params)
        params = optax.apply_updates(params, updates)
        tensor.grad = torch.tensor(gradient)
        theirs.step()
    np.testing.assert_allclose(params["up"]["kernel"], tensor.detach().numpy(), atol=2e-6)


def test_adafactor_decays_matrices_by_the_learning_rate():
    params = params_of(True)[0]
    zeros = jax.tree.map(np.zeros_like, params)
    optimizer = constant("adafactor")
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for name, update in flatten_dict(updates, sep="/").items():
        value = flatten_dict(params, sep="/")[name]
        decay = -0.01 * 0.2 * value if name in DECAYED else np.zeros_like(value)
        np.testing.assert_allclose(update, decay, rtol=1e-5, atol=1e-8, err_msg=name)


@pytest.mark.parametrize(
    ("name", "dtype", "size"),
    [
        ("adamw", "float32", 8.0),
        ("adamw", "bfloat16", 6.0),
        ("lion", "float32", 4.0),
        ("lion", "bfloat16", 2.0),
        ("adafactor", "float32", 0.1),
    ],
)
def test_bytes_of_state_per_parameter(name, dtype, size):
    params = {"kernel": jnp.ones((3, 128, 96))}
    config = Optimizer(name=name, mu_dtype=dtype)
    state = make_optimizer(config, 5).init(params)
    held = sum(x.nbytes for x in jax.tree.leaves(state)) / params["kernel"].size
    assert 0 < held < size + 0.01
    assert held > size - 0.05
    assert moment_bytes(config) == int(size)  # what the planner counts


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_a_bfloat16_moment_takes_nearly_the_same_steps(name):
    params = params_of(True)[0]
    exact, rounded = (steps(constant(name, mu_dtype=d), params) for d in ("float32", "bfloat16"))
    for key in exact:
        moved = np.abs(exact[key] - flatten_dict(params, sep="/")[key]).mean()
        assert np.abs(exact[key] - rounded[key]).mean() < 0.05 * moved


def test_adafactor_has_no_first_moment():
    with pytest.raises(SettingError, match=r"optimizer.mu_dtype is of the first moment, of which"):
        Optimizer(name="adafactor", mu_dtype="bfloat16")
