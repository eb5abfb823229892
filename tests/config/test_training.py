"""Epochs as a number of steps."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cat_jax.config import Training
from cat_jax.errors import SettingError


@given(
    tenths=st.integers(1, 500),
    count=st.integers(1, 10**6),
    batch_size=st.integers(1, 300),
)
def test_epochs_are_passes_of_whole_batches(tenths, count, batch_size):
    train = Training(epochs=tenths / 10, batch_size=batch_size)
    steps = ceil(Fraction(tenths, 10) * (count // batch_size))
    assert train.for_sequences(count).steps == max(steps, 1)
    assert train.for_sequences(count).epochs is None


def test_without_epochs_the_steps_count():
    assert Training(steps=7).for_sequences(1000) == Training(steps=7)


def test_more_steps_than_can_be_counted_are_refused():
    with pytest.raises(SettingError, match=r"train\.epochs"):
        Training(epochs=9_000, batch_size=1).for_sequences(10**6)
