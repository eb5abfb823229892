"""The guidance loss against the published code's outputs, loops, and finite differences."""

import doctest
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cat_jax.losses import attention_guidance_loss, guidance

FORMS = ("hinge", "div", "div2", "nll", "mass_nll")
ALPHAS = ("0.8", "2.0", "10.0")


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "reference_losses.npz") as file:
        return dict(file)


def golden_loss(average_BTT, mask_BTT, **options):
    """Our loss as a function of the averaged map; whole-row masks are left out as published."""
    length = mask_BTT.shape[-1]
    causal_BTT = mask_BTT & np.tril(np.ones((length, length), bool))
    count_BT = np.where(mask_BTT.all(-1), 0, causal_BTT.sum(-1)).astype(np.int32)
    visible_BT = np.broadcast_to(np.arange(1, length + 1, dtype=np.int32), count_BT.shape)
    mass_BT = jnp.where(causal_BTT, average_BTT, 0.0).sum(-1)
    return attention_guidance_loss(mass_BT[None, :, None, :], count_BT, visible_BT, **options)[0]


def without_row_constants(gradient_BTT, length):
    """Removes what a softmax row cannot feel.

    The published gradient treats causal and other attention as independent; ours uses that a row
    sums to one. The two differ by a constant along each row, which the softmax's backward drops.
    """
    visible_TT = np.tril(np.ones((length, length), bool))
    mean = np.where(visible_TT, gradient_BTT, 0).sum(-1) / visible_TT.sum(-1)
    return np.where(visible_TT, gradient_BTT - mean[..., None], 0)


@pytest.mark.parametrize(
    ("reduce", "form", "alpha"),
    [
        *itertools.product(["row"], FORMS[:4], ALPHAS),
        *itertools.product(["sample"], ["hinge"], ALPHAS),
    ],
)
def test_equals_the_published_code_in_value_and_gradient(golden, reduce, form, alpha):
    average_BTT = jnp.asarray(golden["attention_maps"].mean((0, 2)), jnp.float32)
    loss, gradient = jax.value_and_grad(golden_loss)(
        average_BTT, golden["mask"], form=form, alpha=float(alpha), reduce=reduce
    )
    key = f"{reduce}/{form}/{alpha}"
    np.testing.assert_allclose(loss, golden[f"{key}/loss"], atol=1e-5, rtol=1e-6)
    length = average_BTT.shape[-1]
    np.testing.assert_allclose(
        without_row_constants(np.asarray(gradient), length),
        without_row_constants(golden[f"{key}/grad_avg"], length),
        atol=2e-5,
    )


def random_case(seed, layers=3, batch=4, heads=2, length=7):
    """Masses and counts with guided rows, rows without causes, and rows without other keys."""
    rng = np.random.default_rng(seed)
    mass_NBHQ = rng.uniform(0.01, 0.99, (layers, batch, heads, length))
    visible_BQ = np.broadcast_to(np.arange(1, length + 1, dtype=np.int32), (batch, length))
    causal_BQ = rng.integers(0, visible_BQ + 1, dtype=np.int32)
    return mass_NBHQ, causal_BQ, visible_BQ


def row_value(mass, causes, others, form, alpha):
    """One row of method section 2, in plain Python."""
    if form == "mass_nll":
        return -np.log(mass)
    a1, a0 = mass / causes, (1 - mass) / others
    if a1 / a0 >= alpha:
        return 0.0
    return {
        "hinge": alpha - a1 / a0,
        "div": -np.log(1 + a1) / np.log(1 + a0),
        "div2": -np.log(1 + a1 / (1 + a0)),
        "nll": -a1 / (a1 + a0),
    }[form]


@pytest.mark.parametrize("layers", [None, (0, 2)])
@pytest.mark.parametrize("scope", ["mean", "layer", "head"])
@pytest.mark.parametrize("form", FORMS)
def test_scopes_equal_loops(form, scope, layers):
    mass_NBHQ, causal_BQ, visible_BQ = random_case(5)
    chosen = mass_NBHQ if layers is None else mass_NBHQ[list(layers)]
    groups = {
        "mean": [chosen.mean((0, 2))],
        "layer": list(chosen.mean(2)),
        "head": [chosen[n, :, h] for n in range(chosen.shape[0]) for h in range(chosen.shape[2])],
    }[scope]
    expected = [
        row_value(mass_BQ[b, q], causal_BQ[b, q], visible_BQ[b, q] - causal_BQ[b, q], form, 1.7)
        for mass_BQ in groups
        for b, q in np.argwhere((causal_BQ > 0) & (causal_BQ < visible_BQ))
    ]
    loss, _ = attention_guidance_loss(
        jnp.asarray(mass_NBHQ, jnp.float32),
        causal_BQ,
        visible_BQ,
        form=form,
        alpha=1.7,
        scope=scope,
        layers=layers,
    )
    np.testing.assert_allclose(loss, np.mean(expected), rtol=2e-5)


