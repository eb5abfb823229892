"""Closed forms against shapes, against XLA's own count of an unrolled program, and by hand."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.config import Optimizer
from cat_jax.models import CausalLM, ModelConfig, attach_lora, init_lora, quantize_params
from experiments.planning import costs
from experiments.planning.costs import parameter_counts
from experiments.planning.job import Job, Layout
from experiments.planning.options import JobOptions
from experiments.planning.plans import make_job
from experiments.planning.public_models import find_model
from experiments.planning.single_device import device_table
from experiments.planning.slices import CHIPS

SMALL = ModelConfig(640, 128, 320, 2, 4, 2, 48, dtype="bfloat16")


def job(model=SMALL, tuned="all", length=96, sequences=5, logits_mib=512):
    return Job("small", model, tuned, length, sequences, logits_mib)


def shapes(model):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(CausalLM(model).init, jax.random.key(0), tokens)["params"]


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["Qwen2.5-1.5B", "Qwen3-8B", "Llama-3.1-70B"])
def test_parameters_are_those_of_the_model(name):
    model = find_model(name)
    count = parameter_counts(job(model))
    params = shapes(model)
    assert count.total == size(params)
    kernels = [x for path, x in jax.tree.leaves_with_path(params) if "kernel" in str(path[-1])]
    untied = 0 if model.tie_embeddings else count.output
    assert count.layers == size(kernels) - untied
    assert count.adapters == 0


@pytest.mark.parametrize(
    "change", [{}, {"qkv_bias": True}, {"qk_norm": True}, {"tie_embeddings": True}]
)
def test_parameters_of_every_family(change):
    model = replace(SMALL, **change)
    count = parameter_counts(job(model, "lora"))
    assert count.total == size(shapes(model))
    lora = job(model, "lora").lora
    assert count.adapters == size(jax.eval_shape(lambda: init_lora(jax.random.key(0), model, lora)))


def flops_by_xla(given):
    """Of the gradient as XLA counts it, layers unrolled so that no loop hides any."""
    model = CausalLM(replace(given.model, scan=False, dtype="float32"))
    params = shapes(model.config)
    tokens = jax.ShapeDtypeStruct((given.sequences, given.length), jnp.int32)

    def loss(trained, frozen, tokens):
        complete = trained if given.lora is None else attach_lora(frozen, trained, given.lora)
        logits, _ = model.apply({"params": complete}, tokens)
        return (jax.nn.log_softmax(logits) ** 2).mean()

    trained = params
    if given.lora is not None:
        trained = jax.eval_shape(lambda: init_lora(jax.random.key(0), given.model, given.lora))
    program = jax.jit(jax.grad(loss)).lower(trained, params, tokens).compile()
    return program.cost_analysis()["flops"]


@pytest.mark.slow
@pytest.mark.parametrize(("tuned", "remat"), [("all", "none"), ("all", "full"), ("lora", "none")])
def test_operations_are_those_that_xla_counts(tuned, remat):
    given = job(replace(SMALL, remat=remat), tuned)
    # XLA's attention computes every pair, visible or not, forward and twice that backward.
    model, pairs = given.model, given.length**2
    forward = 4 * model.num_layers * model.num_heads * model.head_dim * pairs * given.sequences
    attention = (4 if remat == "full" else 3) * forward
    counted = flops_by_xla(given)
    found = costs.matmul_flops(given, Layout(1, 1, 1)) + attention
    assert found == pytest.approx(counted, rel=0.06)


def test_model_flops_by_hand():
    given = job()
    layers = 2 * (128 * 48 * (4 + 2 + 2) + 48 * 4 * 128 + 3 * 128 * 320)
    pairs = sum(range(1, 97))
    attention = 3 * 5 * 4 * 2 * 4 * 48 * pairs
    assert costs.model_flops(given) == 6 * (layers + 640 * 128) * 5 * 96 + attention


def test_logits_are_computed_again_only_by_pieces():
    """A MiB holds 409 of the 480 tokens' logits; two chips have 240 tokens each."""
    layouts = Layout(data=1, fsdp=1, tensor=1, context=2), Layout(data=1, fsdp=1, tensor=1)
    once, again = (costs.matmul_flops(job(logits_mib=1), layout) for layout in layouts)
    assert again - once == 2 * 640 * 128 * 5 * 96


ONE_HEAD = replace(SMALL, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=128)


def test_kernel_cycles_by_hand():
    # The schedule, or products: 4 matrix units of 128 x 128 take 2048 cycles for one.
    assert costs.cycles_per_tile(CHIPS["v6e"], mass=True) == (3820, 3797, 4705)
    plain, mass = (costs.cycles_per_tile(CHIPS["v5e"], mass) for mass in (False, True))
    assert plain == (4597, *(pytest.approx(n * 2048 + 200, rel=3e-3) for n in (3, 4)))
    assert mass == (4706, *plain[1:])


