"""What runs where, on invented machines."""

from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from pallas_kernels import Machine, select_implementation, unsupported_reason
from pallas_kernels.causal_mass_attention import stock
from pallas_kernels.causal_mass_attention.differentiable import Inputs
from pallas_kernels.causal_mass_attention.hopper import kernel as hopper
from pallas_kernels.causal_mass_attention.hopper.kernel import mosaic_gpu_kernel
from pallas_kernels.causal_mass_attention.support import InputSpec
from pallas_kernels.causal_mass_attention.tpu.kernel import mosaic_tpu_kernel

KERNELS = {"mosaic_gpu": mosaic_gpu_kernel(), "mosaic_tpu": mosaic_tpu_kernel()}


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be another machine."""

    def pretend(platform, version=(0, 12, 0), capability="9.0", cuda=13000):
        device = SimpleNamespace(device_kind=f"some {platform}", compute_capability=capability)
        monkeypatch.setattr(jax, "default_backend", lambda: platform)
        monkeypatch.setattr(jax, "devices", lambda: [device])
        monkeypatch.setattr(jax, "__version_info__", version)
        monkeypatch.setattr(hopper, "_cuda_version", lambda: cuda)
        monkeypatch.setattr(stock, "cudnn_version", lambda: 91200)

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
def test_long_sequences_get_the_kernel_of_the_machine(machine, platform, dtype, expected):
    machine(platform)
    selection = select_implementation(4096, dtype)
    assert selection.implementation == expected
    assert unsupported_reason(selection.implementation, dtype) is None


def test_short_sequences_get_full_maps(machine):
    machine("gpu")
    assert select_implementation(256) == ("xla", "full maps fit: 256 positions")
    assert select_implementation(512).implementation == "xla"
    assert select_implementation(513) == ("mosaic_gpu", "kernel for some gpu")


def test_a_selection_names_its_reason(machine):
    machine("cpu")
    assert select_implementation(513) == ("xla_chunked", "memory linear in the 513 positions")


@pytest.mark.parametrize(
    ("machine_of", "facts", "reason"),
    [
        ({"cuda": 12080}, {}, "not 12.8.0, whose ptxas miscompiles causal kernels"),
        ({"cuda": 12090}, {}, "not 12.9.0, whose ptxas miscompiles causal kernels"),
        ({"version": (0, 10, 2)}, {}, "needs jax 0.11 or newer"),
        ({"capability": "8.0"}, {}, "and this one has 8.0"),
        ({"capability": "8.6"}, {"dtype": "float16"}, "and this one has 8.6"),
        ({"capability": "10.0"}, {"head_dim": 128, "words": 1}, "and this one has 10.0"),
        ({}, {"words": 33}, "takes up to 32 words of bits, not 33"),
    ],
)
def test_gpus_without_the_hopper_kernel_get_cudnn(machine, machine_of, facts, reason):
    machine("gpu", **machine_of)
    selection = select_implementation(4096, **facts)
    assert selection.implementation == "augmented"
    assert selection.reason.startswith(
        "attention of cuDNN, the mass from its products for some gpu"
    )
    assert reason in selection.reason
    assert unsupported_reason("augmented", **facts) is None


@pytest.mark.parametrize(
    ("machine_of", "facts", "reasons"),
    [
        ({"capability": "7.5"}, {}, ("and this one has 7.5", "8.0 or newer")),
        ({"capability": "8.9"}, {"segments": True}, ("has 8.9", "takes no segment_ids")),
        ({"capability": "12.0"}, {"head_dim": 256}, ("has 12.0", "head sizes up to 128, not 256")),
        ({}, {"head_dim": 257}, ("head sizes up to 256, not 257",) * 2),
        ({}, {"dtype": "float32"}, ("takes bfloat16 or float16, not float32",) * 2),
        ({"capability": "8.0"}, {"head_dim": 64, "words": 9}, ("has 8.0", "up to 8 words")),
    ],
)
def test_what_neither_supports_is_chunked(machine, machine_of, facts, reasons):
    machine("gpu", **machine_of)
    implementation, reason = select_implementation(4096, **facts)
    assert implementation == "xla_chunked"
    of_kernel, of_cudnn = reason.split("; augmented ")
    assert of_kernel.startswith("memory linear in the 4096 positions; mosaic_gpu ")
    assert reasons[0] in of_kernel
    assert reasons[1] in of_cudnn
    assert unsupported_reason("xla_chunked", **facts) is None


def documented():
    """Yield compute capability and the two implementations of each row of docs/kernel.md."""
    page = (Path(__file__).resolve().parents[2] / "docs/kernel.md").read_text()
    table = page.split("### What runs on which GPU")[1].split("\n\n")[2]
    for line in table.splitlines()[2:]:
        _, _, capabilities, whole, packed, how, _ = (cell.strip() for cell in line.split("|"))
        for capability in capabilities.split(", "):
            yield capability, whole.strip("`"), packed.strip("`"), how


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_table_of_gpus_is_true(machine, dtype):
    machine("gpu")
    rows = list(documented())
    found = [capability for capability, *_ in rows]
    assert sorted(found) == sorted(["7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0"])
    for capability, whole, packed, how in rows:
        gpu = Machine("gpu", "some GPU", capability)
        for segments, expected in ((False, whole), (True, packed)):
            facts = {"head_dim": 128, "words": 1, "segments": segments, "machine": gpu}
            assert select_implementation(513, dtype, **facts).implementation == expected
        spec = InputSpec(dtype, 128, 4096, 4096, 1, False)
        second = whole == "augmented" and not stock.stock_kernel(spec, gpu).wide_values
        assert second == ("second attention" in how)


def test_another_machine_can_be_asked_for(machine):
    machine("cpu")
    a100 = Machine("gpu", "NVIDIA A100", "8.0")
    implementation, reason = select_implementation(4096, machine=a100)
    assert implementation == "augmented"
    assert "NVIDIA A100" in reason
    assert "float32" in unsupported_reason("augmented", "float32", machine=a100)
    assert unsupported_reason("augmented", "float32") is None


# All that is not a fact of the machine; other facts lead to the same words in a traced kernel.
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("head_dim", "words"), [(64, 1), (256, 32), (257, 1), (64, 33)])
@pytest.mark.parametrize(
    ("version", "cuda"), [((0, 12, 0), 13000), ((0, 12, 0), 12080), ((0, 10, 2), 13000)]
)
def test_a_kernel_refuses_just_what_it_says(machine, name, dtype, head_dim, words, version, cuda):
    if name == "mosaic_gpu" and jax.__version_info__ < hopper.OLDEST_JAX and version > (0, 11):
        pytest.skip("this jax has no Mosaic GPU kernels to trace")
    machine("gpu" if name == "mosaic_gpu" else "tpu", version, cuda=cuda)
    reason = unsupported_reason(name, dtype, head_dim=head_dim, length=136, words=words)
    query, key = (jax.ShapeDtypeStruct((2, 136, n, head_dim), dtype) for n in (4, 2))
    bits = jax.ShapeDtypeStruct((2, 136, words), "uint32")

    def trace():
        inputs = Inputs(query, key, key, bits, bits, None)
        return jax.eval_shape(lambda x: KERNELS[name].forward(x, 1.0), inputs)

    if reason is None:
        out, mass, _ = trace()
        assert (out.shape, mass.shape) == (query.shape, (2, 4, 136))
    else:
        with pytest.raises(ValueError) as raised:  # noqa: PT011 (the whole sentence is compared)
            trace()
        assert str(raised.value) == reason


@pytest.mark.parametrize(
    ("machine_of", "implementation", "dtype", "reason"),
    [
        (("cpu",), "mosaic_tpu", "bfloat16", "needs a TPU, and this machine runs JAX on a cpu"),
        (("gpu",), "mosaic_tpu", "bfloat16", "on a gpu"),
        (("tpu",), "mosaic_tpu", "float16", "takes bfloat16 or float32, not float16"),
        (("cpu",), "mosaic_gpu", "bfloat16", "needs a Hopper GPU, and this machine"),
        (("tpu",), "mosaic_gpu", "bfloat16", "needs a Hopper GPU, and this machine"),
        (("gpu",), "augmented", "float32", "takes bfloat16 or float16, not float32"),
    ],
)
def test_reasons(machine, machine_of, implementation, dtype, reason):
    machine(*machine_of)
    assert reason in unsupported_reason(implementation, dtype)


def test_a_prefix_is_known_beforehand(machine):
    machine("gpu")
    assert unsupported_reason("augmented", length=1) is None
    assert "not 5 and 9" in unsupported_reason("augmented", length=9, queries=5)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_what_always_runs(machine, platform):
    machine(platform)
    for implementation in ("xla", "xla_chunked", "augmented"):
        assert unsupported_reason(implementation) is None
