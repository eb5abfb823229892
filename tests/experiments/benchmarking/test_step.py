"""The benchmark times real steps of both kinds, on the same batch."""

import jax
import numpy as np
import pytest

from cat_jax.config import Guidance
from cat_jax.errors import InputError
from experiments.benchmarking import step
from experiments.benchmarking.sizes import Sizes
from experiments.benchmarking.tables import step_page

TINY = Sizes(40, 8, 12, 2, 4, 2, 6)
GUIDANCE = Guidance(form="mass_nll", scope="head")


def test_the_batch_counts_its_pairs():
    batch = step.make_batch(2, 19, 40)
    q_BT, k_BT = (x[..., 0].astype(int) for x in (batch.q_bits_BTW, batch.k_bits_BTW))
    assert 0 < q_BT.sum() < q_BT.size
    np.testing.assert_array_equal(batch.causal_count_BT, q_BT * k_BT.cumsum(1))
    np.testing.assert_array_equal(batch.visible_count_BT, [range(1, 20)] * 2)


def test_auto_selects_an_attention_implementation():
    assert step.model_config(TINY, 33).attention == "xla_chunked"
    assert step.model_config(Sizes(attention="auto"), 33).attention == "xla"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"sequences": 0}, "sequences must be at least 1, got 0"),
        ({"samples": 1}, "samples must be at least 2, got 1"),
    ],
)
def test_too_little_to_measure_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        step.measure(TINY, GUIDANCE, **({"length": 33, "sequences": 3, "samples": 2} | change))


@pytest.mark.slow
def test_plain_and_guided_steps_are_timed(monkeypatch):
    taken = []
    monkeypatch.setattr(step, "make_train_step", spy(step.make_train_step, taken))
    result = step.measure(TINY, GUIDANCE, length=33, sequences=3, samples=2)
    assert (result.length, result.sequences, result.attention) == (33, 3, "xla_chunked")
    assert 0 < result.ratio_low <= result.ratio <= result.ratio_high
    assert result.cat_rates["tokens_per_second"] == pytest.approx(3 * 33 / result.cat_seconds)
    page = step_page([result], TINY, 2)
    assert f"| 33 | 3 | xla\\_chunked | {result.plain_seconds:.3g} |" in page
    plain, cat = taken
    assert {len(plain), len(cat)} == {3}  # one to warm up, and the samples
    assert "guidance_loss" not in plain[-1]
    assert cat[-1]["guidance_loss"] < cat[0]["guidance_loss"]


def spy(make, taken):
    """Keep the metrics of every step that is taken."""

    def made(*args, **options):
        step, metrics = make(*args, **options), []
        taken.append(metrics)

        def taking(state, batch):
            state, values = step(state, batch)
            metrics.append(jax.device_get(values))
            return state, values

        return taking

    return made