@pytest.mark.parametrize("name", CHIPS)
def test_kernel_time_of_tiles(name):
    chip = CHIPS[name]
    forward, *backward = costs.cycles_per_tile(chip, mass=False)
    one = costs.kernel_seconds(job(ONE_HEAD, length=1000, sequences=1), chip, 1, mass=False)
    assert one == pytest.approx((forward + sum(backward)) / chip.clock / chip.cores)
    # Three tiles of two blocks, eight sequences on four chips, and another forward pass.
    full = replace(ONE_HEAD, remat="full")
    more = costs.kernel_seconds(job(full, length=2048, sequences=8), chip, 4, mass=False)
    assert more == pytest.approx(one * 6 * (1 + forward / (forward + sum(backward))))


@pytest.mark.parametrize("name", CHIPS)
def test_no_kernel_is_faster_than_its_products_at_the_peak(name):
    products = 2 * (2 + 3 + 4) * 128 * 1024**2
    given = job(ONE_HEAD, length=1024, sequences=1)
    plain, mass = (costs.kernel_seconds(given, CHIPS[name], 1, mass) for mass in (False, True))
    assert products / CHIPS[name].flops < plain < mass < 4 * products / CHIPS[name].flops


def test_memory_by_hand():
    model = replace(SMALL, remat="full", num_layers=2)
    count = parameter_counts(job(model))
    layer = 128 * 48 * 8 + 48 * 4 * 128 + 3 * 128 * 320
    positions = 2 * 96
    at_work = 2 * (2 * 128 + 2 * 192 / 2 + 2 * 96 / 2 + 3 * 320 / 2)
    kept = 2 * 128 * 2
    logits = 8 * 192 * 640 / 2
    needed = 16 * count.total / 4 + 6 * 640 * 128 / 2 + 2 * layer / 2
    given = job(model, sequences=8)
    found = costs.memory(given, Layout(data=2, fsdp=2, tensor=2, accumulate=1))
    assert found == needed + positions * (kept + at_work) + logits


@settings(deadline=None)
@given(st.sampled_from(["none", "full"]), st.sampled_from(["all", "lora"]), st.integers(0, 3))
def test_more_chips_never_need_more_memory(remat, tuned, doubling):
    given = job(replace(SMALL, remat=remat), tuned, sequences=64)
    base = Layout(1, 2**doubling, 1)
    for change in ({"fsdp": 2 * base.fsdp}, {"tensor": 2}, {"context": 2}):
        wider = replace(base, **change)
        assert costs.memory(given, wider) < costs.memory(given, base)


@pytest.mark.parametrize(
    ("settings", "saved"),
    [({"mu_dtype": "bfloat16"}, 2), ({"name": "lion"}, 4), ({"name": "adafactor"}, 8)],
)
def test_moments_take_what_the_optimizer_keeps(settings, saved):
    layout = Layout(1, 2, 2)
    lean = replace(job(), optimizer=Optimizer(**settings))
    less = costs.memory(job(), layout) - costs.memory(lean, layout)
    assert less == pytest.approx(saved * costs.trained_parameters(job()) / 4)


@pytest.mark.parametrize("frozen_dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("change", [{}, {"qkv_bias": True, "tie_embeddings": True}])
def test_the_frozen_base_takes_what_its_arrays_take(frozen_dtype, change):
    given = replace(job(replace(SMALL, **change), "lora"), frozen_dtype=frozen_dtype)
    dtype = "bfloat16" if frozen_dtype == "int8" else frozen_dtype
    base = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes(given.model))
    if frozen_dtype == "int8":
        base = jax.eval_shape(quantize_params, base)
    expected = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(base))
    assert costs.frozen_bytes(given) == expected
    parts = costs.memory_parts(given, Layout(1, 2, 2))
    assert parts["frozen"] == expected / 4
    assert costs.memory(given, Layout(1, 2, 2)) == sum(parts.values())
    assert costs.frozen_bytes(replace(given, tuned="all")) == 0


def test_adapters_of_8b_in_int8_fit_a_gpu_of_24_gb():
    """And one of 16 GB, which the base in bfloat16 would fill alone."""
    options = JobOptions(lora=True, length=1024, frozen_dtype="int8")
    given = make_job("Llama-3.1-8B", 1, options)
    parts = costs.memory_parts(given, Layout(1, 1, 1))
    assert 9.0e9 < parts["frozen"] < 9.2e9
    assert sum(parts.values()) < 16e9 < costs.frozen_bytes(replace(given, frozen_dtype="bfloat16"))
    one, other = (
        device_table([replace(given, frozen_dtype=dtype)], [16, 24]).splitlines()[-1]
        for dtype in ("int8", "bfloat16")
    )
    assert one.startswith("| Llama-3.1-8B | lora on int8 | 1 x 1024 | 9.0")
    assert one.endswith("| yes | yes |")
    assert other.endswith("| no | yes |")


def test_adapters_need_less_and_remat_saves():
    layout = Layout(1, 4, 1)
    whole = costs.memory(job(), layout)
    assert costs.memory(
        job(tuned="lora", model=replace(SMALL, num_layers=9)), layout
    ) < costs.memory(job(model=replace(SMALL, num_layers=9)), layout)
    kept = [
        costs.memory(job(replace(SMALL, remat=remat, attention="mosaic_tpu")), layout)
        for remat in ("full", "attention", "none")
    ]
    assert kept == sorted(kept)
    assert kept[-1] == whole
