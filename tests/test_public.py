"""What ``import cat_jax`` offers, and the names that stand twice so that no JAX is imported."""

import ast
import doctest
from pathlib import Path
from typing import get_args

import pytest

import cat_jax
import pallas_kernels
from cat_jax.config import Attention, LoraTarget
from cat_jax.models.lora import KERNELS


def test_the_example_of_the_package_runs():
    results = doctest.testmod(cat_jax)
    assert results.attempted >= 5
    assert results.failed == 0


@pytest.mark.parametrize("name", cat_jax.__all__)
def test_public_names_are_there(name):
    assert getattr(cat_jax, name) is not None
    assert name in dir(cat_jax)


def test_type_checkers_see_the_same_names():
    (block,) = (
        node
        for node in ast.parse(Path(cat_jax.__file__).read_text()).body
        if isinstance(node, ast.If)
    )
    imported = [alias.name for node in block.body for alias in node.names]
    assert sorted(imported) == sorted(cat_jax.__all__)
    assert len(set(imported)) == len(imported)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'cat_jax' has no attribute 'fitt'"):
        _ = cat_jax.fitt


def test_attention_implementations_are_those_of_the_kernels():
    assert get_args(Attention) == ("auto", *get_args(pallas_kernels.Implementation))


def test_lora_targets_are_the_projections():
    assert set(get_args(LoraTarget)) == set(KERNELS)
