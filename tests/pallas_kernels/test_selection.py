"""What runs where, with the machine made up."""

from types import SimpleNamespace

import jax
import pytest

from pallas_kernels.causal_mass_attention.selection import select_implementation, unsupported_reason


@pytest.fixture
def machine(monkeypatch):
    """Pretends to be another machine."""

    def pretend(platform, version=(0, 12, 0), capability="9.0"):
        device = SimpleNamespace(device_kind=f"some {platform}", compute_capability=capability)
        monkeypatch.setattr(jax, "default_backend", lambda: platform)
        monkeypatch.setattr(jax, "devices", lambda: [device])
        monkeypatch.setattr(jax, "__version_info__", version)

    return pretend


@pytest.mark.parametrize(
    ("platform", "dtype", "expected"),
    [
        ("cpu", "float32", "xla_chunked"),
        ("tpu", "bfloat16", "mosaic_tpu"),
        ("tpu", "float32", "mosaic_tpu"),
        ("tpu", "float16", "xla_chunked"),
        ("gpu", "bfloat16", "mosaic_gpu"),
        ("gpu", "float32", "xla_chunked"),
    ],
)
def test_long_rows_get_the_kernel_of_the_machine(machine, platform, dtype, expected):
    machine(platform)
    choice = select_implementation(4096, dtype)
    assert choice.implementation == expected
    assert unsupported_reason(choice.implementation, dtype) is None
    assert select_implementation(100, dtype).implementation == "xla"


@pytest.mark.parametrize(
    ("machine_of", "implementation", "dtype", "reason"),
    [
        (("cpu",), "mosaic_tpu", "bfloat16", "needs a TPU, and this machine runs JAX on a cpu"),
        (("gpu",), "mosaic_tpu", "bfloat16", "on a gpu"),
        (("cpu",), "mosaic_gpu", "bfloat16", "needs a Hopper GPU, and this machine"),
        (("gpu", (0, 10, 2)), "mosaic_gpu", "bfloat16", "needs jax 0.11 or newer"),
        (("gpu", (0, 12, 0), "8.0"), "mosaic_gpu", "bfloat16", "and this one has 8.0"),
        (("gpu", (0, 12, 0), "10.0"), "mosaic_gpu", "bfloat16", "and this one has 10.0"),
        (("gpu",), "mosaic_gpu", "float32", "takes bfloat16 or float16"),
        (("gpu",), "augmented", "float32", "cuDNN has no float32"),
    ],
)
def test_reasons(machine, machine_of, implementation, dtype, reason):
    machine(*machine_of)
    assert reason in unsupported_reason(implementation, dtype)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_what_always_runs(machine, platform):
    machine(platform)
    for implementation in ("xla", "xla_chunked", "augmented"):
        assert unsupported_reason(implementation) is None


def test_a_choice_says_what_keeps_the_kernel_away(machine):
    machine("gpu", capability="8.0")
    assert "this one has 8.0" in select_implementation(4096).reason
