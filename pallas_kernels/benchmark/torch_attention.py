"""Attention of torch on a CPU, as a candidate: its fused kernel, which knows no mass."""

from importlib.util import find_spec
from typing import Any

import jax

from pallas_kernels.benchmark.measure import Program
from pallas_kernels.benchmark.shapes import Case, Shape

TORCH = "torch sdpa"


def torch_refusal(shape: Shape) -> str | None:
    """Return why torch takes no part; None if it does."""
    if shape.packed:
        return "its fused kernel takes no segments"
    if jax.default_backend() != "cpu":
        return "torch is measured on a CPU only"
    return None if find_spec("torch") else "torch is not installed"


def torch_programs(case: Case, dtype: str) -> tuple[Program, Program]:
    """Return the forward, and forward and backward, of ``scaled_dot_product_attention``."""
    import torch  # pyright: ignore[reportMissingImports]

    def tensor(x: Any) -> Any:
        return torch.from_numpy(x).to(getattr(torch, dtype)).transpose(1, 2).contiguous()

    query, key, value, d_out = map(tensor, (case.query, case.key, case.value, case.d_out))
    inputs = [x.requires_grad_() for x in (query, key, value)]

    def attend() -> Any:
        return torch.nn.functional.scaled_dot_product_attention(
            *inputs, is_causal=True, enable_gqa=True
        )

    def forward() -> Any:
        with torch.no_grad():
            return attend()

    def both() -> Any:
        out = attend()
        gradients = torch.autograd.grad(out, inputs, d_out)
        arrays = (x.detach().float().transpose(1, 2).numpy() for x in (out, *gradients))
        out, *gradients = arrays
        return out, None, gradients

    return Program(forward), Program(both)
