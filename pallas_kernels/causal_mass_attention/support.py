"""What an implementation is asked when it says what it cannot do.

Each implementation has one function ``unsupported_reason(spec, machine)`` in its own file. It
calls it with the input that it is traced with and raises ValueError with that sentence;
``selection`` calls it beforehand, for this machine.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pallas_kernels.causal_mass_attention.differentiable import Inputs


class InputSpec(NamedTuple):
    """What is known of an input; None where it is not known yet, and then not checked.

    Attributes:
        dtype: Name of the dtype of queries, keys and values.
        head_dim: Size of one head, C.
        queries: Number of query positions, Q.
        keys: Number of key positions, K.
        words: Words of annotation bits, W; 0 without bits.
        segments: Whether there are segment ids.
        biased: Whether something is added to the scores, such as -inf where keys are hidden.
        second_order: Whether gradients are differentiated again, as a penalty on them needs.
    """

    dtype: str
    head_dim: int | None = None
    queries: int | None = None
    keys: int | None = None
    words: int | None = None
    segments: bool | None = None
    biased: bool | None = None
    second_order: bool | None = None

    @classmethod
    def of(cls, inputs: Inputs) -> "InputSpec":
        """Describe arrays."""
        _, queries, _, head_dim = inputs.query.shape
        words = 0 if inputs.q_bits is None else inputs.q_bits.shape[-1]
        return cls(
            dtype=jnp.dtype(inputs.query.dtype).name,
            head_dim=head_dim,
            queries=queries,
            keys=inputs.key.shape[1],
            words=words,
            segments=inputs.segment_ids is not None,
        )

    def facts(self) -> dict[str, Any]:
        """Return the keyword arguments of the public ``unsupported_reason``."""
        facts = self._asdict()
        facts["length"] = facts.pop("keys")
        return facts


class Machine(NamedTuple):
    """Where a program is to run.

    Attributes:
        platform: JAX backend, "cpu", "gpu" or "tpu".
        device: Name of the devices' kind.
        compute_capability: CUDA compute capability, such as "9.0"; "unknown" elsewhere.
    """

    platform: str
    device: str
    compute_capability: str

    @classmethod
    def here(cls) -> "Machine":
        """Describe the machine of this process."""
        device = jax.devices()[0]
        capability = getattr(device, "compute_capability", "unknown")
        return cls(jax.default_backend(), device.device_kind, capability)


UnsupportedReason = Callable[[InputSpec, Machine | None], str | None]
"""Return in one sentence why an input is not supported, or None. Without a machine the program is
traced, perhaps to be compiled for another one: then only what holds for every machine counts."""


def require_supported(unsupported_reason: UnsupportedReason, inputs: Inputs) -> None:
    """Raise ValueError if an implementation does not support the inputs it is traced with."""
    reason = unsupported_reason(InputSpec.of(inputs), None)
    if reason is not None:
        raise ValueError(reason)