@pytest.mark.parametrize("reduce", ["row", "sample"])
@pytest.mark.parametrize("form", FORMS)
def test_gradient_equals_finite_differences(form, reduce):
    mass_NBHQ, causal_BQ, visible_BQ = random_case(6)
    with jax.enable_x64(True):

        def loss(mass):
            return attention_guidance_loss(
                mass, causal_BQ, visible_BQ, form=form, alpha=2.3, reduce=reduce
            )[0]

        point = jnp.asarray(mass_NBHQ, jnp.float64)
        direction = jnp.asarray(np.random.default_rng(7).normal(size=point.shape))
        slope = (loss(point + 1e-6 * direction) - loss(point - 1e-6 * direction)) / 2e-6
        np.testing.assert_allclose(
            (jax.grad(loss)(point) * direction).sum(), slope, rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize("reduce", ["row", "sample"])
@pytest.mark.parametrize("scope", ["mean", "layer", "head"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mass", [0.0, 1.0, 1.0 + 1e-6])
def test_no_nan_where_the_mass_is_none_or_all(mass, form, scope, reduce):
    _, causal_BQ, visible_BQ = random_case(8)
    value, gradient = jax.value_and_grad(
        lambda mass: attention_guidance_loss(
            mass, causal_BQ, visible_BQ, form=form, scope=scope, reduce=reduce
        )[0]
    )(jnp.full((3, 4, 2, 7), mass, jnp.float32))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if mass >= 1.0:
        np.testing.assert_allclose(value, 0.0, atol=2e-6)


def test_rows_that_are_not_guided_change_nothing():
    mass_NBHQ, causal_BQ, visible_BQ = random_case(9)
    counted_BQ = (causal_BQ > 0) & (causal_BQ < visible_BQ)
    other = np.where(counted_BQ[None, :, None], mass_NBHQ, 0.123)
    for form, reduce in itertools.product(FORMS, ["row", "sample"]):
        options = {"form": form, "reduce": reduce}
        one, _ = attention_guidance_loss(jnp.asarray(mass_NBHQ), causal_BQ, visible_BQ, **options)
        two, _ = attention_guidance_loss(jnp.asarray(other), causal_BQ, visible_BQ, **options)
        assert one == two


def test_a_batch_without_annotations_costs_nothing():
    mass_NBHQ, causal_BQ, visible_BQ = random_case(10)
    loss, metrics = attention_guidance_loss(jnp.asarray(mass_NBHQ), causal_BQ * 0, visible_BQ)
    assert loss == 0.0
    assert all(value == 0.0 for value in metrics.values())


@settings(max_examples=30, deadline=None)
@given(
    mass=st.floats(0.02, 0.98),
    causes=st.integers(1, 9),
    others=st.integers(1, 9),
    alpha=st.floats(0.1, 9),
)
def test_metrics_of_one_row(mass, causes, others, alpha):
    ratio = (mass / causes) / ((1 - mass) / others)
    mass_NBHQ = jnp.full((1, 1, 1, 1), mass, jnp.float32)
    _, metrics = attention_guidance_loss(
        mass_NBHQ, np.int32([[causes]]), np.int32([[causes + others]]), alpha=alpha
    )
    np.testing.assert_allclose(metrics["causal_mass"], mass, rtol=1e-5)
    np.testing.assert_allclose(metrics["attention_ratio"], ratio, rtol=1e-4)
    if abs(ratio / alpha - 1) > 1e-4:
        assert metrics["satisfied"] == float(ratio >= alpha)


@pytest.mark.parametrize("wrong", [{"form": "kl"}, {"scope": "model"}, {"reduce": "batch"}])
def test_unknown_options_are_named(wrong):
    mass_NBHQ, causal_BQ, visible_BQ = random_case(11)
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} is one of .*, not '{wrong[name]}'"):
        attention_guidance_loss(jnp.asarray(mass_NBHQ), causal_BQ, visible_BQ, **wrong)


@pytest.mark.parametrize("form", FORMS)
def test_packed_samples_equal_samples_alone(form):
    """Three sequences of two samples each, of which some have no guided row."""
    mass_NBHQ, causal_BQ, _ = random_case(12, batch=3, length=11)
    visible_BQ = np.broadcast_to(np.int32([1, 2, 3, 4, 1, 2, 3, 4, 5, 1, 2]), (3, 11))
    causal_BQ = np.minimum(causal_BQ, visible_BQ)
    causal_BQ[0, :4] = 0
    segments_BQ = np.broadcast_to(np.int32([7] * 4 + [9] * 5 + [0] * 2), (3, 11))
    causal_BQ[:, 9:] = 0
    parts = []
    for start, stop in ((0, 4), (4, 9)):
        pad = [(0, 0), (0, 5 - (stop - start))]
        parts.append([np.pad(x[:, start:stop], pad) for x in (causal_BQ, visible_BQ)])
        parts[-1].append(np.pad(mass_NBHQ[..., start:stop], [(0, 0)] * 2 + pad))
    causal, visible = (np.concatenate([part[n] for part in parts]) for n in (0, 1))
    mass = np.concatenate([part[2] for part in parts], axis=1)

    options = {"form": form, "alpha": 1.3, "scope": "layer", "reduce": "sample"}
    alone, metrics_alone = attention_guidance_loss(jnp.asarray(mass), causal, visible, **options)
    packed, metrics = attention_guidance_loss(
        jnp.asarray(mass_NBHQ), causal_BQ, visible_BQ, segment_ids=segments_BQ, **options
    )
    assert alone != 0
    np.testing.assert_allclose(packed, alone, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, metrics_alone)


# --- a function as the form ---


def div(mass, causal_count, visible_count):
    a1, a0 = mass / causal_count, (1 - mass) / (visible_count - causal_count)
    return -jnp.log(1 + a1) / jnp.log(1 + a0)


def mass_nll(mass, causal_count, visible_count):
    return -jnp.log(mass)


SEGMENTS = np.broadcast_to(np.int32([7, 7, 7, 9, 9, 9, 9]), (4, 7))


@pytest.mark.parametrize("segment_ids", [None, SEGMENTS])
@pytest.mark.parametrize("layers", [None, (0, 2)])
@pytest.mark.parametrize("scope", ["mean", "layer", "head"])
@pytest.mark.parametrize("form", [div, mass_nll])
def test_a_function_that_is_a_named_form_gives_its_loss(form, scope, layers, segment_ids):
    mass_NBHQ, causal_BQ, visible_BQ = random_case(13)
    if segment_ids is not None:
        visible_BQ = np.broadcast_to(np.int32([1, 2, 3, 1, 2, 3, 4]), (4, 7))
        causal_BQ = np.minimum(causal_BQ, visible_BQ)
    mass_NBHQ *= (causal_BQ > 0)[None, :, None]  # where it is 0, the logarithm is infinite
    alpha = 1e9  # named forms have a threshold and functions have none
    options = {"alpha": alpha, "scope": scope, "layers": layers, "segment_ids": segment_ids}

    def loss(mass, form):
        return attention_guidance_loss(mass, causal_BQ, visible_BQ, form=form, **options)

    (ours, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.asarray(mass_NBHQ, jnp.float32), form
    )
    (named, named_metrics), named_gradient = jax.value_and_grad(loss, has_aux=True)(
        jnp.asarray(mass_NBHQ, jnp.float32), form.__name__
    )
    np.testing.assert_allclose(ours, named, rtol=1e-5)
    np.testing.assert_allclose(gradient, named_gradient, rtol=1e-4, atol=1e-7)
    assert np.abs(gradient).max() > 0
    assert metrics == named_metrics


@pytest.mark.parametrize("scope", ["mean", "layer", "head"])
def test_a_function_against_its_closed_form(scope):
    """A penalty (m |visible| - 2 |C|)^2, of which the mean and its slope are written out."""
    mass_NBHQ, causal_BQ, visible_BQ = random_case(14)
    seen = []

    def square(mass, causal_count, visible_count):
        seen.extend([mass, causal_count, visible_count])
        return (mass * visible_count - 2 * causal_count) ** 2

    loss, gradient = jax.value_and_grad(
        lambda mass: attention_guidance_loss(
            mass, causal_BQ, visible_BQ, form=square, alpha=0.0, scope=scope
        )[0]
    )(jnp.asarray(mass_NBHQ, jnp.float32))

    N, B, H, Q = mass_NBHQ.shape
    shared = {"mean": (0, 2), "layer": (2,), "head": ()}[scope]  # axes averaged before the penalty
    groups = np.prod([mass_NBHQ.shape[axis] for axis in shared], dtype=int)
    mass = mass_NBHQ.mean(shared, keepdims=True)
    guided = ((causal_BQ > 0) & (causal_BQ < visible_BQ))[None, :, None]
    error = mass * visible_BQ[:, None] - 2 * causal_BQ[:, None]
    constraints = N * H // groups
    expected = np.where(guided, error**2, 0).sum() / constraints / guided.sum()
    slope = np.where(guided, 2 * error * visible_BQ[:, None], 0) / (N * H) / guided.sum()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.broadcast_to(slope, mass_NBHQ.shape), atol=1e-5)
    assert [x.shape for x in seen] == [(constraints, B, Q)] * 3
    assert [x.dtype for x in seen] == [jnp.float32, jnp.int32, jnp.int32]


def test_functions_know_no_samples_and_return_one_penalty_a_row():
    mass_NBHQ, causal_BQ, visible_BQ = random_case(15)
    with pytest.raises(ValueError, match='a function as form needs reduce="row"'):
        attention_guidance_loss(
            jnp.asarray(mass_NBHQ), causal_BQ, visible_BQ, form=mass_nll, reduce="sample"
        )
    with pytest.raises(ValueError, match=r"each entry of the mass, \(1, 4, 7\), .* \(1, 4\)"):
        attention_guidance_loss(
            jnp.asarray(mass_NBHQ), causal_BQ, visible_BQ, form=lambda m, c, v: m.sum(-1)
        )


def test_the_documented_example():
    results = doctest.testmod(guidance)
    assert results.attempted > 5
    assert results.failed == 0
