"""Rotary angles against torch, to the last position of the long checkpoints."""

import dataclasses

import numpy as np
import pytest

from cat_jax.models import LinearScaling, Llama3Scaling, YarnScaling
from cat_jax.models.rope import rotary_frequencies, rotate

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

POSITIONS = np.unique(np.r_[0:64, np.linspace(0, 131_072, 4001).astype(int), 8191:8194, 131_071])
# theta, head size and scaling of the public configurations.
PUBLIC = {
    "Llama-2": (10_000.0, 128, None),
    "TinyLlama": (10_000.0, 64, None),
    "Llama-3": (500_000.0, 128, None),
    "Llama-3.1": (500_000.0, 128, Llama3Scaling(8.0, 1.0, 4.0, 8192)),
    "Llama-3.2": (500_000.0, 64, Llama3Scaling(32.0, 1.0, 4.0, 8192)),
    "Qwen": (1_000_000.0, 128, None),
    "Qwen, 128k": (1_000_000.0, 128, YarnScaling(4.0, 32_768)),
}
CHECKPOINTS = PUBLIC | {
    "made up": (7777.7, 80, Llama3Scaling(2.5, 0.75, 3.5, 1000)),
    "linear": (10_000.0, 128, LinearScaling(2.5)),
    "odd pairs": (300.0, 10, YarnScaling(3.0, 100, None, 7.0, 0.3)),
    "far apart": (300.0, 10, YarnScaling(3.0, 100, 1.7, 1e6, 1e-6, truncate=False)),
    "one point": (300.0, 10, YarnScaling(0.5, 100, None, 1e6, 1e5)),
}


def torch_rotation(theta, head_dim, scaling):
    """Cosines and sines [positions, C / 2] of the rotary embedding of torch."""
    rope = {"rope_type": "default", "rope_theta": theta}
    if scaling is not None:
        fields = dataclasses.asdict(scaling)
        original = fields.pop("original_max_positions", None)
        kinds = {LinearScaling: "linear", Llama3Scaling: "llama3", YarnScaling: "yarn"}
        rope |= fields | {"rope_type": kinds[type(scaling)]}
        rope |= {} if original is None else {"original_max_position_embeddings": original}
    config = transformers.LlamaConfig(
        hidden_size=head_dim,
        num_attention_heads=1,
        max_position_embeddings=131_072,
        rope_parameters=rope,
    )
    module = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    cos, sin = module(torch.zeros(1, 1), torch.tensor(POSITIONS)[None])
    half = head_dim // 2
    return cos[0, :, :half].numpy(), sin[0, :, :half].numpy()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_angles_of_late_positions(name):
    theta, head_dim, scaling = CHECKPOINTS[name]
    frequencies = rotary_frequencies(head_dim, theta, scaling)
    amplitude = 1.0 if scaling is None else scaling.amplitude
    x_BTHC = np.zeros((1, len(POSITIONS), 1, head_dim), np.float32)
    x_BTHC[..., : head_dim // 2] = 1  # the unit vector (1, 0) in every pair
    turned = np.asarray(rotate(x_BTHC, POSITIONS[None], frequencies, amplitude))[0, :, 0]
    ours_cos, ours_sin = np.split(turned, 2, axis=-1)
    cos, sin = torch_rotation(theta, head_dim, scaling)
    between = np.arctan2(ours_sin * cos - ours_cos * sin, ours_cos * cos + ours_sin * sin)
    np.testing.assert_allclose(np.hypot(ours_cos, ours_sin), np.hypot(cos, sin), rtol=1e-6)
    # One float32 rounding of a frequency may fall on the other side of torch's.
    assert np.abs(between).max() < (1e-5 if name in PUBLIC else 5e-3)


def test_scaling_keeps_short_blends_and_divides_long_wavelengths():
    """By hand: wavelengths of 2 pi / f positions, against 8192 / 4 and 8192 / 1."""
    scaling = Llama3Scaling(8.0, 1.0, 4.0, 8192)
    frequencies = np.float32(2 * np.pi / np.array([2047.0, 4096.0, 8193.0]))
    ratio = scaling.scale(frequencies, 5.0) / frequencies
    # At 4096 positions there are 2 turns: a third of the way from 1 to 4.
    np.testing.assert_allclose(ratio, [1, (1 - 1 / 3) / 8 + 1 / 3, 1 / 8], rtol=1e-6)
