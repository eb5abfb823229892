"""What is said of a run whose numbers are no longer finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cat_jax as cat
from cat_jax.config import Guidance, LoraConfig, Optimizer, Training
from cat_jax.errors import Diverged, InputError
from cat_jax.testing import toy_model, toy_records
from cat_jax.train.divergence import (
    advice,
    find_nonfinite,
    first_nonfinite,
    leaf_names,
    nonfinite_leaves,
    unusual_settings,
)

TRAIN = Training(steps=3, batch_size=4, max_length=19)
PARAMS = {"a": {"x": jnp.ones(2), "y": jnp.ones((2, 3))}, "b": jnp.ones(1)}


def diverged(model=None, train=TRAIN, **options):
    with pytest.raises(Diverged) as caught:
        cat.fit(model or toy_model(), toy_records(count=9), train=train, **options)
    return str(caught.value)


def test_leaves_are_named_in_the_order_of_their_flags():
    assert leaf_names(PARAMS) == ["a/x", "a/y", "b"]
    bad = {"a": {"x": jnp.ones(2), "y": jnp.ones((2, 3)).at[1, 2].set(jnp.nan)}, "b": -jnp.inf}
    assert nonfinite_leaves(bad).tolist() == [False, True, True]
    assert find_nonfinite(bad) == "a/y (and 1 more)"
    assert find_nonfinite(PARAMS) is None
    assert nonfinite_leaves({"a": jnp.full(1, 1e30)}).tolist() == [True]  # the norm overflows
    assert find_nonfinite({"a": jnp.full(1, 1e30)}) is None


@pytest.mark.parametrize(
    ("values", "flags", "said"),
    [
        ({"next_token_loss": np.nan, "loss": np.nan}, [1, 1, 1], "next_token_loss is nan"),
        (
            {"next_token_loss": 2.5, "guidance_loss": np.inf, "gamma": 0.5, "loss": np.inf},
            [0, 0, 0],
            "guidance_loss is inf (next_token_loss 2.5, gamma 0.5)",
        ),
        (
            {"next_token_loss": 2.5, "guidance_loss": 3e30, "gamma": 1e10, "loss": np.inf},
            [0, 0, 0],
            "loss is inf (next_token_loss 2.5, guidance_loss 3e+30, gamma 1e+10)",
        ),
        (
            {"gradient_norm": np.nan},
            [0, 1, 0],
            "gradient norm nan: the gradient of a/y is not finite",
        ),
        ({"gradient_norm": np.nan}, [0, 1, 1], "the gradient of a/y (and 1 more) is not finite"),
        (
            {"guidance_loss": np.nan, "gamma": 0.5, "gradient_norm": np.nan},
            [0, 1, 0],
            "loss 2.5, gradient norm nan: the gradient of a/y",
        ),
        ({"gradient_norm": np.inf}, [0, 0, 0], "gradient norm inf: the norm overflows"),
    ],
)
def test_the_first_value_that_is_not_finite_is_named(values, flags, said):
    values = {"next_token_loss": 2.5, "loss": 2.5, "gradient_norm": 1.0} | values
    assert said in first_nonfinite(values, flags, PARAMS)


def test_a_gradient_is_named_by_its_parameter():
    def form(mass, causal_count, visible_count):
        return jnp.sqrt(mass - mass)  # 0, with a gradient of NaN

    said = diverged(guidance=Guidance(form=form), optimizer=Optimizer(warmup=0.0))
    assert "diverged at step 1: loss " in said
    # The gradient of the attention reaches all but what stands behind the last layer's.
    toy = toy_model()
    behind = ("final_norm", "unembed")
    names = [name for name in leaf_names(toy.params) if not name.startswith(behind)]
    assert f"the gradient of {names[0]} (and {len(names) - 1} more) is not finite" in said
    assert "no parameter was updated yet" in said


def test_the_setting_that_is_far_from_usual_is_named():
    said = diverged(guidance=Guidance(weight=1e6, form="nll"), optimizer=Optimizer(100.0, 0.0))
    assert "optimizer.learning_rate is 100 (usual: at most 0.01)" in said
    assert "guidance.weight is 1e+06 (usual: 0.1 to 10)" in said


def test_usual_settings_are_not_blamed():
    assert unusual_settings(Optimizer()) == []
    assert unusual_settings(Optimizer(2e-4), Guidance(), LoraConfig()) == []
    assert unusual_settings(Optimizer(), None, LoraConfig(rank=1, alpha=64.0)) == [
        "lora.alpha / lora.rank is 64 (usual: 0.5 to 2)"
    ]
    assert "try a lower optimizer.learning_rate" in advice(7, [])
    assert "learning_rate" not in advice(1, [])


def test_a_model_that_is_not_finite_is_refused_before_training(tmp_path):
    toy = toy_model()
    params = jax.tree.map(lambda x: x, toy.params)
    kernel = params["layers"]["mlp"]["down"]["kernel"]
    params["layers"]["mlp"]["down"]["kernel"] = kernel.at[1, 2, 3].set(jnp.nan)
    broken = dataclasses.replace(toy, params=params)
    with pytest.raises(
        InputError, match=r"NaN or infinity before training, in layers/mlp/down/ker"
    ):
        cat.fit(broken, toy_records(count=9), train=TRAIN, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
